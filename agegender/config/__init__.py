"""Overrides, config composition, validation of settings, the allow-list, and instantiation of `_target_` nodes."""
