"""A page about one or more runs."""
