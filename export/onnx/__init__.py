"""ONNX graphs: export from torch, lint, quantisation, smoothing, sensitivity search, fused attention."""

if __name__ == "onnx":
    raise ImportError("export/onnx hides the package 'onnx': the folder 'export' is on Python's path; start elsewhere")
