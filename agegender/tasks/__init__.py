"""Age codings, and the calibration of age spreads and gender probabilities."""
