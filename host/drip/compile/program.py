"""What lowering makes of a graph: values in an arena and a list of engine operators."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drip.wire import Op

NO_TENSOR = 65535


@dataclass(frozen=True)
class Value:
    """An int8 activation, folded to height, width, channels (batch 1).

    Attributes:
        index: Tensor in the ``.tflite``; negative for one that lowering made up.
        root: ``index`` of the value whose bytes this is; its own for one that is computed.
        name: As in the ``.tflite``.
        scale: Real value of one step.
        zero_point: int8 value of real 0.
    """

    index: int
    root: int
    name: str
    h: int
    w: int
    c: int
    scale: np.float32
    zero_point: int

    @property
    def size(self) -> int:
        """Elements, which is bytes."""
        return self.h * self.w * self.c

    @property
    def positions(self) -> int:
        """Spatial positions."""
        return self.h * self.w


@dataclass(frozen=True)
class Step:
    """One operator of the engine; field meanings are those of ``wire.BlobOp``.

    Attributes:
        kind: Operator.
        in0: Index of its first input value.
        in1: Index of its second input value, or ``NO_TENSOR``.
        out: Index of its output value.
        fields: More fields of ``wire.BlobOp`` by name.
        weights: int8, or None.
        bias: int32 per output channel with the input's zero point folded in, or None.
        quant: Multiplier and left shift per output channel.
        weight_scales: float64 per output channel, real value of one weight step.
        signs: Index of a second result of FULLY_CONNECTED: 1 where the sum before requantisation
            is above zero, else 0. ``NO_TENSOR`` = none.
    """

    kind: Op
    in0: int
    in1: int
    out: int
    fields: dict[str, int]
    weights: NDArray[np.int8] | None = None
    bias: NDArray[np.int32] | None = None
    quant: tuple[tuple[int, int], ...] = ()
    weight_scales: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    signs: int = NO_TENSOR

    @property
    def reads(self) -> tuple[int, ...]:
        """Values it reads."""
        return (self.in0,) if self.in1 == NO_TENSOR else (self.in0, self.in1)


@dataclass(frozen=True)
class Program:
    """A lowered model.

    Attributes:
        values: By index.
        steps: In execution order.
        input: Value that frames are quantised into.
        outputs: Values that the model promises, in the ``.tflite``'s order.
        capped: Values that an activation such as ReLU6 limits from above.
    """

    values: dict[int, Value]
    steps: tuple[Step, ...]
    input: int
    outputs: tuple[int, ...]
    capped: frozenset[int] = frozenset()

    def producer(self, value: int) -> Step | None:
        """The step that computes a value or what it aliases; None for the input."""
        root = self.values[value].root
        for step in self.steps:
            if self.values[step.out].root == root and step.kind != Op.COPY:
                return step
        return None

    def joined(self, value: int) -> int | None:
        """The value that a CONCATENATION put together, if this is one or an alias of one."""
        root = self.values[value].root
        pieces = (s.out for s in self.steps if s.kind == Op.COPY)
        return next((out for out in pieces if self.values[out].root == root), None)
