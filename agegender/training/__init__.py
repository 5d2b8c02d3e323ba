"""Training: from a config to a tested checkpoint."""
