"""Predictions and metrics of a run on corrupted images."""
