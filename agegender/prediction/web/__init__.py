"""The predictor as a page and an HTTP API: `python -m agegender.prediction.web`."""
