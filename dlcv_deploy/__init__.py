"""Compile trained image classifiers to INT8, FP16 and FP32 engines, with proof that they still answer alike."""

__version__ = "0.1.0"
