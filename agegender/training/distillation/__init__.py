"""Knowledge distillation: soft targets from trained networks."""
