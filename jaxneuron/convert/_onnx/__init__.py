"""ONNX models, both ways: `reader` and `writer`, and the table of operators that they share."""
