"""Run folders, checkpoints and resumption."""
