"""Maps of what a network looks at, for single faces."""
