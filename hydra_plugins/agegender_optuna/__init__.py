"""Hydra plugin package; Hydra searches `hydra_plugins` for sweepers."""
