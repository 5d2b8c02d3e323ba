"""ONNX export and its checks."""
