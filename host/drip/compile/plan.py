"""Lay activations out in one arena so that those alive at the same time do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from drip.compile.packing import Overlap, overlap, small_scratch
from drip.compile.program import NO_TENSOR, Program, Step
from drip.wire import Op

ALIGN = 16
# Scratch may make the arena this much larger than the tensors need.
_SCRATCH_MARGIN = 1.05
_IN_PLACE = (Op.ADD, Op.MUL, Op.REQUANTIZE)


@dataclass(frozen=True)
class Plan:
    """Where each value lies.

    Attributes:
        offsets: Bytes from the arena's base, by value index (aliases included).
        arena_bytes: Size of the arena, a multiple of 16.
        live_bytes: Largest sum of values that are alive at the same time: no plan can be smaller.
        steps: The program's steps, with the inputs of some ADD and MUL exchanged.
    """

    offsets: dict[int, int]
    arena_bytes: int
    live_bytes: int
    steps: tuple[Step, ...]


@dataclass
class _Buffer:
    size: int
    first: int
    last: int
    offset: int = -1
    # By id of the buffer that dies where this one is born: how the two may overlap.
    over: dict[int, Overlap] = field(default_factory=dict)

    def fits(self, offset: int, other: _Buffer) -> bool:
        """Whether this buffer may lie at an offset beside another one that is placed."""
        if self.last < other.first or other.last < self.first:
            return True
        if offset + self.size <= other.offset or other.offset + other.size <= offset:
            return True
        if id(other) in self.over:
            return self.over[id(other)].allows(other.offset - offset)
        if id(self) in other.over:
            return other.over[id(self)].allows(offset - other.offset)
        return False

    def candidates(self, other: _Buffer) -> tuple[int, ...]:
        """Offsets at which this buffer just fits beside another one."""
        found = [_align(other.offset + other.size), other.offset - _align(self.size)]
        if id(other) in self.over:
            rule = self.over[id(other)]
            found.append(other.offset - _align_to(rule.lead, math.lcm(ALIGN, rule.multiple)))
        if id(self) in other.over:
            rule = other.over[id(self)]
            found.append(other.offset + _align_to(rule.lead, math.lcm(ALIGN, rule.multiple)))
        return tuple(found)


_Order = Callable[[_Buffer], tuple[int, ...]]


def plan_arena(program: Program, keep: tuple[int, ...]) -> Plan:
    """Plan the arena.

    The input may be overwritten as soon as it has been read for the last time; a result may take
    the place of an operand of the same size that nothing reads later.

    Args:
        program: A lowered model.
        keep: Values that stay readable after the last operator.
    """
    values = program.values
    steps = list(program.steps)
    end = len(steps)
    last = {values[i].root: n for n, step in enumerate(steps) for i in step.reads}
    last |= {values[i].root: end for i in keep}
    buffers: dict[int, _Buffer] = {}
    owner: dict[int, int] = {}

    def claim(root: int, size: int, first: int) -> None:
        owner[root] = root
        buffers[root] = _Buffer(size, first, max(last.get(root, first), first))

    claim(values[program.input].root, values[program.input].size, -1)
    for n, step in enumerate(steps):
        out = values[step.out]
        if step.signs != NO_TENSOR:
            claim(step.signs, values[step.signs].size, n)
        if out.root in owner:
            continue
        host = None
        if step.kind in _IN_PLACE:
            step, host = _in_place(step, n, program, last)
            steps[n] = step
        if host is None:
            claim(out.root, out.size, n)
            _share(step, n, program, buffers, owner)
        else:
            owner[out.root] = owner[host]
            buffer = buffers[owner[host]]
            buffer.last = max(buffer.last, last.get(out.root, n))
    scratch = {
        n: _Buffer(step.fields["scratch_bytes"], n, n)
        for n, step in enumerate(steps)
        if step.fields.get("scratch_bytes")
    }
    live = _live(list(buffers.values()), end)
    arena = _place_with_scratch(list(buffers.values()), scratch, steps, live)
    for n, buffer in scratch.items():
        fields = {"scratch_bytes": buffer.size, "scratch_offset": buffer.offset}
        steps[n] = replace(steps[n], fields=steps[n].fields | fields)
    offsets = {
        index: buffers[owner[value.root]].offset
        for index, value in values.items()
        if value.root in owner
    }
    return Plan(offsets, arena, live, tuple(steps))


def _share(
    step: Step, n: int, program: Program, buffers: dict[int, _Buffer], owner: dict[int, int]
) -> None:
    """Let a result overlap the operand that it is made of, when nothing reads that later."""
    rule = overlap(program, step)
    source, out = program.values[step.in0], program.values[step.out]
    dying = buffers[owner[source.root]]
    if rule is not None and dying.last == n and dying.size == source.size:
        buffers[out.root].over[id(dying)] = rule


def _in_place(
    step: Step, n: int, program: Program, last: dict[int, int]
) -> tuple[Step, int | None]:
    """The operand whose place the result can take, made the first one."""
    values = program.values
    out = values[step.out]

    def free(index: int) -> bool:
        value = values[index]
        return value.size == out.size and last.get(value.root, n) == n

    if free(step.in0):
        return step, values[step.in0].root
    if step.in1 != NO_TENSOR and free(step.in1):
        fields = dict(step.fields)
        for a, b in (("in0_zero", "in1_zero"), ("mult0", "mult1"), ("shift0", "shift1")):
            if step.kind == Op.ADD or a == "in0_zero":
                fields[a], fields[b] = fields[b], fields[a]
        exchanged = Step(step.kind, step.in1, step.in0, step.out, fields, step.weights)
        return exchanged, values[step.in1].root
    return step, None


def _live(buffers: list[_Buffer], end: int) -> int:
    return max(sum(b.size for b in buffers if b.first <= n <= b.last) for n in range(-1, end + 1))


def _place_with_scratch(
    buffers: list[_Buffer], scratch: dict[int, _Buffer], steps: list[Step], live: int
) -> int:
    """Assign offsets; slower kernels where scratch for the fast one would make the arena larger."""
    everything = [*buffers, *scratch.values()]
    limit = int(live * _SCRATCH_MARGIN)
    arena = _place(everything)
    if arena <= limit:
        return arena
    choices = {n: small_scratch(steps[n]) for n in scratch}
    fast = {n: scratch[n].size for n, size in choices.items() if size < scratch[n].size}
    for n in fast:
        scratch[n].size = choices[n]
    limit = max(limit, _place(everything))
    for n in sorted(fast, key=lambda n: -steps[n].fields["macs"]):
        scratch[n].size = fast[n]
        if _place(everything) > limit:
            scratch[n].size = choices[n]
    return _place(everything)


def _place(buffers: list[_Buffer]) -> int:
    """Assign offsets, first fit in several orders; the best one stays. Returns the arena's size."""
    orders: tuple[_Order, ...] = (
        lambda b: (-b.size, b.first),
        lambda b: (b.first, -b.size),
        lambda b: (-(b.last - b.first), -b.size),
        lambda b: (-b.size * (b.last - b.first + 1), b.first),
        lambda b: (-b.last, -b.size),
        lambda b: (-b.first, -b.size),
        lambda b: (b.last, b.first),
    )
    best: tuple[int, list[int]] | None = None
    # What is alive during one operator only may fill the gaps that the others leave.
    orders += tuple(_short_last(order) for order in orders)
    for order in orders:
        for both_ways in (False, True):
            total = _first_fit(sorted(buffers, key=order), both_ways)
            if best is None or total < best[0]:
                best = total, [b.offset for b in buffers]
    assert best is not None
    for buffer, offset in zip(buffers, best[1], strict=True):
        buffer.offset = offset
    return best[0]


def _short_last(order: _Order) -> _Order:
    return lambda b: (int(b.first == b.last), *order(b))


def _first_fit(order: list[_Buffer], both_ways: bool) -> int:
    """Put every buffer as low as it fits, or where the memory in use grows least, up or down."""
    placed: list[_Buffer] = []
    low = high = 0
    for buffer in order:
        options = {0, *(c for other in placed for c in buffer.candidates(other))}
        fitting = (
            o
            for o in options
            if (both_ways or o >= 0) and all(buffer.fits(o, other) for other in placed)
        )
        if both_ways:
            reach = [(max(high, o + buffer.size) - min(low, o), abs(o), o) for o in fitting]
            buffer.offset = min(reach)[-1]
        else:
            buffer.offset = min(fitting)
        low = min(low, buffer.offset)
        high = max(high, buffer.offset + buffer.size)
        placed.append(buffer)
    for buffer in placed:
        buffer.offset -= low
    return _align(high - low)


def _align_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _align(value: int) -> int:
    return -(-value // ALIGN) * ALIGN
