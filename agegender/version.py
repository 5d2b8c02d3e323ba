"""The package's version, for all who need nothing else of it."""

__version__ = "0.1.0"
