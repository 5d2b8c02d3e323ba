"""The launcher, processes and collectives."""
