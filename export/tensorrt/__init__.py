"""TensorRT engines: one API over its releases, build options, the plan of an engine, the builder."""

if __name__ == "tensorrt":
    raise ImportError(
        "export/tensorrt hides the package 'tensorrt': the folder 'export' is on Python's path; start elsewhere"
    )
