"""What Hydra looks for sweepers in."""
