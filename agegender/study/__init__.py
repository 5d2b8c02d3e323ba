"""Hyperparameter search with Optuna: search space, storage, pruning, and reports."""
