"""Model repositories for NVIDIA's Triton Inference Server, written from bundles."""
