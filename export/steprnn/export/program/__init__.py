"""From the ONNX graph of a step to a step program (docs/program-format.md)."""
