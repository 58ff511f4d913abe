"""Random small models: any geometry, any operator, scales and zero points as they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from tflite_builder import (
    NONE,
    RELU,
    RELU6,
    SAME,
    VALID,
    TfliteBuilder,
    add_conv,
    add_dense,
    add_mean,
    add_pool,
)

_LAYERS = (
    "conv", "conv", "depthwise", "depthwise", "dilated", "pool", "add", "mul", "pad", "concat",
    "requantize", "relu", "logistic", "softmax", "reshape", "residual",
)  # fmt: skip


@st.composite
def models(draw: Any) -> bytes:
    """A model of one to five layers, of which the last may be a dense head."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16), label="weights seed"))
    build = TfliteBuilder()
    shape = (1, draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    x = y = build.tensor(shape, rng.uniform(0.005, 0.1), draw(st.integers(-128, 127)), name="in")
    kinds = draw(st.lists(st.sampled_from(_LAYERS), min_size=1, max_size=4))
    for kind in kinds:
        y = _layer(draw, build, rng, y, kind)
    # A model of reshapes alone computes nothing and is refused.
    endings = ("none", "dense", "mean", "hidden")[set(kinds) == {"reshape"} :]
    ending = draw(st.sampled_from(endings))
    if ending == "mean":
        y = add_mean(build, rng, y)
    if ending == "hidden":
        y = add_dense(build, rng, y, draw(st.integers(1, 9)), activation=RELU)
    if ending != "none":
        y = add_dense(
            build, rng, y, draw(st.integers(1, 9)), per_tensor=draw(st.booleans()),
            bias=draw(st.booleans()), name="logits",
        )  # fmt: skip
    return build.finish([x], [y])


def _layer(draw: Any, build: TfliteBuilder, rng: np.random.Generator, x: int, kind: str) -> int:
    t = build.tensors[x]
    _, h, w, c = t["shape"]
    if kind in ("conv", "depthwise", "dilated", "pool"):
        return _window(draw, build, rng, x, kind)
    if kind in ("add", "mul"):
        return _with_constant(draw, build, rng, x, kind)
    if kind == "pad":
        top, bottom, left, right = (draw(st.integers(0, 3)) for _ in range(4))
        out = build.tensor((1, h + top + bottom, w + left + right, c), t["scales"], t["zeros"])
        pads = build.constant([[0, 0], [top, bottom], [left, right], [0, 0]])
        return build.op("PAD", [x, pads], out)
    if kind == "concat":
        axis = draw(st.integers(1, 3))
        double = [1, h, w, c]
        double[axis] *= 2
        out = build.tensor(tuple(double), t["scales"], t["zeros"])
        return build.op("CONCATENATION", [x, x], out, Axis=axis, FusedActivationFunction=NONE)
    if kind == "residual":
        y = add_conv(build, rng, x, c, (3, 3))
        return _add(draw, build, rng, y, x)
    if kind == "reshape":
        shape = (1, w, h, c)
        out = build.tensor(shape, t["scales"], t["zeros"])
        return build.op("RESHAPE", [x, build.constant(shape)], out)
    if kind in ("logistic", "softmax"):
        out = build.tensor(t["shape"], 1 / 256, -128)
        options = {"Beta": 1.0} if kind == "softmax" else {}
        return build.op(kind.upper(), [x], out, **options)
    out = build.tensor(
        t["shape"], t["scales"] * np.float32(rng.uniform(0.3, 3)), int(rng.integers(-128, 128))
    )
    return build.op("QUANTIZE" if kind == "requantize" else "RELU", [x], out)


def _window(draw: Any, build: TfliteBuilder, rng: np.random.Generator, x: int, kind: str) -> int:
    h, w = build.tensors[x]["shape"][1:3]
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    dilation = (1, 1)
    if kind == "dilated":
        stride, dilation = (1, 1), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = draw(st.sampled_from((SAME, VALID)))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if extent[0] > h or extent[1] > w:
        padding = SAME
    activation = draw(st.sampled_from((NONE, RELU, RELU6)))
    if kind == "pool":
        name = draw(st.sampled_from(("AVERAGE_POOL_2D", "MAX_POOL_2D")))
        return add_pool(build, x, name, kernel, stride, padding, activation)
    depthwise = kind == "depthwise" or (kind == "dilated" and draw(st.booleans()))
    return add_conv(
        build, rng, x, draw(st.integers(1, 9)), kernel, stride=stride, dilation=dilation,
        padding=padding, activation=activation, per_tensor=draw(st.booleans()),
        bias=draw(st.booleans()), extreme=draw(st.booleans()),
        multiplier=draw(st.integers(1, 3)) if depthwise else None,
    )  # fmt: skip


def _with_constant(
    draw: Any, build: TfliteBuilder, rng: np.random.Generator, x: int, kind: str
) -> int:
    t = build.tensors[x]
    shape = draw(st.sampled_from(((), (t["shape"][-1],), t["shape"])))
    data = rng.integers(-128, 128, shape, np.int8)
    other = build.tensor(shape, rng.uniform(0.01, 0.1), int(rng.integers(-20, 20)), data=data)
    inputs = [x, other] if draw(st.booleans()) else [other, x]
    if kind == "add":
        return _add(draw, build, rng, *inputs)
    scale = float(t["scales"][0]) * float(build.tensors[other]["scales"][0]) * 60
    out = build.tensor(t["shape"], scale, int(rng.integers(-60, 60)))
    return build.op("MUL", inputs, out, FusedActivationFunction=NONE)


def _add(draw: Any, build: TfliteBuilder, rng: np.random.Generator, a: int, b: int) -> int:
    scales = [float(build.tensors[n]["scales"][0]) for n in (a, b)]
    shape = max((build.tensors[n]["shape"] for n in (a, b)), key=lambda s: int(np.prod(s)))
    if len(shape) < 4:
        shape = next(
            build.tensors[n]["shape"] for n in (a, b) if len(build.tensors[n]["shape"]) == 4
        )
    out = build.tensor(shape, max(scales) * rng.uniform(0.7, 2), int(rng.integers(-60, 60)))
    activation = draw(st.sampled_from((NONE, RELU)))
    return build.op("ADD", [a, b], out, FusedActivationFunction=activation)
