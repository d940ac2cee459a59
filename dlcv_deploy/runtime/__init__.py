"""Engines inside an application: numpy, Pillow and one backend, nothing else."""

from __future__ import annotations

from .device_array import DeviceArray
from .engine import Engine, Prediction

__all__ = ["DeviceArray", "Engine", "Prediction"]
