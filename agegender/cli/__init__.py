"""Subcommands, exit codes and one-line errors."""
