"""Where a run lies, and how it is found and continued."""
