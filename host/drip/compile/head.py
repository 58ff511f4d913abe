"""Find how the last spatial tensor becomes logits, and make the Grad-CAM tables of that head.

Grad-CAM weighs channel k for class c by the mean over positions of dlogit_c/dA_k (Selvaraju et al.,
arXiv:1610.02391). For a linear head that is a constant; behind hidden ReLU layers it is a sum over
the paths whose units are active. What a path contributes is known at compile time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drip.compile.program import Program, Step, Value
from drip.errors import ModelError
from drip.wire import MAX_CAM_UPPERS, CamHead, Op

_HINT = (
    f"end the model with convolution, pooling or Flatten, up to {MAX_CAM_UPPERS + 1} hidden ReLU"
    " Dense, Dense; --no-cam compiles for inference only"
)
_LIMIT = (1 << 31) - 1
# The difference of two channel weights must still be 16 bits.
_MAX_WEIGHT = 16383
# What an upper hidden layer hands down: more bits here leave fewer for the table.
_MAX_HANDED = 8191
_SQUASH = (Op.SOFTMAX, Op.LOGISTIC)
_LAYERS = (Op.FULLY_CONNECTED, Op.CONV_2D, Op.DEPTHWISE_CONV_2D)
_WINDOW = (
    "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "pad_top",
    "pad_left",
)  # fmt: skip
_POOLS = (Op.MEAN, Op.AVERAGE_POOL_2D, Op.MAX_POOL_2D)


@dataclass(frozen=True)
class Upper:
    """A hidden ReLU layer above the one next to the features.

    Attributes:
        active: Index of a value that is above its zero point where a unit is active.
        matrix: float64 ``[units, units of the next lower hidden layer]``.
    """

    active: int
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """A Grad-CAM head.

    Attributes:
        kind: DIRECT or HIDDEN.
        features: Index of the last spatial value.
        hidden: Index of a value that is above its zero point where a unit of the lowest hidden
            layer is active: its output, or better the signs of its sums; None for DIRECT.
        direct: float64 ``[classes, channels]`` gradients, or for HIDDEN ``[hidden, channels]``.
        dense: float64 ``[classes, units of the topmost hidden layer]``, empty for DIRECT.
        uppers: Further hidden layers, topmost first.
    """

    kind: CamHead
    features: int
    hidden: int | None
    direct: NDArray[np.float64]
    dense: NDArray[np.float64]
    uppers: tuple[Upper, ...] = ()

    @property
    def masks(self) -> tuple[int, ...]:
        """Indices of the values that say which hidden units are active."""
        lowest = () if self.hidden is None else (self.hidden,)
        return (*lowest, *(upper.active for upper in self.uppers))


@dataclass(frozen=True)
class CamTables:
    """Integer tables of a head, in the layout of the blob's CAM section.

    Attributes:
        table: int16 ``[classes or hidden, channels]``.
        dense: int8 ``[classes, units of the topmost hidden layer]``, empty for DIRECT.
        shift: Right shift of a channel weight (HIDDEN).
        weight_scale: Real gradient of one unit of a channel weight.
        uppers: Right shift and int8 matrix of each upper hidden layer, topmost first.
    """

    table: NDArray[np.int16]
    dense: NDArray[np.int8]
    shift: int
    weight_scale: float
    uppers: tuple[tuple[int, NDArray[np.int8]], ...] = ()


def find_logits(program: Program) -> int:
    """The value with the logits: before a SOFTMAX or LOGISTIC at the end, if there is one."""
    candidates: list[tuple[bool, bool, int, int]] = []
    for output in program.outputs:
        index = output
        while True:
            step = program.producer(index)
            if step is None or step.kind not in _SQUASH:
                break
            index = step.in0
        value = program.values[index]
        named = "logits" in value.name.lower()
        vector = _layer(program, step) is not None or (step is not None and step.kind in _POOLS)
        candidates.append((not named, not vector, len(candidates), index))
    return min(candidates)[-1]


def find_head(program: Program, logits: int) -> Head:
    """Walk back from the logits to the last spatial tensor.

    Raises:
        ModelError: The head is none of those that have a closed form; names the tensor.
    """
    last = program.producer(logits)
    if last is not None and last.kind in _POOLS and program.values[last.out].positions == 1:
        return _pooled_logits(program, last)
    layer = _layer(program, last)
    if layer is None:
        raise _no_head(program.values[logits], "the logits do not come from a dense layer")
    # From the logits down: a matrix per layer, and the hidden ReLU layers between them.
    matrices = [layer.matrix]
    hidden: list[int] = []
    while True:
        before = _layer(program, layer.made_by)
        if layer.spatial or before is None:
            break
        if before.capped:
            seen = program.values[before.out]
            raise _no_head(seen, "a unit at the upper limit of ReLU6 has no gradient: use ReLU")
        if before.rectified:
            hidden.append(before.out)
            matrices.append(before.matrix)
        else:
            # Two linear layers are one.
            matrices[-1] = matrices[-1] @ before.matrix
        layer = before
    if len(hidden) > MAX_CAM_UPPERS + 1:
        seen = program.values[hidden[0]]
        raise _no_head(seen, f"{len(hidden)} hidden dense layers come before the logits")
    features = _features(program, layer)
    table = _per_channel(matrices[-1], features)
    if not hidden:
        return Head(CamHead.DIRECT, features.index, None, table, np.zeros((len(table), 0)))
    uppers = tuple(Upper(*pair) for pair in zip(hidden[:-1], matrices[1:-1], strict=True))
    return Head(CamHead.HIDDEN, features.index, hidden[-1], table, matrices[0], uppers)


def _pooled_logits(program: Program, last: Step) -> Head:
    """A map per class, pooled to logits, as all-convolutional nets end."""
    features = program.values[last.in0]
    if features.positions == 1:
        raise _no_head(features, "it has one position only")
    matrix = np.eye(features.c) / features.positions
    return Head(CamHead.DIRECT, features.index, None, matrix, np.zeros((features.c, 0)))


def note_signs(program: Program, head: Head) -> tuple[Program, Head]:
    """Let the hidden layers note which units are active before they round their values.

    A unit below half a step of the int8 output reads as 0, but its gradient is not 0. A layer that
    is a convolution of its whole input becomes the dense layer that it equals; any other one than
    these two stays, and with it the judgement by its output.

    Args:
        program: A lowered model, weights not packed.
        head: What :func:`find_head` says about it.
    """
    uppers = []
    for upper in head.uppers:
        program, active = _note_signs(program, upper.active)
        uppers.append(replace(upper, active=active))
    if head.hidden is not None:
        program, active = _note_signs(program, head.hidden)
        head = replace(head, hidden=active, uppers=tuple(uppers))
    return program, head


def _note_signs(program: Program, hidden: int) -> tuple[Program, int]:
    made = program.producer(hidden)
    if made is not None and made.kind == Op.REQUANTIZE:
        made = program.producer(made.in0)
    dense = None if made is None else _as_dense(program, made)
    if dense is None:
        return program, hidden
    out = program.values[dense.out]
    index = min(0, *program.values) - 1
    signs = Value(index, index, f"{out.name}/active", 1, 1, out.c, np.float32(1), 0)
    steps = tuple(replace(dense, signs=index) if s is made else s for s in program.steps)
    values = program.values | {index: signs}
    return replace(program, values=values, steps=steps), index


def _as_dense(program: Program, step: Step) -> Step | None:
    if step.kind == Op.FULLY_CONNECTED:
        return step
    source, fields = program.values[step.in0], step.fields
    if step.kind != Op.CONV_2D or step.weights is None:
        return None
    kernel = fields["kernel_h"], fields["kernel_w"]
    around = fields["pad_top"], fields["pad_left"], fields["dilation_h"] - 1
    if kernel != (source.h, source.w) or any((*around, fields["dilation_w"] - 1)):
        return None
    kept = {name: value for name, value in fields.items() if name not in _WINDOW}
    weights = step.weights.reshape(len(step.weights), -1)
    return replace(step, kind=Op.FULLY_CONNECTED, fields=kept, weights=weights)


def make_tables(head: Head, positions: int) -> CamTables:
    """Quantise a head so that no input can overflow 32 bits.

    Args:
        head: The head.
        positions: Spatial positions of the features.
    """
    if head.kind == CamHead.DIRECT:
        return _direct_tables(head.direct, positions)
    if head.uppers:
        return _stacked_tables(head, positions)
    return _hidden_tables(head.direct, head.dense, positions)


def _direct_tables(alpha: NDArray[np.float64], positions: int) -> CamTables:
    scale = float(np.abs(alpha).max()) / _MAX_WEIGHT or 1.0
    while True:
        table = np.rint(alpha / scale).astype(np.int64)
        reach = np.abs(table[:, None, :] - np.vstack([table, 0 * table[:1]])[None]).sum(axis=2)
        excess = 255 * positions * int(reach.max()) / _LIMIT
        if excess < 1:
            return CamTables(table.astype(np.int16), np.zeros((len(alpha), 0), np.int8), 0, scale)
        scale *= max(excess, 1.001)


def _hidden_tables(
    table: NDArray[np.float64], dense: NDArray[np.float64], positions: int
) -> CamTables:
    # A factor per hidden unit moves freely from one matrix to the other: fill the 8 bits.
    factors = np.abs(dense).max(axis=0) / 127
    small = np.rint(dense / np.where(factors > 0, factors, 1)).astype(np.int64)
    wide = table * factors[:, None]
    scale = float(np.abs(wide).max()) / 32767 or 1.0
    while True:
        large = np.rint(wide / scale).astype(np.int64)
        # Of two classes and any mask: at most the sum of all absolute contributions.
        reach = 2 * np.abs(small) @ np.abs(large)
        if int(reach.max()) <= _LIMIT:
            break
        scale *= 2
    shift = 0
    while not _fits(small, large, shift, positions):
        shift += 1
    return CamTables(
        large.astype(np.int16), small.astype(np.int8), shift, scale * float(1 << shift)
    )


def _eight_bits(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Quantise to int8 by columns; the factors move on to the rows of the next matrix."""
    factors = np.abs(matrix).max(axis=0) / 127
    return np.rint(matrix / np.where(factors > 0, factors, 1)).astype(np.int64), factors


def _stacked_tables(head: Head, positions: int) -> CamTables:
    """As the core judges heads with uppers: by magnitudes, whatever the masks."""
    dense, factors = _eight_bits(head.dense)
    bound, scale = 128, 1.0
    uppers: list[tuple[int, NDArray[np.int8]]] = []
    for upper in head.uppers:
        small, following = _eight_bits(upper.matrix * factors[:, None])
        most = int(np.abs(small).sum(axis=0).max()) * bound
        shift = 0
        while (most >> shift) + 1 > _MAX_HANDED:
            shift += 1
        bound, scale, factors = (most >> shift) + 1, scale * float(1 << shift), following
        uppers.append((shift, small.astype(np.int8)))
    wide = head.direct * factors[:, None]
    step = float(np.abs(wide).max()) / 32767 or 1.0
    while True:
        table = np.rint(wide / step).astype(np.int64)
        sums = bound * np.abs(table).sum(axis=0)
        if int(sums.max()) <= _LIMIT:
            break
        step *= 2
    shift = 0
    while True:
        weights = 2 * ((sums >> shift) + 1)
        if int(weights.max()) <= 32767 and 255 * positions * int(weights.sum()) <= _LIMIT:
            break
        shift += 1
    weight_scale = scale * step * float(1 << shift)
    return CamTables(
        table.astype(np.int16), dense.astype(np.int8), shift, weight_scale, tuple(uppers)
    )


def _fits(dense: NDArray[np.int64], table: NDArray[np.int64], shift: int, positions: int) -> bool:
    """Whether no activation mask and no pair of classes can overflow, by the core's own bound."""
    with_none = np.vstack([dense, 0 * dense[:1]])
    for row in dense:
        difference = row - with_none
        up = np.maximum(difference, 0) @ np.maximum(table, 0)
        up += np.maximum(-difference, 0) @ np.maximum(-table, 0)
        down = np.maximum(difference, 0) @ np.maximum(-table, 0)
        down += np.maximum(-difference, 0) @ np.maximum(table, 0)
        # Each of the two arithmetic shifts rounds down by less than one.
        weight = (np.maximum(up, down) >> shift) + 1
        if int(np.maximum(up, down).max()) > _LIMIT or int(weight.max()) > _MAX_WEIGHT:
            return False
        if 255 * positions * int(weight.sum(axis=1).max()) > _LIMIT:
            return False
    return True


def pair_units(table: NDArray[np.int16]) -> NDArray[np.int16]:
    """The table of a HIDDEN head as the blob has it: ``[ceil(hidden / 2), channels, 2]``.

    Args:
        table: ``[hidden, channels]``; zeros stand for the second unit that an odd one lacks.
    """
    padded = np.pad(table, ((0, len(table) % 2), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, 2, table.shape[1]).swapaxes(1, 2))


@dataclass(frozen=True)
class _Layer:
    """A dense layer, or what computes one: a convolution down to one position.

    Attributes:
        step: The layer itself.
        out: Index of its output, after a rescaling or ReLU that is an operator of its own.
        matrix: float64 ``[outputs, inputs]``, real units.
        rectified: Whether nothing below real zero leaves it.
        capped: Whether it has an upper limit as well, as ReLU6 has.
        spatial: Whether it reads several positions itself.
        made_by: The step that makes what it reads; None for the model's input.
    """

    step: Step
    out: int
    matrix: NDArray[np.float64]
    rectified: bool
    capped: bool
    spatial: bool
    made_by: Step | None


def _layer(program: Program, outer: Step | None) -> _Layer | None:
    if outer is None or program.values[outer.out].positions > 1:
        return None
    inner = program.producer(outer.in0) if outer.kind == Op.REQUANTIZE else None
    step = inner or outer
    if step.kind not in _LAYERS or program.values[step.out].positions > 1:
        return None
    made_by = program.producer(step.in0)
    spatial = step.kind != Op.FULLY_CONNECTED and program.values[step.in0].positions > 1
    zero = any(s.fields["clamp_min"] == program.values[s.out].zero_point for s in (outer, step))
    capped = not program.capped.isdisjoint((step.out, outer.out))
    return _Layer(step, outer.out, _matrix(program, step), zero, capped, spatial, made_by)


def _matrix(program: Program, step: Step) -> NDArray[np.float64]:
    """A layer with one output position as a matrix over all of its inputs."""
    assert step.weights is not None
    scales = step.weight_scales[:, None]
    if step.kind == Op.FULLY_CONNECTED:
        return np.asarray(step.weights * scales)
    source, out = program.values[step.in0], program.values[step.out]
    matrix = np.zeros((out.c, source.h, source.w, source.c))
    fields = step.fields
    for ky in range(fields["kernel_h"]):
        for kx in range(fields["kernel_w"]):
            y = ky * fields["dilation_h"] - fields["pad_top"]
            x = kx * fields["dilation_w"] - fields["pad_left"]
            if not (0 <= y < source.h and 0 <= x < source.w):
                continue
            if step.kind == Op.CONV_2D:
                matrix[:, y, x, :] = step.weights[:, ky, kx, :]
            else:
                channels = np.arange(out.c)
                matrix[channels, y, x, channels // fields["depth_multiplier"]] = step.weights[
                    0, ky, kx, :
                ]
    return np.asarray(matrix.reshape(out.c, -1) * scales)


def _features(program: Program, first: _Layer) -> Value:
    seen = program.values[first.step.in0]
    joined = program.joined(seen.index)
    if joined is None and first.made_by is None:
        raise _no_head(seen, "a dense layer reads the model's input: there is no feature map")
    if joined is None and first.made_by is not None:
        made = program.values[first.made_by.out]
        if first.made_by.kind in _POOLS and made.positions == 1:
            return program.values[first.made_by.in0]
    else:
        made = program.values[joined or seen.index]
    for value in (made, seen):
        if value.positions > 1:
            return value
    raise _no_head(made, "it has no spatial axes and does not come from pooling")


def _per_channel(matrix: NDArray[np.float64], features: Value) -> NDArray[np.float64]:
    """Mean gradient over the positions of a feature map, for each unit and channel."""
    groups = matrix.shape[1] // features.c
    by_group = matrix.reshape(len(matrix), groups, features.c).sum(axis=1)
    return np.asarray(by_group / features.positions)


def _no_head(value: Value, reason: str) -> ModelError:
    # A converter that fuses layers strings their names together.
    name = value.name.split(";")[0] or f"number {value.index}"
    return ModelError(f"no Grad-CAM head at tensor {name}: {reason}", _HINT)
