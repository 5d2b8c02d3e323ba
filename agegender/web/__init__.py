"""The predictor as a page and an HTTP API: `agegender serve`."""
