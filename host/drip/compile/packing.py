"""Choose the weight layout of every operator and say where memory may be shared."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from drip.compile import layouts
from drip.compile.program import Program, Step
from drip.wire import Layout, Op, OpFlag

_PACKED = (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.FULLY_CONNECTED)
_IN_ROWS = (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.AVERAGE_POOL_2D, Op.MAX_POOL_2D)


def pack_program(program: Program) -> Program:
    """The same program with weights laid out for the fastest kernel that an operator has."""
    steps = tuple(_pack(program, s) if s.kind in _PACKED else s for s in program.steps)
    return dataclasses.replace(program, steps=steps)


def _pack(program: Program, step: Step) -> Step:
    assert step.weights is not None
    source, out = program.values[step.in0], program.values[step.out]
    fields = dict(step.fields)
    shifts = np.array([shift for _, shift in step.quant], np.int32)
    if layouts.fast_requant(fields["clamp_min"], fields["clamp_max"], shifts):
        fields["flags"] = fields.get("flags", 0) | OpFlag.FAST_REQUANT
    weights = step.weights
    dilated = max(fields.get("dilation_h", 1), fields.get("dilation_w", 1)) > 1
    if step.kind == Op.FULLY_CONNECTED:
        fields["layout_id"] = Layout.PAIRS
        content = layouts.pack_pairs(weights.reshape(len(weights), 1, 1, -1))
    elif dilated or (step.kind == Op.DEPTHWISE_CONV_2D and fields["depth_multiplier"] != 1):
        return dataclasses.replace(step, fields=fields)
    elif step.kind == Op.CONV_2D:
        _, kernel_h, kernel_w, in_c = weights.shape
        fields["layout_id"] = Layout.PAIRS
        fields["scratch_bytes"] = layouts.pairs_scratch_bytes(kernel_h, kernel_w, in_c)
        content = layouts.pack_pairs(weights)
    else:
        kernel = (fields["kernel_h"], fields["kernel_w"])
        stride = (fields["stride_h"], fields["stride_w"])
        fields["layout_id"] = Layout.PLANES
        fields["scratch_bytes"] = layouts.planes_scratch_bytes(
            (out.h, out.w), kernel, stride, source.w
        )
        content = layouts.pack_planes(weights.reshape(*kernel, out.c), source.w)
    return dataclasses.replace(step, fields=fields, weights=np.frombuffer(content, np.int8))


def small_scratch(step: Step) -> int:
    """The least scratch with which an operator still has a kernel for its layout."""
    fields = step.fields
    if step.kind != Op.CONV_2D or fields.get("layout_id") != Layout.PAIRS:
        return fields["scratch_bytes"]
    assert step.weights is not None
    # Layout PAIRS holds an even number of channels.
    taps = step.weights.size // (len(step.quant) + len(step.quant) % 2)
    return 2 * taps


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How an output may share memory with the dying input of its operator.

    Attributes:
        lead: Least distance ``input offset - output offset``, bytes.
        multiple: The distance must be a multiple of this, bytes.
    """

    lead: int
    multiple: int

    def allows(self, distance: int) -> bool:
        """Whether the operator works at this distance."""
        return distance >= self.lead and distance % self.multiple == 0


def overlap(program: Program, step: Step) -> Overlap | None:
    """How far a step's input and output may overlap; None = not at all."""
    source, out = program.values[step.in0], program.values[step.out]
    if (
        step.kind not in _IN_ROWS
        or max(step.fields.get("dilation_h", 1), step.fields.get("dilation_w", 1)) > 1
    ):
        return None
    depthwise = step.kind == Op.DEPTHWISE_CONV_2D
    if depthwise and step.fields["depth_multiplier"] != 1:
        return None
    lead = layouts.overlap_lead(
        (source.h, source.w, source.c),
        (out.h, out.w, out.c),
        (step.fields["stride_h"], step.fields["stride_w"]),
        (step.fields["pad_top"], step.fields["pad_left"]),
    )
    multiple = math.lcm(out.c, 4) if depthwise else 4
    return Overlap(lead, multiple)
