"""Overrides, validation of settings, the allow-list, and objects from `_target_` nodes."""
