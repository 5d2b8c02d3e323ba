"""Label noise, measured by the copies in a data set."""
