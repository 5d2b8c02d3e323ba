"""The faces of a folder or table: names, labels, copies and the split."""
