"""Finders of a learning rate and a batch size, which end without a training."""
