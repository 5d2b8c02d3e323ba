"""Evaluation of data sets and trained models: HTML reports, and the same metrics as JSON."""
