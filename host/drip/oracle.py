"""The tflite-micro interpreter with every tensor kept, as the judge of the C core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.compile.graph import Graph
from drip.errors import MissingDependencyError, ModelError, install_hint

_ARENA_SPARE = 1 << 20
_IDENTIFIER = b"TFL3"


class Oracle:
    """Runs a ``.tflite`` in tflite-micro.

    Args:
        tflite: Content of the file.
        graph: The same, parsed.

    Raises:
        MissingDependencyError: tflite-micro is not installed.
        ModelError: tflite-micro refuses the model.
    """

    def __init__(self, tflite: bytes, graph: Graph) -> None:
        try:
            from tflite_micro.python.tflite_micro import runtime
        except ImportError as error:
            raise MissingDependencyError(
                "verification needs tflite-micro",
                f"{install_hint('verify')} (Linux x86-64); elsewhere the committed vectors of"
                " models/ prove the core",
            ) from error
        self._outer = inner = graph.tensors[graph.inputs[0]]
        for node in graph.nodes:
            if node.kind == "QUANTIZE" and node.inputs[0] == inner.index:
                inner = graph.tensors[node.outputs[0]]
        self._scale, self._zero_point = inner.scales[0], inner.zero_points[0]
        if any(node.kind == "SPACE_TO_BATCH_ND" for node in graph.nodes):
            tflite = _with_explicit_padding(tflite)
        sizes = [abs(int(np.prod(t.shape))) * 4 for t in graph.tensors]
        try:
            self._interpreter = runtime.Interpreter.from_bytes(
                tflite,
                arena_size=2 * sum(sizes) + _ARENA_SPARE,
                intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"tflite-micro refuses the model ({str(error).splitlines()[0]})",
                "nothing can be compared with what it cannot run",
            ) from error

    def run(self, x: NDArray[np.int8]) -> None:
        """Infer one int8 input."""
        outer = self._outer
        value: NDArray[Any] = x
        if outer.dtype == "uint8":
            value = (x.astype(np.int16) + 128).astype(np.uint8)
        elif outer.dtype == "float32":
            # Floats that the model's own QUANTIZE turns into these bytes.
            real = (x.astype(np.float32) - self._zero_point) * self._scale
            value = real.astype(np.float32)
        self._interpreter.set_input(value.reshape(outer.shape), 0)
        self._interpreter.invoke()

    def tensor(self, index: int) -> NDArray[np.int8]:
        """Content of an int8 tensor of the ``.tflite``."""
        content = self._interpreter.GetTensor(index, 0)["tensor_data"]
        return np.asarray(content).view(np.int8)


def _with_explicit_padding(tflite: bytes) -> bytes:
    """Let a PAD do what SPACE_TO_BATCH_ND pads.

    TensorFlow Lite pads with the zero point there. tflite-micro never sets that value and pads with
    the byte 0, which is another real number: padding by its PAD gives what the model means.
    """
    import flatbuffers
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(tflite, 0)
    graph = model.subgraphs[0]
    operators = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind == schema.BuiltinOperator.SPACE_TO_BATCH_ND:
            operators.append(_pad_before(model, graph, operator, schema))
        operators.append(operator)
    graph.operators = operators
    builder = flatbuffers.Builder(len(tflite) + 4096)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _pad_before(model: Any, graph: Any, operator: Any, schema: Any) -> Any:
    source = graph.tensors[operator.inputs[0]]
    pads = _int32(model, graph.tensors[operator.inputs[2]]).reshape(-1, 2)
    every = np.zeros((len(source.shape), 2), np.int32)
    every[1 : 1 + len(pads)] = pads
    padded = schema.TensorT()
    padded.shape = [int(n) for n in np.asarray(source.shape) + every.sum(axis=1)]
    padded.type, padded.quantization, padded.name = source.type, source.quantization, b"padded"
    padded.buffer = _add_buffer(model, np.zeros(0, np.int32), schema)
    graph.tensors.append(padded)
    pad = schema.OperatorT()
    pad.opcodeIndex = _code_of_pad(model, schema)
    pad.inputs = [operator.inputs[0], _add_constant(model, graph, every, schema)]
    pad.outputs = [graph.tensors.index(padded)]
    pad.builtinOptionsType = schema.BuiltinOptions.PadOptions
    pad.builtinOptions = schema.PadOptionsT()
    none = _add_constant(model, graph, np.zeros_like(pads), schema)
    operator.inputs = [pad.outputs[0], operator.inputs[1], none]
    return pad


def _int32(model: Any, tensor: Any) -> NDArray[np.int32]:
    return np.frombuffer(bytes(bytearray(model.buffers[tensor.buffer].data)), "<i4")


def _add_buffer(model: Any, content: NDArray[np.int32], schema: Any) -> int:
    buffer = schema.BufferT()
    if content.size:
        buffer.data = list(content.astype("<i4").tobytes())
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _add_constant(model: Any, graph: Any, content: NDArray[np.int32], schema: Any) -> int:
    tensor = schema.TensorT()
    tensor.shape = list(content.shape)
    tensor.type = schema.TensorType.INT32
    tensor.name = b"constant"
    tensor.buffer = _add_buffer(model, content, schema)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code_of_pad(model: Any, schema: Any) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.PAD
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
