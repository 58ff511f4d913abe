"""From a full-int8 ``.tflite`` to a model blob (``.drip``) that the C core runs in place.

graph.py reads the flatbuffer, lower.py turns its operators into the engine's, plan.py lays the
activations out in one arena, head.py finds the Grad-CAM head, blob.py writes the bytes.
Nothing here needs TensorFlow.
"""

from __future__ import annotations

from drip.compile.build import InputSpec, compile_model

__all__ = ["InputSpec", "compile_model"]
