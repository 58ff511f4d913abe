"""How each operator of a ``.tflite`` becomes operators of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drip.compile import quant
from drip.compile.graph import Node, Tensor
from drip.compile.program import NO_TENSOR, Step, Value
from drip.errors import ModelError
from drip.wire import Op, OpFlag

if TYPE_CHECKING:
    from drip.compile.lower import Lowering

_SAME = 0
_INT32_MAX = (1 << 31) - 1
_AGAIN = "convert the model again"


def _window(
    low: Lowering, node: Node, source: Value, out: Value, kernel: tuple[int, int]
) -> dict[str, int]:
    """Geometry of a sliding window, checked against the output's shape."""
    options = node.options
    stride = options["StrideH"], options["StrideW"]
    dilation = options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)
    if min(*stride, *dilation, *kernel) < 1:
        raise ModelError(f"{node.kind} {out.name} has a window of size 0", _AGAIN)
    pad = quant.same_padding if options["Padding"] == _SAME else quant.valid_padding
    h, top = pad(source.h, kernel[0], stride[0], dilation[0])
    w, left = pad(source.w, kernel[1], stride[1], dilation[1])
    if (h, w) != (out.h, out.w):
        raise ModelError(
            f"{node.kind} {out.name} has shape {out.h}x{out.w}, its input gives {h}x{w}", _AGAIN
        )
    return _geometry(kernel, stride, dilation, (top, left)) | low.activation(node, out)


def _geometry(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
) -> dict[str, int]:
    return {
        "kernel_h": kernel[0], "kernel_w": kernel[1],
        "stride_h": stride[0], "stride_w": stride[1],
        "dilation_h": dilation[0], "dilation_w": dilation[1],
        "pad_top": pad[0], "pad_left": pad[1],
    }  # fmt: skip


def _zeros(source: Value, out: Value) -> dict[str, int]:
    return {"in0_zero": source.zero_point, "out_zero": out.zero_point}


def _weights(low: Lowering, node: Node, rank: int) -> tuple[Tensor, NDArray[np.int8]]:
    tensor = low.constant(node, 1)
    if tensor.dtype != "int8" or tensor.data is None:
        raise ModelError(
            f"{node.kind} has {tensor.dtype} weights ({tensor.name})", "quantise weights to int8"
        )
    if not len(tensor.scales) or tensor.zero_points.any():
        raise ModelError(
            f"weights {tensor.name} are not quantised symmetrically", "quantise to full int8"
        )
    if tensor.data.ndim != rank:
        raise ModelError(f"weights {tensor.name} have shape {list(tensor.shape)}", _AGAIN)
    return tensor, tensor.data


def _bias(low: Lowering, node: Node, channels: int) -> NDArray[np.int64]:
    if len(node.inputs) < 3 or node.inputs[2] < 0:
        return np.zeros(channels, np.int64)
    tensor = low.constant(node, 2)
    if tensor.dtype != "int32" or tensor.data is None or tensor.data.size != channels:
        raise ModelError(
            f"bias {tensor.name} is {tensor.dtype}{list(tensor.shape)}", "quantise to full int8"
        )
    return tensor.data.reshape(-1).astype(np.int64)


def _requantise(
    node: Node, source: Value, out: Value, weights: Tensor, channels: int
) -> tuple[tuple[tuple[int, int], ...], NDArray[np.float64]]:
    """Multiplier and shift per output channel, and the real value of a weight step."""
    scales = weights.scales
    if len(scales) not in (1, channels):
        raise ModelError(
            f"weights {weights.name} have {len(scales)} scales for {channels} channels", _AGAIN
        )
    in_scale, out_scale = float(source.scale), float(out.scale)
    if len(scales) == 1 and node.kind == "FULLY_CONNECTED":
        # TFLite multiplies these two in single precision, here only.
        factors = [float(source.scale * scales[0]) / out_scale]
    else:
        factors = [in_scale * float(s) / out_scale for s in scales]
    pairs = tuple(quant.quantise_multiplier(f) for f in factors)
    repeat = channels // len(scales)
    return pairs * repeat, np.tile(scales.astype(np.float64), repeat)


def _fold_bias(
    low: Lowering,
    node: Node,
    source: Value,
    out: Value,
    per_channel: NDArray[np.int8],
    quants: tuple[tuple[int, int], ...],
) -> NDArray[np.int32]:
    """Bias minus what the input's zero point contributes.

    Args:
        low: The lowering in progress.
        node: Operator.
        source: Its input.
        out: Its output.
        per_channel: Weights ``[out channels, taps]``.
        quants: Multiplier and left shift per channel.
    """
    weights = per_channel.astype(np.int64)
    bias = _bias(low, node, len(weights))
    folded: NDArray[np.int64] = bias - source.zero_point * weights.sum(axis=1)
    reach = np.abs(weights).sum(axis=1)
    worst = np.maximum(np.abs(bias) + 255 * reach, np.abs(folded) + 128 * reach)
    left = np.array([max(shift, 0) for _, shift in quants])
    if ((worst << left) > _INT32_MAX).any():
        raise ModelError(
            f"{node.kind} {out.name}: an accumulator can exceed 32 bits",
            "use fewer inputs per output or quantise the model again",
        )
    return folded.astype(np.int32)


def convolution(
    low: Lowering,
    node: Node,
    source: Value,
    out: Value,
    dilation: tuple[int, int] | None = None,
    pad: tuple[int, int] | None = None,
) -> None:
    """Lower CONV_2D or DEPTHWISE_CONV_2D; dilation and padding may come from around it."""
    tensor, weights = _weights(low, node, 4)
    kernel = (int(weights.shape[1]), int(weights.shape[2]))
    if dilation is not None and pad is not None:
        fields = _geometry(kernel, (1, 1), dilation, pad) | low.activation(node, out)
    else:
        fields = _window(low, node, source, out, kernel)
    depthwise = node.kind == "DEPTHWISE_CONV_2D"
    if depthwise:
        channels = int(weights.shape[3])
        fits = weights.shape[0] == 1 and channels % source.c == 0
        per_channel = weights.reshape(-1, channels).T
        fields["depth_multiplier"] = channels // source.c
        macs = out.size * kernel[0] * kernel[1]
    else:
        channels = int(weights.shape[0])
        fits = weights.shape[3] == source.c
        per_channel = weights.reshape(channels, -1)
        macs = out.size * kernel[0] * kernel[1] * source.c
    if not fits or channels != out.c:
        raise ModelError(
            f"{node.kind} {out.name}: weights {list(weights.shape)} on {source.c} channels",
            "grouped convolutions are not supported; use depthwise or full ones",
        )
    quants, scales = _requantise(node, source, out, tensor, channels)
    low.emit(
        Step(
            Op.DEPTHWISE_CONV_2D if depthwise else Op.CONV_2D,
            source.index,
            NO_TENSOR,
            out.index,
            fields | _zeros(source, out) | {"macs": macs},
            weights,
            _fold_bias(low, node, source, out, per_channel, quants),
            quants,
            scales,
        )
    )


def _convolution(low: Lowering, node: Node) -> None:
    convolution(low, node, low.source(node), low.target(node))


def _fully_connected(low: Lowering, node: Node) -> None:
    if node.options["WeightsFormat"] != 0:
        raise ModelError("FULLY_CONNECTED has shuffled weights", "convert without shuffling")
    source, out = low.source(node), low.target(node)
    tensor, weights = _weights(low, node, 2)
    channels, inputs = (int(n) for n in weights.shape)
    rows = source.size // inputs if inputs else 0
    if not inputs or rows * inputs != source.size or rows * channels != out.size:
        raise ModelError(
            f"FULLY_CONNECTED {out.name}: weights {list(weights.shape)} on {source.size} inputs",
            _AGAIN,
        )
    quants, scales = _requantise(node, source, out, tensor, channels)
    fields = low.activation(node, out) | _zeros(source, out) | {"macs": weights.size * rows}
    bias = _fold_bias(low, node, source, out, weights, quants)
    if rows == 1:
        step = Step(
            Op.FULLY_CONNECTED, source.index, NO_TENSOR, out.index, fields, weights, bias, quants,
            scales,
        )  # fmt: skip
    else:
        # One dense layer at many positions is a 1x1 convolution over them.
        wide = low.view(source, 1, rows, inputs)
        made = low.view(out, 1, rows, channels)
        fields |= _geometry((1, 1), (1, 1), (1, 1), (0, 0))
        step = Step(
            Op.CONV_2D, wide.index, NO_TENSOR, made.index, fields,
            weights.reshape(channels, 1, 1, inputs), bias, quants, scales,
        )  # fmt: skip
    low.emit(step)


def _pool(low: Lowering, node: Node) -> None:
    source, out = low.source(node), low.target(node)
    kernel = (int(node.options["FilterHeight"]), int(node.options["FilterWidth"]))
    fields = _window(low, node, source, out, kernel)
    if source.c != out.c:
        raise ModelError(f"{node.kind} {out.name} changes the number of channels", _AGAIN)
    kind = Op.AVERAGE_POOL_2D if node.kind == "AVERAGE_POOL_2D" else Op.MAX_POOL_2D
    macs = out.size * kernel[0] * kernel[1]
    fields |= _zeros(source, out) | {"macs": macs}
    low.emit(Step(kind, source.index, NO_TENSOR, out.index, fields))


def _all_positions(low: Lowering, node: Node) -> tuple[Value, Value]:
    """Input and output of a reduction, which must run over height and width and nothing else."""
    source, out = low.source(node), low.target(node)
    shape = low.graph.tensors[node.inputs[0]].shape
    axes = {a % len(shape) for a in low.integers(node, 1)}
    spatial = {i for i in range(len(shape) - 1) if shape[i] > 1}
    if spatial != {a for a in axes if shape[a] > 1} or out.size != source.c:
        raise ModelError(
            f"{node.kind} {out.name} over axes {sorted(axes)} of {list(shape)} is not supported",
            "reduce height and width together (global pooling)",
        )
    return source, out


def _reduce_max(low: Lowering, node: Node) -> None:
    """Global max pooling is max pooling with a window of the whole map."""
    source, out = _all_positions(low, node)
    if source.scale != out.scale or source.zero_point != out.zero_point:
        raise ModelError(f"{node.kind} {out.name} changes the scale", "quantise the model again")
    made = low.view(out, 1, 1, source.c)
    fields = _geometry((source.h, source.w), (1, 1), (1, 1), (0, 0))
    fields |= _zeros(source, out) | _full() | {"macs": source.size}
    low.emit(Step(Op.MAX_POOL_2D, source.index, NO_TENSOR, made.index, fields))


def _mean(low: Lowering, node: Node) -> None:
    source, out = _all_positions(low, node)
    mult, shift = quant.mean_multiplier(float(source.scale), float(out.scale), source.positions)
    fields = _zeros(source, out) | _full() | {"mult0": mult, "shift0": shift, "macs": source.size}
    low.emit(Step(Op.MEAN, source.index, NO_TENSOR, out.index, fields))


def _full() -> dict[str, int]:
    return {"clamp_min": quant.INT8_MIN, "clamp_max": quant.INT8_MAX}


def _elementwise(low: Lowering, node: Node) -> None:
    """ADD and MUL of two tensors, or of a tensor and a constant."""
    first, second = node.inputs[0], node.inputs[1]
    if first not in low.values and low.graph.tensors[first].data is not None:
        # Both operators are symmetric, so the constant can always come second.
        node = replace(node, inputs=(second, first))
    source, out = low.source(node), low.target(node)
    kind = Op.ADD if node.kind == "ADD" else Op.MUL
    fields = low.activation(node, out) | _zeros(source, out) | {"macs": out.size}
    if node.inputs[1] in low.values:
        other = low.source(node, 1)
        in1, scale, zero = other.index, float(other.scale), other.zero_point
        weights, same = None, (other.h, other.w, other.c) == (source.h, source.w, source.c)
    else:
        tensor = low.constant(node, 1)
        weights, same = _broadcast(tensor, source)
        in1, scale, zero = NO_TENSOR, float(tensor.scales[0]), int(tensor.zero_points[0])
        fields["flags"] = OpFlag.CONSTANT
    if not same or source.size != out.size:
        raise ModelError(
            f"{node.kind} {out.name} joins tensors of different shapes",
            "both must have the same shape, or one must be constant",
        )
    fields["in1_zero"] = zero
    scales = float(source.scale), scale, float(out.scale)
    if kind == Op.ADD:
        fields |= _add_multipliers(*scales)
    else:
        mult, shift = quant.quantise_multiplier(scales[0] * scales[1] / scales[2])
        fields |= {"mult0": mult, "shift0": shift}
    low.emit(Step(kind, source.index, in1, out.index, fields, weights))


def _broadcast(tensor: Tensor, source: Value) -> tuple[NDArray[np.int8], bool]:
    data = tensor.data
    if data is None or tensor.dtype != "int8" or len(tensor.scales) != 1:
        raise ModelError(f"constant {tensor.name} is not int8 with one scale", "quantise to int8")
    trailing = data.shape[-1] == source.c if data.ndim else False
    same = data.size == 1 or data.size == source.size or (data.size == source.c and trailing)
    return np.ascontiguousarray(data.reshape(-1)), same


def _add_multipliers(first: float, second: float, out: float) -> dict[str, int]:
    twice = 2 * max(first, second)
    fields = {}
    for n, real in enumerate((first / twice, second / twice, twice / ((1 << 20) * out))):
        if not real < 1:
            raise ModelError("ADD has an output scale that is too small", "quantise it again")
        fields[f"mult{n}"], fields[f"shift{n}"] = quant.quantise_multiplier(real)
    return fields


def _pad(low: Lowering, node: Node) -> None:
    source, out = low.source(node), low.target(node)
    shape = low.graph.tensors[node.inputs[0]].shape
    pads = np.array(low.integers(node, 1)).reshape(-1, 2)
    if node.kind == "PADV2" and low.integers(node, 2) != [out.zero_point]:
        raise ModelError(f"PADV2 {out.name} does not pad with zero", "pad with zeros")
    spatial = np.zeros((2, 2), np.int64)
    if len(pads) == len(shape) in (3, 4):
        spatial[4 - len(shape) :] = pads[1:-1]
    ends = (source.h + spatial[0].sum(), source.w + spatial[1].sum(), source.c)
    outside = pads.sum() != spatial.sum() or (pads < 0).any()
    if outside or ends != (out.h, out.w, out.c):
        raise ModelError(
            f"{node.kind} {out.name} pads batch or channels", "pad height and width only"
        )
    fields = _zeros(source, out) | _full()
    fields |= {"pad_top": int(spatial[0, 0]), "pad_left": int(spatial[1, 0]), "macs": out.size}
    low.emit(Step(Op.PAD, source.index, NO_TENSOR, out.index, fields))


def _concatenation(low: Lowering, node: Node) -> None:
    out = low.target(node)
    rank = len(low.graph.tensors[node.outputs[0]].shape)
    # Distance from the channels, which are the last axis for any rank.
    axis = int(node.options["Axis"]) % rank - rank
    sources = [low.source(node, i) for i in range(len(node.inputs))]
    if low.activation(node, out) != _full() or axis < -3 or not sources:
        raise ModelError(f"CONCATENATION {out.name} is not supported", "join along h, w or c only")
    if any(s.scale != out.scale or s.zero_point != out.zero_point for s in sources):
        raise ModelError(
            f"CONCATENATION {out.name} joins tensors of different scales", "quantise it again"
        )
    inner = [(s.h, s.w, s.c)[axis:] for s in sources]
    blocks = [int(np.prod(shape)) for shape in inner]
    period = int(np.prod((out.h, out.w, out.c)[axis:]))
    at = 0
    for source, block in zip(sources, blocks, strict=True):
        fields = {"weights_offset": at, "param0": block, "param1": period, "macs": source.size}
        low.emit(
            Step(
                Op.COPY, source.index, NO_TENSOR, out.index,
                fields | _zeros(source, out) | _full(),
            )
        )  # fmt: skip
        at += block
    if at != period or sum(s.size for s in sources) != out.size:
        raise ModelError(f"CONCATENATION {out.name} does not add up", _AGAIN)


def _table_output(node: Node, out: Value) -> None:
    if out.scale != np.float32(1 / 256) or out.zero_point != -128:
        raise ModelError(
            f"{node.kind} {out.name} has an unusual output scale", "quantise the model again"
        )


def _softmax(low: Lowering, node: Node) -> None:
    source, out = low.source(node), low.target(node)
    _table_output(node, out)
    mult, shift, smallest = quant.softmax_parameters(
        float(np.float32(node.options["Beta"])), float(source.scale)
    )
    fields = _zeros(source, out) | _full()
    fields |= {"mult0": mult, "shift0": shift, "param0": smallest & 0xFFFFFFFF, "macs": out.size}
    low.emit(Step(Op.SOFTMAX, source.index, NO_TENSOR, out.index, fields))


def _logistic(low: Lowering, node: Node) -> None:
    source, out = low.source(node), low.target(node)
    _table_output(node, out)
    mult, shift, radius = quant.logistic_parameters(float(source.scale))
    fields = _zeros(source, out) | _full()
    fields |= {"mult0": mult, "shift0": shift, "param0": radius, "macs": out.size}
    low.emit(Step(Op.LOGISTIC, source.index, NO_TENSOR, out.index, fields))


def _requantize(low: Lowering, node: Node) -> None:
    source, out = low.source(node), low.target(node)
    _rescale(low, source, out, _full())


def _relu(low: Lowering, node: Node) -> None:
    source, out = low.source(node), low.target(node)
    _rescale(low, source, out, low.clamp(node.kind, out))


def _rescale(low: Lowering, source: Value, out: Value, clamp: dict[str, int]) -> None:
    if source.size != out.size:
        raise ModelError(f"{out.name} has another size than its input", _AGAIN)
    mult, shift = quant.quantise_multiplier(float(source.scale) / float(out.scale))
    fields = _zeros(source, out) | clamp | {"mult0": mult, "shift0": shift, "macs": out.size}
    low.emit(Step(Op.REQUANTIZE, source.index, NO_TENSOR, out.index, fields))


HANDLERS: dict[str, Callable[[Any, Node], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "REDUCE_MAX": _reduce_max,
    "ADD": _elementwise,
    "MUL": _elementwise,
    "PAD": _pad,
    "PADV2": _pad,
    "CONCATENATION": _concatenation,
    "SOFTMAX": _softmax,
    "LOGISTIC": _logistic,
    "QUANTIZE": _requantize,
    "RELU": _relu,
    "RELU6": _relu,
}
