"""Graphs on hardware: what releases of TensorRT read, float16, TF32, bf16, an open batch."""
