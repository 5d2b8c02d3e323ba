"""Pictures to answer for: files, folders, lists, addresses, videos."""
