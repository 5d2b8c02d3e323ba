"""A run's weights in a form to be passed on: see `python -m agegender.weights`."""
