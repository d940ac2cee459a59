"""Weights in the files and layouts that people have, as a network of this package holds them."""
