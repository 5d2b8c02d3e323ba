"""Packs of shards, and training from them."""
