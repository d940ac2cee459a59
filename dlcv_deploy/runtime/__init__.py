"""Engines inside an application: numpy, Pillow and one backend, nothing else."""
