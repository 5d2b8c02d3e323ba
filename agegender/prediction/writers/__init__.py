"""Output: tables, lines, partial results and annotated pictures."""
