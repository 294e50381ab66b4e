"""ONNX graphs: export from torch, lint, quantisation, smoothing, sensitivity search."""
