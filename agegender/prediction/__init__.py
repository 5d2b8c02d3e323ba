"""Prediction: face detection, alignment, inference, output files, video, ONNX export and the web server."""
