"""Engines inside an application: numpy, Pillow and one backend, nothing else."""

from __future__ import annotations

from .engine import Engine, Prediction

__all__ = ["Engine", "Prediction"]
