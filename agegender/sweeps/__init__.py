"""Tables of Hydra sweeps."""
