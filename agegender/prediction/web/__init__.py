"""The web page and HTTP API of the predictor: `python -m agegender.prediction.web`."""
