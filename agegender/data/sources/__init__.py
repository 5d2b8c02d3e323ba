"""Where pictures come from: a folder, a download, or drawn faces."""
