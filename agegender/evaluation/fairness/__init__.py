"""Gaps between the groups of a label: raw, and with the effect of the groups' different ages removed."""
