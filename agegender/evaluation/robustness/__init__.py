"""A run's answers under corrupted pictures."""
