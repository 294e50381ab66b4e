"""Engines that run a bundle's graphs: ONNX Runtime and TensorRT, and which of them is chosen."""
