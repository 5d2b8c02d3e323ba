"""Benchmarks behind the tables of docs/performance.md: `python -m benchmarks.loader`, and so on."""
