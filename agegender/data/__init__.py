"""Data pipeline: index, split, decoding, caching, augmentation and batches."""
