"""Feature extractors: a picture in, `num_features` numbers out."""
