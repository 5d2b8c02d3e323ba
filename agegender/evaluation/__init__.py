"""What is in the data, and what a model does: pages for people, figures for programs."""
