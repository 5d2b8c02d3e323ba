"""Faces followed from frame to frame, and one estimate for each person."""
