"""The LRN plugin for TensorRT: its CUDA sources, how they are built, what they are held against."""
