"""Checks before a training: its config, its schedule, its resumption, and its hardware."""
