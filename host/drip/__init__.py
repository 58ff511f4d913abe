"""DRIP: let a sensor board decide, frame by frame, what is worth keeping."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
