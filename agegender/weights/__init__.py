"""The bundled weights, `face.ckpt` and `small.ckpt`, with their metrics as JSON files of the same names."""
