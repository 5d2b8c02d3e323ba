"""Scripts that print the figures of docs/performance.md: `python -m benchmarks.loader`, and so on."""
