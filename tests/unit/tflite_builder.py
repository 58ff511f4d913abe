"""Writes small quantised .tflite models operator by operator, without TensorFlow."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import ArrayLike, NDArray

_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}
NONE, RELU, RELU_N1_TO_1, RELU6 = range(4)
SAME, VALID = range(2)
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "SOFTMAX": "SoftmaxOptions",
    "MEAN": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SQUEEZE": "SqueezeOptions",
    "PAD": "PadOptions",
}


class TfliteBuilder:
    """Collects tensors and operators of one graph; methods return tensor numbers."""

    def __init__(self) -> None:
        self.tensors: list[dict[str, Any]] = []
        self.operators: list[tuple[str, list[int], list[int], dict[str, Any]]] = []
        self.metadata: dict[str, bytes] = {}

    def tensor(
        self,
        shape: tuple[int, ...],
        scale: ArrayLike = (),
        zero: ArrayLike = 0,
        *,
        dtype: str = "int8",
        data: NDArray[Any] | None = None,
        axis: int = 0,
        name: str = "",
        signature: tuple[int, ...] | None = None,
    ) -> int:
        """Add an activation or, with `data`, a constant."""
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        zeros = np.broadcast_to(np.asarray(zero, np.int64), scales.shape)
        self.tensors.append(
            {
                "shape": shape,
                "scales": scales,
                "zeros": zeros,
                "dtype": dtype,
                "data": data,
                "axis": axis,
                "name": name or f"t{len(self.tensors)}",
                "signature": signature,
            }
        )
        return len(self.tensors) - 1

    def constant(self, values: ArrayLike, dtype: str = "int32") -> int:
        """Add a constant that is not quantised."""
        data = np.asarray(values, dtype)
        return self.tensor(data.shape, dtype=dtype, data=data)

    def op(self, kind: str, inputs: list[int], output: int, **options: Any) -> int:
        """Add an operator; options are fields of its table in the schema's spelling."""
        self.operators.append((kind, inputs, [output], options))
        return output

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Write the file."""
        b = flatbuffers.Builder(1 << 14)
        contents = [b""] + [
            b"" if t["data"] is None else np.ascontiguousarray(t["data"]).tobytes()
            for t in self.tensors
        ]
        entries = []
        for name, content in self.metadata.items():
            entries.append(_table(b, "Metadata", Name=b.CreateString(name), Buffer=len(contents)))
            contents.append(content)
        buffers = [self._buffer(b, content) for content in contents]
        kinds = sorted({kind for kind, *_ in self.operators})
        codes = [self._code(b, kind) for kind in kinds]
        tensors = [self._tensor(b, n, t) for n, t in enumerate(self.tensors)]
        operators = [self._operator(b, kinds.index(op[0]), op) for op in self.operators]
        graph = _table(
            b,
            "SubGraph",
            Tensors=_offsets(b, tensors),
            Inputs=_ints(b, inputs),
            Outputs=_ints(b, outputs),
            Operators=_offsets(b, operators),
        )
        model = _table(
            b,
            "Model",
            Version=3,
            OperatorCodes=_offsets(b, codes),
            Subgraphs=_offsets(b, [graph]),
            Buffers=_offsets(b, buffers),
            Metadata=_offsets(b, entries),
        )
        b.Finish(model, b"TFL3")
        return bytes(b.Output())

    @staticmethod
    def _buffer(b: Any, content: bytes) -> int:
        if not content:
            return _table(b, "Buffer")
        b.Prep(16, len(content))
        return _table(b, "Buffer", Data=b.CreateByteVector(content))

    @staticmethod
    def _code(b: Any, kind: str) -> int:
        number = getattr(tflite.BuiltinOperator, kind)
        return _table(
            b, "OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, Version=1
        )

    @staticmethod
    def _tensor(b: Any, number: int, t: dict[str, Any]) -> int:
        quantisation = None
        if len(t["scales"]):
            quantisation = _table(
                b,
                "QuantizationParameters",
                Scale=b.CreateNumpyVector(t["scales"]),
                ZeroPoint=b.CreateNumpyVector(np.array(t["zeros"])),
                QuantizedDimension=t["axis"],
            )
        fields = {
            "Shape": _ints(b, t["shape"]),
            "Type": _TYPES[t["dtype"]],
            "Buffer": number + 1,
            "Name": b.CreateString(t["name"]),
        }
        if quantisation is not None:
            fields["Quantization"] = quantisation
        if t["signature"] is not None:
            fields["ShapeSignature"] = _ints(b, t["signature"])
        return _table(b, "Tensor", **fields)

    @staticmethod
    def _operator(b: Any, code: int, op: tuple[str, list[int], list[int], dict[str, Any]]) -> int:
        kind, inputs, outputs, options = op
        fields = {
            "OpcodeIndex": code,
            "Inputs": _ints(b, inputs),
            "Outputs": _ints(b, outputs),
        }
        table = _OPTIONS.get(kind)
        if table is not None:
            if kind == "FULLY_CONNECTED":
                options = {"KeepNumDims": False, **options}
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
            fields["BuiltinOptions"] = _table(b, table, **options)
        return _table(b, "Operator", **fields)


def _table(b: Any, name: str, **fields: Any) -> int:
    getattr(tflite, f"{name}Start")(b)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(b, value)
    return int(getattr(tflite, f"{name}End")(b))


def _ints(b: Any, values: Any) -> int:
    return int(b.CreateNumpyVector(np.asarray(values, np.int32)))


def _offsets(b: Any, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def add_conv(
    build: TfliteBuilder,
    rng: np.random.Generator,
    source: int,
    out_c: int,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    padding: int = SAME,
    activation: int = NONE,
    multiplier: int | None = None,
    per_tensor: bool = False,
    bias: bool = True,
    extreme: bool = False,
    out_scale: float | None = None,
) -> int:
    """Add a convolution, depthwise when `multiplier` is given, with random weights."""
    _, h, w, c = build.tensors[source]["shape"]
    channels = c * multiplier if multiplier else out_c
    shape = (1, *kernel, channels) if multiplier else (channels, *kernel, c)
    weights = (
        rng.choice(np.array([-128, -127, 127], np.int8), shape)
        if extreme
        else (rng.integers(-127, 128, shape, np.int8))
    )
    in_scale = build.tensors[source]["scales"][0]
    count = 1 if per_tensor else channels
    scales = rng.uniform(0.002, 0.02, count).astype(np.float32)
    taps = int(np.prod(shape[1:3])) * (1 if multiplier else c)
    spread = float(in_scale) * float(scales.max()) * 70 * 40 * np.sqrt(taps)
    out_scale = out_scale or spread / 128
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == SAME:
        size = [-(-n // s) for n, s in zip((h, w), stride, strict=True)]
    else:
        size = [(n - e) // s + 1 for n, e, s in zip((h, w), extent, stride, strict=True)]
    inputs = [
        source,
        build.tensor(shape, scales, data=weights, axis=3 if multiplier else 0, name="weights"),
    ]
    if bias:
        values = rng.integers(-3000, 3000, channels, np.int32)
        inputs.append(
            build.tensor((channels,), scales * in_scale, dtype="int32", data=values, name="bias")
        )
    zero = (
        -128 if activation in (RELU, RELU6) and rng.random() < 0.5 else int(rng.integers(-60, 60))
    )
    out = build.tensor((1, *size, channels), out_scale, zero)
    options: dict[str, Any] = {
        "Padding": padding, "StrideH": stride[0], "StrideW": stride[1],
        "DilationHFactor": dilation[0], "DilationWFactor": dilation[1],
        "FusedActivationFunction": activation,
    }  # fmt: skip
    if multiplier:
        options["DepthMultiplier"] = multiplier
        return build.op("DEPTHWISE_CONV_2D", inputs, out, **options)
    return build.op("CONV_2D", inputs, out, **options)


def add_dense(
    build: TfliteBuilder,
    rng: np.random.Generator,
    source: int,
    units: int,
    *,
    activation: int = NONE,
    per_tensor: bool = False,
    bias: bool = True,
    name: str = "",
) -> int:
    """Add a dense layer over everything behind the first axis."""
    shape = build.tensors[source]["shape"]
    inputs = int(np.prod(shape))
    weights = rng.integers(-127, 128, (units, inputs), np.int8)
    scales = rng.uniform(0.002, 0.02, 1 if per_tensor else units).astype(np.float32)
    in_scale = build.tensors[source]["scales"][0]
    operands = [source, build.tensor(weights.shape, scales, data=weights, name="weights")]
    if bias:
        values = rng.integers(-3000, 3000, units, np.int32)
        operands.append(
            build.tensor((units,), scales * in_scale, dtype="int32", data=values, name="bias")
        )
    out_scale = float(in_scale) * float(scales.max()) * 20 * np.sqrt(inputs)
    zero = -128 if activation == RELU else int(rng.integers(-60, 60))
    out = build.tensor((1, units), out_scale, zero, name=name)
    return build.op(
        "FULLY_CONNECTED", operands, out, FusedActivationFunction=activation, WeightsFormat=0
    )


def add_pool(
    build: TfliteBuilder,
    source: int,
    kind: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    activation: int = NONE,
) -> int:
    """Add AVERAGE_POOL_2D or MAX_POOL_2D."""
    t = build.tensors[source]
    _, h, w, c = t["shape"]
    if padding == SAME:
        size = [-(-n // s) for n, s in zip((h, w), stride, strict=True)]
    else:
        size = [(n - k) // s + 1 for n, k, s in zip((h, w), kernel, stride, strict=True)]
    out = build.tensor((1, *size, c), t["scales"], t["zeros"])
    return build.op(
        kind, [source], out, Padding=padding, StrideH=stride[0], StrideW=stride[1],
        FilterHeight=kernel[0], FilterWidth=kernel[1], FusedActivationFunction=activation,
    )  # fmt: skip


def add_mean(build: TfliteBuilder, rng: np.random.Generator, source: int) -> int:
    """Add global average pooling by MEAN."""
    t = build.tensors[source]
    scale = t["scales"] * np.float32(rng.uniform(0.3, 1.5))
    out = build.tensor((1, t["shape"][-1]), scale, int(rng.integers(-60, 60)))
    return build.op("MEAN", [source, build.constant([1, 2])], out, KeepDims=False)
