"""Metrics, bootstrap intervals and calibration of test predictions."""
