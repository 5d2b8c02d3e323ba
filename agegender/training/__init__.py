"""From a config to a trained, measured checkpoint."""
