"""Metrics of decisions by a prediction: age limits, and answering only where a prediction is certain."""
