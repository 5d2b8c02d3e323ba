"""Launchers, process groups, collectives and FSDP."""
