"""Commands, exit codes and one-line errors."""
