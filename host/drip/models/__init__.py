"""Model builders: functions ``(input_shape, classes) -> keras.Model`` that end in logits.

Importing this package does not import TensorFlow; calling a builder does.
"""

from __future__ import annotations

from drip.models.registry import BUILDERS, Builder, load_builder

__all__ = ["BUILDERS", "Builder", "load_builder"]
