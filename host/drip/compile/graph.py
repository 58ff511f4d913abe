"""Read a ``.tflite`` flatbuffer into plain typed objects, checking everything on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.errors import ModelError
from drip.tflite_file import MALFORMED, MalformedError, check_identifier, damaged

_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16",
    9: "int8", 10: "float64", 17: "int4",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph.

    Attributes:
        index: Position in the ``.tflite``.
        name: As the converter wrote it.
        shape: Sizes; an axis that is only known at run time is -1.
        dtype: numpy name of the element type.
        scales: float32 ``[1]`` or one per channel; empty when not quantised.
        zero_points: int64, as long as ``scales``.
        axis: Axis that ``scales`` runs along.
        data: Constant value, or None for an activation.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    axis: int
    data: NDArray[Any] | None


@dataclass(frozen=True)
class Node:
    """An operator: TFLite's name for it, tensor indices (-1 = left out) and its options."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """The main graph of a model."""

    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(tflite_bytes: bytes) -> Graph:
    """Parse a ``.tflite``.

    Raises:
        ModelError: Not a ``.tflite``, damaged, or with more than one graph.
    """
    check_identifier(tflite_bytes)
    try:
        return _Reader(tflite_bytes).graph()
    except MALFORMED as error:
        raise damaged(error) from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        import tflite

        self._schema = tflite
        # A damaged length must not become a loop over billions of entries.
        self._limit = len(content) // 4
        self._model = tflite.Model.GetRootAs(content, 0)
        self._kinds = {
            value: name
            for name, value in vars(tflite.BuiltinOperator).items()
            if isinstance(value, int)
        }

    def graph(self) -> Graph:
        graphs = self._model.SubgraphsLength()
        if graphs != 1:
            raise ModelError(
                f"the .tflite holds {graphs} graphs", "one is supported: no control flow"
            )
        graph = self._model.Subgraphs(0)
        tensors = tuple(self._tensor(graph, i) for i in range(self._count(graph.TensorsLength())))
        nodes = tuple(self._node(graph, i) for i in range(self._count(graph.OperatorsLength())))
        inputs = tuple(int(i) for i in graph.InputsAsNumpy())
        outputs = tuple(int(i) for i in graph.OutputsAsNumpy())
        for node in nodes:
            self._check_indices((*node.inputs, *node.outputs), len(tensors), -1)
        self._check_indices((*inputs, *outputs), len(tensors), 0)
        return Graph(tensors, nodes, inputs, outputs)

    def _count(self, length: int) -> int:
        if length > self._limit:
            raise MalformedError("a list is longer than the file")
        return length

    @staticmethod
    def _check_indices(indices: tuple[int, ...], count: int, lowest: int) -> None:
        if any(not lowest <= i < count for i in indices):
            raise MalformedError("a tensor index is out of range")

    def _tensor(self, graph: Any, index: int) -> Tensor:
        raw = graph.Tensors(index)
        shape = _integers(raw.ShapeAsNumpy()) if raw.ShapeLength() else ()
        if raw.ShapeSignatureLength() == len(shape):
            signature = _integers(raw.ShapeSignatureAsNumpy()) if shape else ()
            shape = tuple(-1 if s < 0 else n for s, n in zip(signature, shape, strict=True))
        dtype = _DTYPES.get(raw.Type(), f"type {raw.Type()}")
        scales, zero_points, axis = _quantisation(raw.Quantization())
        name = (raw.Name() or b"").decode("utf-8", "replace")
        data = self._data(raw.Buffer(), shape, dtype)
        if raw.Sparsity() is not None:
            raise ModelError(f"tensor {name} is sparse", "convert it to dense tensors")
        return Tensor(index, name, shape, dtype, scales, zero_points, axis, data)

    def _data(self, buffer: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any] | None:
        if not 0 <= buffer < self._model.BuffersLength():
            raise MalformedError("a buffer index is out of range")
        content = self._model.Buffers(buffer)
        if content.DataLength() == 0:
            return None
        raw = content.DataAsNumpy().tobytes()
        if dtype not in ("int8", "uint8", "int16", "int32", "int64", "float32", "float16"):
            return np.frombuffer(raw, np.uint8)
        array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))
        if any(n < 0 for n in shape):
            raise MalformedError("a constant has no fixed shape")
        return array.reshape(shape).astype(dtype)

    def _node(self, graph: Any, index: int) -> Node:
        raw = graph.Operators(index)
        if not 0 <= raw.OpcodeIndex() < self._model.OperatorCodesLength():
            raise MalformedError("an operator code is out of range")
        code = self._model.OperatorCodes(raw.OpcodeIndex())
        # Codes below 127 were written to the deprecated byte before the field grew.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = self._kinds.get(number, f"operator {number}")
        if kind == "CUSTOM":
            kind = f"CUSTOM {(code.CustomCode() or b'').decode('utf-8', 'replace')}"
        inputs = _integers(raw.InputsAsNumpy()) if raw.InputsLength() else ()
        outputs = _integers(raw.OutputsAsNumpy()) if raw.OutputsLength() else ()
        return Node(kind, inputs, outputs, self._options(kind, raw))

    def _options(self, kind: str, raw: Any) -> dict[str, Any]:
        wanted = _OPTIONS.get(kind)
        if wanted is None:
            return {}
        table_name, fields = wanted
        if raw.BuiltinOptionsType() != getattr(self._schema.BuiltinOptions, table_name):
            raise MalformedError(f"{kind} carries no {table_name}")
        union = raw.BuiltinOptions()
        table = getattr(self._schema, table_name)()
        table.Init(union.Bytes, union.Pos)
        return {field: getattr(table, field)() for field in fields}


def _integers(array: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in array)


def _quantisation(raw: Any) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    empty = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if raw is None or raw.ScaleLength() == 0:
        return empty
    scales = raw.ScaleAsNumpy().astype(np.float32)
    zero_points = np.zeros(len(scales), np.int64)
    if raw.ZeroPointLength():
        zero_points[:] = raw.ZeroPointAsNumpy().astype(np.int64)
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise MalformedError("a quantisation scale is not a positive number")
    return scales, zero_points, int(raw.QuantizedDimension())


_WINDOW = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, "DilationHFactor", "DilationWFactor")),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        (*_WINDOW, "DilationHFactor", "DilationWFactor", "DepthMultiplier"),
    ),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
}
