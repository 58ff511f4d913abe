"""What compilation makes of a .tflite: arithmetic, arena plan, blob, training record."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_builder as tb
from hypothesis import given
from hypothesis import strategies as st
from small_model import small

from drip import wire
from drip.compile import InputSpec, compile_model, quant
from drip.compile.blob import pack_blob, unpack_blob
from drip.compile.graph import read_graph
from drip.compile.lower import lower
from drip.compile.plan import plan_arena
from drip.data import InputScaling, sample_hashes
from drip.errors import ModelError
from drip.inspect import inspect_blob
from drip.wire import CamHead, Section

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.core import Model

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.tflite"


# ---------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("real", "expected"),
    [(0.0, (0, 0)), (0.5, (1 << 30, 0)), (1.0, (1 << 30, 1)), (0.3, (1288490189, -1)),
     (1 - 1e-12, (1 << 30, 1)), (1e-12, (0, 0))],
)  # fmt: skip
def test_multipliers(real: float, expected: tuple[int, int]) -> None:
    assert quant.quantise_multiplier(real) == expected


@given(st.floats(1e-8, 100))
def test_multipliers_are_close(real: float) -> None:
    mult, shift = quant.quantise_multiplier(real)
    assert 1 << 30 <= mult < 1 << 31
    assert abs(mult * 2.0 ** (shift - 31) / real - 1) < 2**-30


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "same", "valid"),
    [(8, 3, 1, 1, (8, 1), 6), (8, 3, 2, 1, (4, 0), 3), (7, 3, 2, 1, (4, 1), 3),
     (5, 1, 3, 1, (2, 0), 2), (9, 3, 1, 2, (9, 2), 5), (8, 2, 1, 1, (8, 0), 7),
     (1, 3, 1, 1, (1, 1), -1)],
)  # fmt: skip
def test_padding(
    size: int, kernel: int, stride: int, dilation: int, same: tuple[int, int], valid: int
) -> None:
    assert quant.same_padding(size, kernel, stride, dilation) == same
    assert quant.valid_padding(size, kernel, stride, dilation) == (valid, 0)


# ---------------------------------------------------------------- the blob


def test_same_input_same_bytes() -> None:
    assert compile_model(small()) == compile_model(small())


def test_header_says_what_is_inside() -> None:
    tflite = small("hidden", tail="softmax")
    blob = unpack_blob(compile_model(tflite, source_name="small"))
    header = blob.header
    ops = wire.Op
    used = (ops.CONV_2D, ops.MEAN, ops.FULLY_CONNECTED, ops.SOFTMAX)
    assert header.op_bitmap == sum(1 << op for op in used)
    assert header.cam_head == CamHead.HIDDEN
    assert header.class_count == 4
    assert blob.classes() == ("0", "1", "2", "3")
    assert blob.meta()["source"] == "small"
    names = [t["name"] for t in blob.meta()["tensors"]]
    assert names[header.logits_tensor] == "logits"
    assert names[header.features_tensor] == "map"
    assert names[header.input_tensor] == "in"
    assert pack_blob(header, blob.parts) == compile_model(tflite, source_name="small")


def test_golden_section_is_what_the_core_computes() -> None:
    content = compile_model(small())
    golden = unpack_blob(content).find(Section.GOLDEN)
    assert golden is not None
    fixed = wire.BlobGolden.unpack(golden.content)
    digests = np.frombuffer(golden.content[wire.BlobGolden.SIZE :], "<u4")
    model = Model(content)
    assert [model.golden_digest(n) for n in range(fixed.count)] == digests.tolist()
    assert model.selftest() == 3


def test_wrong_golden_digest_fails_the_self_test() -> None:
    blob = unpack_blob(compile_model(small()))
    parts = tuple(
        dataclasses.replace(p, content=p.content[:-1] + bytes([p.content[-1] ^ 1]))
        if p.kind == Section.GOLDEN
        else p
        for p in blob.parts
    )
    with pytest.raises(ModelError, match="golden"):
        Model(pack_blob(blob.header, parts)).selftest()


def test_every_flipped_bit_is_refused() -> None:
    content = compile_model(small(channels=1, units=2))
    assert len(content) < 4096
    from drip.core import aligned, library

    ffi, lib = library()
    owner, at = aligned(len(content))
    nn = ffi.new("drip_nn_t *")
    ffi.memmove(at, content, len(content))
    assert lib.drip_nn_open(nn, at, len(content)) == 0
    accepted = []
    for position, bit in itertools.product(range(len(content)), range(8)):
        at[position] ^= 1 << bit
        if lib.drip_nn_open(nn, at, len(content)) >= 0:
            accepted.append((position, bit))
        at[position] ^= 1 << bit
    assert accepted == []
    del owner


@pytest.mark.parametrize("size", [0, 10, 127, 128, 1000, -1])
def test_truncated_blobs_are_refused(size: int) -> None:
    content = compile_model(small())[:size]
    with pytest.raises(ModelError):
        Model(content)
    with pytest.raises(ModelError):
        inspect_blob(content)


def test_inspection_adds_up() -> None:
    tflite = DIGITS.read_bytes()
    info = inspect_blob(compile_model(tflite, source_name="digits"))
    assert info.macs == 64 * 16 * 9 + 16 * 24 * 9 * 16 + 16 * 24 * 9 * 24 + 240
    assert [layer.kind for layer in info.layers] == [
        "CONV_2D", "MAX_POOL_2D", "CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED",
    ]  # fmt: skip
    assert (info.frame_dtype, info.frame_shape, info.frame_scale) == ("u8", (8, 8, 1), 0.0625)
    assert (info.cam_head, info.features, info.golden_inputs) == ("direct", (4, 4, 24), 3)
    assert info.provenance["recipe"] == "digits"
    assert max(t.arena_offset + t.size for t in info.tensors) <= info.arena_bytes
    json.dumps(info.to_json())


# ---------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("uint8", 1 / 16, 0.0), ("int16", 5.3e-5, 0.002), ("int8", 0.04, 0.1), ("uint8", -0.01, 1.0)],
)
def test_frames_are_quantised_as_training_scaled_them(
    dtype: str, scale: float, offset: float
) -> None:
    scaling = InputScaling(dtype, scale, offset)
    model = Model(compile_model(small(), spec=InputSpec(scaling, ("a", "b", "c", "d"))))
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    frames = rng.integers(limits.min, limits.max + 1, (50, 4, 4, 2)).astype(dtype)
    real = frames.astype(np.float64) * scale + offset
    expected = np.clip(np.floor(real / np.float64(np.float32(0.04)) - 3 + 0.5), -128, 127)
    got = np.array([model.quantise(f) for f in frames])
    # A value that lies on the border of two steps may fall to either side.
    assert np.abs(got - expected).max() <= 1
    assert (got != expected).mean() < 0.001
    assert len(np.unique(got)) > 10
    assert model.classes == ("a", "b", "c", "d")


def test_channels_are_scaled_apart() -> None:
    scaling = InputScaling("int8", (0.04, 0.08), (0.0, 0.4))
    model = Model(compile_model(small(), spec=InputSpec(scaling)))
    frame = np.full((4, 4, 2), 5, np.int8)
    assert model.quantise(frame)[0, 0].tolist() == [5 - 3, 10 + 10 - 3]


def test_without_metadata_a_frame_is_what_the_input_tensor_holds() -> None:
    model = Model(compile_model(small()))
    frame = np.arange(-16, 16, dtype=np.int8).reshape(4, 4, 2)
    assert np.array_equal(model.quantise(frame), frame)


# ---------------------------------------------------------------- arena


def overlaps(plan: Any, program: Any) -> list[tuple[int, int]]:
    """Pairs of values that share memory while neither is made from the other."""
    values, steps = program.values, plan.steps
    first = {program.input: -1}
    last: dict[int, int] = {}
    for n, step in enumerate(steps):
        first.setdefault(values[step.out].root, n)
        for index in step.reads:
            last[values[index].root] = n
    for index in program.outputs:
        last[values[index].root] = len(steps)
    found = []
    for a, b in itertools.combinations(first, 2):
        apart = last.get(a, -1) < first[b] or last.get(b, -1) < first[a]
        heirs = last.get(a) == first[b] or last.get(b) == first[a]
        lo, hi = plan.offsets[a], plan.offsets[b]
        disjoint = lo + values[a].size <= hi or hi + values[b].size <= lo
        if not (apart or heirs or disjoint):
            found.append((a, b))
    return found


def test_values_that_live_together_lie_apart() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        build = tb.TfliteBuilder()
        x = build.tensor((1, 6, 6, 3), 0.04, -3)
        pool = [x]
        for _ in range(rng.integers(2, 7)):
            source = int(rng.choice(pool))
            if rng.random() < 0.4 and len(pool) > 2:
                a, b = (int(n) for n in rng.choice(pool[1:], 2))
                out = build.tensor((1, 6, 6, 3), 0.2, 1)
                pool.append(build.op("ADD", [a, b], out, FusedActivationFunction=tb.NONE))
            else:
                pool.append(tb.add_conv(build, rng, source, 3, (3, 3), out_scale=0.1))
        program = lower(read_graph(build.finish([x], pool[-2:])))
        plan = plan_arena(program, program.outputs)
        assert overlaps(plan, program) == []
        assert plan.arena_bytes % 16 == 0


def test_addition_happens_in_place() -> None:
    rng = np.random.default_rng(0)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 8, 8, 4), 0.04, -3)
    a = tb.add_conv(build, rng, x, 4, (3, 3))
    b = tb.add_conv(build, rng, x, 4, (3, 3))
    c = build.op("ADD", [a, b], build.tensor((1, 8, 8, 4), 9.0, 1), FusedActivationFunction=tb.NONE)
    program = lower(read_graph(build.finish([x], [c])))
    plan = plan_arena(program, (c,))
    assert plan.offsets[c] in (plan.offsets[a], plan.offsets[b])
    assert plan.live_bytes == 3 * 256


# ---------------------------------------------------------------- training record


def test_training_is_recorded_as_a_small_sketch() -> None:
    from drip.compile.build import SKETCH_BYTES, SKETCH_SIZE, read_sketch

    frames = np.random.default_rng(0).integers(0, 255, (2000, 4, 4, 2)).astype(np.uint8)
    hashes = sample_hashes(frames)
    blob = unpack_blob(compile_model(small(), training_hashes=hashes, parent="ab"))
    record = blob.meta()["training"]
    kept = read_sketch(record["sketch"])
    assert record["samples"] == 2000
    assert kept == set(sorted(h[:SKETCH_BYTES] for h in hashes)[:SKETCH_SIZE])
    assert blob.meta()["parent"] == "ab"
