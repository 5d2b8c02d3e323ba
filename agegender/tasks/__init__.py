"""Age codings, and the calibration of what a network states."""
