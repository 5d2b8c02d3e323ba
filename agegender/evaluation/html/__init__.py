"""Self-contained HTML pages and the style of their plots."""
