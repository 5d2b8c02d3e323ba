"""Random changes of training pictures, and the fixed changes that robustness is measured under."""
