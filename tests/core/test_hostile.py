"""A blob made by an enemy is refused, or runs inside its memory; most useful under ASan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drip._core import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Engine, Net, exact, fix_crc, folded_bias, head_net, random_quant

from drip import wire
from drip.compile.layouts import pack_pairs, pack_planes
from drip.wire import Err, Op, ScoreKind

ARENA_LIMIT = 1 << 16
STEP_LIMIT = 20000


def every_operator() -> bytes:
    """All operators and weight layouts in one small network."""
    rng = np.random.default_rng(0)
    net = Net()
    last = net.tensor(5, 4, 4, -3)

    def then(kind: Op, h: int, w: int, c: int, **fields: Any) -> None:
        nonlocal last
        out = net.tensor(h, w, c, 2)
        net.op(kind, last, out, **fields)
        last = out

    def numbers(*shape: int) -> Any:
        return rng.integers(-128, 128, shape).astype(np.int8)

    three = {"kernel_h": 3, "kernel_w": 3, "pad_top": 1, "pad_left": 1}
    scratch = {"scratch_offset": net.memory(4096), "scratch_bytes": 4096}
    for packed in (False, True):
        w = numbers(6, 3, 3, net.tensors[last].c)
        then(
            Op.CONV_2D, 5, 4, 6, weights=pack_pairs(w) if packed else w.tobytes(),
            bias=folded_bias(rng, w, 2), quant=random_quant(rng, 6),
            layout_id=wire.Layout.PAIRS if packed else 0, **three, **scratch,
        )  # fmt: skip
        w = numbers(3, 3, 6)
        then(
            Op.DEPTHWISE_CONV_2D, 5, 4, 6, weights=pack_planes(w, 4) if packed else w.tobytes(),
            bias=np.zeros(6), quant=random_quant(rng, 6),
            layout_id=wire.Layout.PLANES if packed else 0, **three, **scratch,
        )  # fmt: skip
    half = {"kernel_h": 2, "kernel_w": 2, "stride_h": 2, "stride_w": 2}
    scale = {"mult0": 1 << 30, "mult1": 1 << 30, "mult2": 1 << 30, "shift2": -18}
    then(Op.PAD, 6, 6, 6, pad_top=1, pad_left=1)
    then(Op.MAX_POOL_2D, 3, 3, 6, **half)
    then(Op.ADD, 3, 3, 6, flags=1, weights_offset=0, weights_bytes=6, **scale)
    then(Op.MUL, 3, 3, 6, in1=last, mult0=1 << 30, shift0=-4)
    then(Op.COPY, 3, 3, 8, weights_offset=1, param0=6, param1=8)
    then(Op.LOGISTIC, 3, 3, 8, mult0=1 << 30, shift0=22, param0=120)
    then(Op.REQUANTIZE, 3, 3, 8, mult0=1 << 30, shift0=1)
    then(Op.AVERAGE_POOL_2D, 2, 2, 8, **half)
    then(Op.MEAN, 1, 1, 8, mult0=1 << 30, shift0=-1)
    for packed in (False, True):
        w = numbers(5, 1, 1, net.tensors[last].c)
        then(
            Op.FULLY_CONNECTED, 1, 1, 5, weights=pack_pairs(w) if packed else w.tobytes(),
            bias=np.zeros(5), quant=random_quant(rng, 5),
            layout_id=wire.Layout.PAIRS if packed else 0,
        )  # fmt: skip
    then(Op.SOFTMAX, 1, 1, 5, mult0=1 << 30, shift0=23, param0=(-200) & 0xFFFFFFFF)
    return net.blob(last)


BLOBS = {
    "operators": every_operator(),
    "direct": head_net(np.random.default_rng(1), calibration=None)[1],
    "hidden": head_net(np.random.default_rng(1), hidden=3)[1],
}


def live(blob: bytes) -> list[int]:
    """Offsets that the device reads: all but padding; the header's digests count too."""
    count = wire.BlobHeader.unpack(blob).section_count
    table = list(range(wire.BlobHeader.SIZE + count * wire.BlobSection.SIZE))
    for n in range(count):
        entry = wire.BlobSection.unpack(blob, wire.BlobHeader.SIZE + n * wire.BlobSection.SIZE)
        if entry.kind in (wire.Section.TENSORS, wire.Section.OPS, wire.Section.INPUT):
            table += 4 * list(range(entry.offset, entry.offset + entry.size))
        else:
            table += list(range(entry.offset, entry.offset + entry.size))
    return table


LIVE = {name: live(blob) for name, blob in BLOBS.items()}


def survive(blob: bytes) -> int:
    """Use a blob as a device would; returns what opening said."""
    engine = Engine(blob, ARENA_LIMIT)
    if engine.code != 0:
        assert engine.code in set(Err)
        return engine.code
    assert lib.drip_nn_begin(engine.nn) == 0
    steps = 0
    while lib.drip_nn_step(engine.nn, 1000) > 0 and steps < STEP_LIMIT:
        steps += 1
    if steps == STEP_LIMIT:  # a slow network is no crime
        return 0
    for kind in ScoreKind:
        score: Any = ffi.new("drip_score_t *")
        if lib.drip_score_open(score, engine.nn, kind, 1) == 0:
            scratch = exact(lib.drip_score_scratch_bytes(score))
            result = ffi.new("drip_score_result_t *")
            assert lib.drip_score_compute(score, scratch, result) == 0
            assert result.class_1 < score.classes
            assert result.class_2 < score.classes
    desc = engine.nn.input.desc
    raw = exact(desc.frame_bytes)
    frame: Any = ffi.new("drip_frame_t *")
    frame.data, frame.size = raw, desc.frame_bytes
    view = ffi.addressof(engine.nn, "input")
    target = lib.drip_nn_input(engine.nn)
    assert lib.drip_frame_quantise(view, frame, 0, engine.nn.input.elements, target) == 0
    return 0


@pytest.mark.parametrize("name", BLOBS)
def test_the_blobs_themselves_run(name: str) -> None:
    assert survive(BLOBS[name]) == 0


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(BLOBS)), st.data())
def test_changed_bytes_with_a_valid_checksum_do_no_harm(name: str, data: st.DataObject) -> None:
    blob = bytearray(BLOBS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(LIVE[name]))
        blob[at] = data.draw(st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255)))
    survive(fix_crc(blob))


@pytest.mark.parametrize("name", BLOBS)
def test_every_single_flipped_bit_is_noticed(name: str) -> None:
    blob = BLOBS[name]
    for bit in range(0, 8 * len(blob), 7):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        assert Engine(bytes(flipped)).code < 0, bit


@pytest.mark.parametrize("name", BLOBS)
def test_a_blob_cut_anywhere_is_refused(name: str) -> None:
    blob = BLOBS[name]
    for size in range(0, len(blob), 37):
        memory = exact(size)
        ffi.memmove(memory, blob[:size], size)
        assert lib.drip_nn_open(ffi.new("drip_nn_t *"), memory, size) < 0


def test_geometry_is_checked_or_harmless_for_every_value_that_matters() -> None:
    blob = BLOBS["operators"]
    table = [
        wire.BlobSection.unpack(blob, 128 + 16 * n)
        for n in range(wire.BlobHeader.unpack(blob).section_count)
    ]
    for entry in table:
        if entry.kind not in (wire.Section.OPS, wire.Section.TENSORS):
            continue
        for at in range(entry.offset, entry.offset + entry.size, 2):
            for value in (b"\0\0", b"\1\0", b"\xff\xff", b"\0\x80", b"\xff\x7f"):
                survive(fix_crc(bytearray(blob[:at] + value + blob[at + 2 :])))
