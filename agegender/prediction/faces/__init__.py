"""Face detection and alignment to UTKFace's crop."""
