"""Export layer: checkpoint → ONNX → quantised and compiled artefacts → verified bundle."""
