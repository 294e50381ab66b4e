"""TensorRT engines: one API over its releases, and the builder."""
