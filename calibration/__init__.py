"""Ranges of a network's activations, from sample images, for INT8."""
