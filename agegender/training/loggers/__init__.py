"""Loggers: CSV, Weights & Biases and MLflow."""
