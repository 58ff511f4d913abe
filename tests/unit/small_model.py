"""A small .tflite with a convolution and a head of some kind."""

from __future__ import annotations

import numpy as np
import tflite_builder as tb

# Hidden layers from the features up.
STACKS = {"two": (6, 5), "four": (8, 3, 7, 5), "deep": (6, 6, 6, 6, 6)}


def small(head: str = "mean", *, tail: str = "", channels: int = 3, units: int = 4) -> bytes:
    """A convolution and a head of some kind."""
    rng = np.random.default_rng(3)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4, 4, 2), 0.04, -3, name="in")
    y = tb.add_conv(build, rng, x, channels, (3, 3), activation=tb.RELU)
    build.tensors[y]["name"] = "map"
    if head == "mean":
        y = tb.add_mean(build, rng, y)
    if head in ("average", "max"):
        y = tb.add_pool(build, y, f"{head.upper()}_POOL_2D", (4, 4), (4, 4), tb.VALID)
    if head == "flatten":
        t = build.tensors[y]
        flat = build.tensor((1, 16 * channels), t["scales"], t["zeros"])
        y = build.op("RESHAPE", [y, build.constant([1, 16 * channels])], flat)
    if head == "hidden":
        y = tb.add_dense(build, rng, tb.add_mean(build, rng, y), 6, activation=tb.RELU)
    if head in STACKS:
        y = tb.add_mean(build, rng, y)
        for width in STACKS[head]:
            y = tb.add_dense(build, rng, y, width, activation=tb.RELU)
    y = tb.add_dense(build, rng, y, units, name="logits")
    if tail == "softmax":
        out = build.tensor((1, units), 1 / 256, -128, name="probabilities")
        y = build.op("SOFTMAX", [y], out, Beta=1.0)
    return build.finish([x], [y])
