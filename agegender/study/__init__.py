"""A search over settings: what is varied, the study that remembers, who is stopped early, what came of it."""
