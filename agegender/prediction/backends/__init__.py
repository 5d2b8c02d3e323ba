"""Networks that answer for pixels: PyTorch and ONNX Runtime."""
