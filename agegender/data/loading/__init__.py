"""From files to batches: the caches of pixels and features, samplers and loaders."""
