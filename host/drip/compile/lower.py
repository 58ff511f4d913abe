"""Turn the operators of a ``.tflite`` into those of the engine.

Reshapes become second names of the same bytes, conversions at the border disappear, and a
SPACE_TO_BATCH/BATCH_TO_SPACE pair becomes the dilation that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from drip.compile import quant
from drip.compile.graph import Graph, Node, Tensor
from drip.compile.program import Program, Step, Value
from drip.errors import ModelError
from drip.wire import Op

_BORDER = ("QUANTIZE", "DEQUANTIZE")
_ALIASES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
_SAME = 0
_U16 = 65535
_ACTIVATION_HINT = "use ReLU or ReLU6 as the activation"
_RECURRENT_HINT = "recurrent layers do not run: use convolutions along time"
_SHAPE_HINT = "the shape is computed at run time: convert with a fixed batch size of 1"
# What to build in place of what is met most often.
_INSTEAD = {
    **dict.fromkeys(("LEAKY_RELU", "HARD_SWISH", "TANH", "GELU", "ELU", "PRELU"), _ACTIVATION_HINT),
    **dict.fromkeys(
        ("SUB", "DIV"), "leave a Normalization layer out: drip.toml says how frames are scaled"
    ),
    **dict.fromkeys(("SHAPE", "STRIDED_SLICE", "PACK"), _SHAPE_HINT),
    **dict.fromkeys(
        ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "RNN", "WHILE"),
        _RECURRENT_HINT,
    ),
    **dict.fromkeys(
        ("SQUARED_DIFFERENCE", "RSQRT"),
        "normalisation that depends on the frame does not run: use BatchNormalization",
    ),
    **dict.fromkeys(
        ("BATCH_MATMUL", "TRANSPOSE"), "attention does not run: use convolutions and dense layers"
    ),
}
_INT8_HINT = "quantise to full int8, as `drip convert` does"


def lower(graph: Graph) -> Program:
    """Lower a whole graph.

    Raises:
        ModelError: An operator, type or shape is not supported; names it.
    """
    return _Lowering(graph).run()


class _Batched:
    """A tensor between SPACE_TO_BATCH and BATCH_TO_SPACE, which never exists on the device."""

    def __init__(self, source: Value, block: tuple[int, int], pad: tuple[int, int]) -> None:
        self.source = source
        self.block = block
        self.pad = pad
        self.node: Node | None = None


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[int, Value] = {}
        self.steps: list[Step] = []
        self.batched: dict[int, _Batched] = {}
        self.capped: set[int] = set()
        self.made_up = 0

    def run(self) -> Program:
        self._check_kind_of_model()
        source = self._bind_input()
        for node in self.graph.nodes:
            if node.outputs and all(o in self.values for o in node.outputs):
                continue
            self._lower(node)
        outputs = []
        for index in self.graph.outputs:
            if index not in self.values:
                raise ModelError(
                    f"output {self._name(index)} is not computed from the input", _INT8_HINT
                )
            outputs.append(index)
        if not outputs:
            raise ModelError("the model has no outputs", "convert it again")
        steps = self._fold_padding(self._reachable(outputs))
        if not steps:
            raise ModelError("the model computes nothing", "convert it again")
        capped = frozenset(self.capped)
        return Program(self.values, tuple(steps), source, tuple(outputs), capped)

    # ------------------------------------------------------------ the model as a whole

    def _check_kind_of_model(self) -> None:
        tensors = self.graph.tensors
        activations = {
            i
            for node in self.graph.nodes
            if node.kind not in _BORDER
            for i in (*node.inputs[:1], *node.outputs)
            if i >= 0 and tensors[i].data is None
        }
        floats = {i for i in activations if tensors[i].dtype in ("float32", "float16")}
        if floats:
            self._refuse_float(floats, activations)
        for index in (*self.graph.inputs, *sorted(activations)):
            shape = tensors[index].shape
            if any(n < 0 for n in shape):
                fixed = ", ".join(str(max(n, 1)) for n in shape)
                raise ModelError(
                    f"tensor {self._name(index)} has a dynamic shape {list(shape)}",
                    "convert with a fixed batch size of 1: use drip convert, or"
                    f" keras.Input(batch_shape=({fixed}))",
                )

    def _refuse_float(self, floats: set[int], activations: set[int]) -> None:
        tensors = self.graph.tensors
        if any(tensors[i].dtype == "int8" for i in activations):
            node = next(
                n
                for n in self.graph.nodes
                if n.kind not in _BORDER and floats.intersection((*n.inputs, *n.outputs))
            )
            raise ModelError(
                f"operator {node.kind} ({self._name(node.outputs[0])}) stays in float"
                " when the model is quantised",
                _INSTEAD.get(node.kind, "replace the layer that makes it"),
            )
        weights = any(t.data is not None and t.dtype == "int8" for t in tensors)
        what = (
            "computes in float with int8 weights (hybrid quantisation)"
            if weights
            else "is a float model"
        )
        raise ModelError(f"the .tflite {what}", _INT8_HINT)

    def _bind_input(self) -> int:
        if len(self.graph.inputs) != 1:
            raise ModelError(
                f"the model has {len(self.graph.inputs)} inputs", "one input is supported"
            )
        index = self.graph.inputs[0]
        tensor = self.graph.tensors[index]
        if tensor.dtype in ("float32", "uint8"):
            readers = [n for n in self.graph.nodes if index in n.inputs]
            if len(readers) != 1 or readers[0].kind != "QUANTIZE":
                raise ModelError(
                    f"input {tensor.name} is {tensor.dtype} and not quantised at once", _INT8_HINT
                )
            index = readers[0].outputs[0]
            tensor = self.graph.tensors[index]
        if tensor.dtype != "int8":
            raise ModelError(f"input {tensor.name} is {tensor.dtype}, not int8", _INT8_HINT)
        self._new_value(index)
        return index

    def _reachable(self, outputs: list[int]) -> list[Step]:
        wanted = {self.values[o].root for o in outputs}
        kept: list[Step] = []
        for step in reversed(self.steps):
            if self.values[step.out].root in wanted:
                kept.append(step)
                wanted.update(self.values[i].root for i in step.reads)
        return kept[::-1]

    def _fold_padding(self, steps: list[Step]) -> list[Step]:
        """Let a convolution do the padding before it: outside of the image it reads zero points."""
        pads = {self.values[s.out].root: s for s in steps if s.kind == Op.PAD}
        readers = [self.values[i].root for s in steps for i in s.reads]
        promised = {self.values[i].root for i in self.graph.outputs}
        folded: set[int] = set()
        result = []
        for step in steps:
            pad = pads.get(self.values[step.in0].root)
            if pad is not None and step.kind in (Op.CONV_2D, Op.DEPTHWISE_CONV_2D):
                root = self.values[pad.out].root
                if readers.count(root) == 1 and root not in promised and self._pads(pad, step):
                    fields = dict(step.fields)
                    for side in ("pad_top", "pad_left"):
                        fields[side] += pad.fields[side]
                    step = replace(step, in0=pad.in0, fields=fields)
                    folded.add(pad.out)
            result.append(step)
        return [s for s in result if not (s.kind == Op.PAD and s.out in folded)]

    def _pads(self, pad: Step, step: Step) -> bool:
        """Whether `step` sees the padded image unchanged in shape and in its real zero."""
        source, padded, seen = (self.values[i] for i in (pad.in0, pad.out, step.in0))
        out, fields = self.values[step.out], step.fields
        same_shape = (padded.h, padded.w, padded.c) == (seen.h, seen.w, seen.c)
        for axis, side, cells, windows in (
            ("h", "pad_top", source.h, out.h),
            ("w", "pad_left", source.w, out.w),
        ):
            # Kernels rely on every window touching the image: the first and the last of them do.
            before = fields[side] + pad.fields[side]
            reach = (fields[f"kernel_{axis}"] - 1) * fields[f"dilation_{axis}"]
            if before > reach or (windows - 1) * fields[f"stride_{axis}"] >= cells + before:
                return False
        return same_shape and source.zero_point == padded.zero_point == seen.zero_point

    # ------------------------------------------------------------ values

    def _name(self, index: int) -> str:
        return self.graph.tensors[index].name or f"tensor {index}"

    def _fold_shape(self, tensor: Tensor) -> tuple[int, int, int]:
        shape = tensor.shape
        while len(shape) > 4 and shape[0] == 1:
            shape = shape[1:]
        if len(tensor.shape) > 4 and (len(shape) > 4 or shape[0] != 1):
            raise ModelError(
                f"tensor {tensor.name} has {len(tensor.shape)} axes {list(tensor.shape)}",
                "at most batch, height, width and channels run: do without 3-D layers and"
                " UpSampling",
            )
        if len(shape) > 2 and shape[0] != 1:
            raise ModelError(
                f"tensor {tensor.name} has shape {list(tensor.shape)}",
                "the engine runs one frame at a time: convert with a batch size of 1",
            )
        h, w, c = (1, 1, 1, *(shape[1:] if len(shape) > 2 else shape))[-3:]
        if not all(1 <= n <= _U16 for n in (h, w, c)):
            raise ModelError(
                f"tensor {tensor.name} has shape {list(tensor.shape)}", "sizes run from 1 to 65535"
            )
        return h, w, c

    def _new_value(self, index: int, alias_of: Value | None = None) -> Value:
        tensor = self.graph.tensors[index]
        if tensor.dtype != "int8":
            raise ModelError(f"tensor {tensor.name} is {tensor.dtype}, not int8", _INT8_HINT)
        if len(tensor.scales) != 1 or not tensor.scales[0] > 0:
            raise ModelError(f"tensor {tensor.name} is not quantised", _INT8_HINT)
        zero = int(tensor.zero_points[0])
        if not quant.INT8_MIN <= zero <= quant.INT8_MAX:
            raise ModelError(f"tensor {tensor.name} has zero point {zero}", "quantise it again")
        h, w, c = self._fold_shape(tensor)
        root = index if alias_of is None else alias_of.root
        value = Value(index, root, tensor.name, h, w, c, tensor.scales[0], zero)
        if alias_of is not None and alias_of.size != value.size:
            raise ModelError(f"tensor {tensor.name} is reshaped to another size", "convert again")
        self.values[index] = value
        return value

    def view(self, value: Value, h: int, w: int, c: int) -> Value:
        """The same bytes with another shape."""
        if (value.h, value.w, value.c) == (h, w, c):
            return value
        self.made_up -= 1
        other = replace(value, index=self.made_up, h=h, w=w, c=c)
        self.values[other.index] = other
        return other

    def source(self, node: Node, position: int = 0) -> Value:
        """The value that a node reads."""
        index = node.inputs[position] if position < len(node.inputs) else -1
        if index < 0:
            raise ModelError(f"{node.kind} lacks an input", "convert the model again")
        if index in self.batched:
            raise ModelError(
                f"{node.kind} between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND is not supported",
                "only one convolution may stand between them",
            )
        if index not in self.values:
            raise ModelError(
                f"{node.kind} reads {self._name(index)}, which is not computed from the input",
                _INT8_HINT,
            )
        return self.values[index]

    def target(self, node: Node) -> Value:
        """The value that a node computes."""
        if len(node.outputs) != 1:
            raise ModelError(f"{node.kind} has {len(node.outputs)} outputs", "one is supported")
        return self._new_value(node.outputs[0])

    def constant(self, node: Node, position: int) -> Tensor:
        """A constant input of a node."""
        index = node.inputs[position] if position < len(node.inputs) else -1
        if index < 0 or self.graph.tensors[index].data is None:
            raise ModelError(
                f"{node.kind} needs its input {position} to be constant", "convert the model again"
            )
        return self.graph.tensors[index]

    def integers(self, node: Node, position: int) -> list[int]:
        """A constant list of integers."""
        data = self.constant(node, position).data
        assert data is not None
        if data.dtype.kind not in "iu":
            raise ModelError(f"{node.kind} has a {data.dtype} parameter", "convert it again")
        return [int(v) for v in data.reshape(-1)]

    def emit(self, step: Step) -> None:
        """Append an operator."""
        self.steps.append(step)

    def activation(self, node: Node, out: Value) -> dict[str, int]:
        """The clamp of a fused activation."""
        code = int(node.options["FusedActivationFunction"])
        if code not in _ACTIVATIONS:
            raise ModelError(
                f"{node.kind} {out.name} has a fused activation that is not supported",
                "use none, ReLU or ReLU6",
            )
        return self.clamp(_ACTIVATIONS[code], out)

    def clamp(self, name: str, out: Value) -> dict[str, int]:
        """The clamp of an activation, which limits ``out``."""
        low, high = quant.activation_range(name, out.scale, out.zero_point)
        if name in ("RELU6", "RELU_N1_TO_1"):
            self.capped.add(out.index)
        return {"clamp_min": low, "clamp_max": high}

    # ------------------------------------------------------------ dispatch

    def _lower(self, node: Node) -> None:
        from drip.compile import ops

        if not node.inputs or not node.outputs:
            raise ModelError(f"{node.kind} lacks an input or an output", "convert the model again")
        if node.kind in _ALIASES:
            self._alias(node)
        elif node.kind == "SPACE_TO_BATCH_ND":
            self._space_to_batch(node)
        elif node.kind == "BATCH_TO_SPACE_ND":
            self._batch_to_space(node)
        elif node.inputs[0] in self.batched:
            self._inside_batch(node)
        elif node.kind in _BORDER and self._at_border(node):
            self._strip(node)
        else:
            handlers: dict[str, Callable[[_Lowering, Node], None]] = ops.HANDLERS
            if node.kind not in handlers:
                where = self._name(node.outputs[0])
                raise ModelError(
                    f"operator {node.kind} ({where}) is not supported",
                    _INSTEAD.get(node.kind, f"build the model from {', '.join(sorted(handlers))}"),
                )
            handlers[node.kind](self, node)

    def _alias(self, node: Node) -> None:
        index = node.inputs[0]
        if index in self.batched:
            self.batched[node.outputs[0]] = self.batched[index]
        else:
            self._new_value(node.outputs[0], self.source(node))

    def _at_border(self, node: Node) -> bool:
        return self.graph.tensors[node.outputs[0]].dtype in ("float32", "uint8")

    def _strip(self, node: Node) -> None:
        """Forget a conversion to float or uint8 in front of an output."""
        out = node.outputs[0]
        if any(out in other.inputs for other in self.graph.nodes):
            raise ModelError(
                f"{node.kind} makes {self._name(out)} {self.graph.tensors[out].dtype}"
                " inside the model",
                _INT8_HINT,
            )
        value = self.source(node)
        self.values[out] = replace(value, index=out, name=self._name(out))

    # ------------------------------------------------------------ dilation

    def _space_to_batch(self, node: Node) -> None:
        source = self.source(node)
        block, pads = self.integers(node, 1), self.integers(node, 2)
        if len(block) not in (1, 2) or len(pads) != 2 * len(block):
            raise ModelError("SPACE_TO_BATCH_ND of this rank is not supported", "use dilation")
        # One block size means a tensor [N, W, C]: its only spatial axis is the width.
        block2 = (1, block[0]) if len(block) == 1 else (block[0], block[1])
        pad2 = (0, pads[0]) if len(block) == 1 else (pads[0], pads[2])
        if min(block2) < 1 or min(pads) < 0:
            raise ModelError("SPACE_TO_BATCH_ND has a negative size", "convert the model again")
        self.batched[node.outputs[0]] = _Batched(source, block2, pad2)

    def _inside_batch(self, node: Node) -> None:
        pair = self.batched[node.inputs[0]]
        fits = node.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") and pair.node is None
        if fits:
            options = node.options
            names = ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor")
            unit = [options[name] for name in names]
            kernel = self.graph.tensors[node.inputs[1]].shape[1:3]
            padded = options["Padding"] == _SAME and tuple(kernel) != (1, 1)
            fits = unit == [1, 1, 1, 1] and not padded
        if not fits:
            raise ModelError(
                f"{node.kind} between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND is not supported",
                "only one convolution with stride 1 may stand between them",
            )
        pair.node = node
        self.batched[node.outputs[0]] = pair

    def _batch_to_space(self, node: Node) -> None:
        from drip.compile import ops

        pair = self.batched.get(node.inputs[0])
        block, crops = self.integers(node, 1), self.integers(node, 2)
        block2 = [1, *block] if len(block) == 1 else block
        crop2 = [0, crops[0]] if len(block) == 1 else [crops[0], crops[2]]
        if pair is None or pair.node is None or tuple(block2) != pair.block:
            raise ModelError(
                "BATCH_TO_SPACE_ND does not undo a SPACE_TO_BATCH_ND", "use dilation instead"
            )
        pad = (pair.pad[0] - crop2[0], pair.pad[1] - crop2[1])
        if min(pad) < 0:
            raise ModelError("BATCH_TO_SPACE_ND crops more than was padded", "use dilation instead")
        ops.convolution(
            self, pair.node, pair.source, self._new_value(node.outputs[0]), pair.block, pad
        )


Lowering = _Lowering
