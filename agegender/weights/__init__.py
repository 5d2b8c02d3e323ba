"""The bundled weights, `face.ckpt` and `small.ckpt`, with their metrics as JSON files of the same names."""

LICENSE = "trained on UTKFace: for non-commercial research only"  # of all weights trained on its images
