"""The network: trunk, heads, age codings."""
