"""Packed shards, and streaming training data from them."""
