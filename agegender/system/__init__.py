"""Files, parallel work, progress bars and memory."""
