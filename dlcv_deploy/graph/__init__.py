"""Passes from an ONNX graph to another: pure, deterministic, none changes its argument."""
