"""Results of Hydra sweeps, and hyperparameter search with Optuna."""
