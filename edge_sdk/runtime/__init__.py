"""The device side: streams and sessions over a bundle, its engines and its segmenters; numpy and onnxruntime only."""
