"""Sources of images: a folder, a download, or drawn faces."""
