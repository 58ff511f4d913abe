"""What compilation makes of a .tflite: plan, head, tables, blob; and what it refuses."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_builder as tb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drip import wire
from drip.compile import InputSpec, compile_model, quant
from drip.compile.blob import pack_blob, unpack_blob
from drip.compile.graph import read_graph
from drip.compile.head import find_head, find_logits, make_tables
from drip.compile.lower import lower
from drip.compile.plan import plan_arena
from drip.data import InputScaling, sample_hashes
from drip.errors import DripError, ModelError
from drip.inspect import inspect_blob
from drip.wire import CamHead, Op, Section

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.core import Model

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.tflite"


# Hidden layers from the features up.
STACKS = {"two": (6, 5), "four": (8, 3, 7, 5), "deep": (6, 6, 6, 6, 6)}


def small(head: str = "mean", *, tail: str = "", channels: int = 3, units: int = 4) -> bytes:
    """A convolution and a head of some kind."""
    rng = np.random.default_rng(3)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4, 4, 2), 0.04, -3, name="in")
    y = tb.add_conv(build, rng, x, channels, (3, 3), activation=tb.RELU)
    build.tensors[y]["name"] = "map"
    if head == "mean":
        y = tb.add_mean(build, rng, y)
    if head in ("average", "max"):
        y = tb.add_pool(build, y, f"{head.upper()}_POOL_2D", (4, 4), (4, 4), tb.VALID)
    if head == "flatten":
        t = build.tensors[y]
        flat = build.tensor((1, 16 * channels), t["scales"], t["zeros"])
        y = build.op("RESHAPE", [y, build.constant([1, 16 * channels])], flat)
    if head == "hidden":
        y = tb.add_dense(build, rng, tb.add_mean(build, rng, y), 6, activation=tb.RELU)
    if head in STACKS:
        y = tb.add_mean(build, rng, y)
        for width in STACKS[head]:
            y = tb.add_dense(build, rng, y, width, activation=tb.RELU)
    y = tb.add_dense(build, rng, y, units, name="logits")
    if tail == "softmax":
        out = build.tensor((1, units), 1 / 256, -128, name="probabilities")
        y = build.op("SOFTMAX", [y], out, Beta=1.0)
    return build.finish([x], [y])


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


# ---------------------------------------------------------------- head


@pytest.mark.parametrize(
    ("head", "kind"),
    [("mean", CamHead.DIRECT), ("average", CamHead.DIRECT), ("max", CamHead.DIRECT),
     ("flatten", CamHead.DIRECT), ("none", CamHead.DIRECT), ("hidden", CamHead.HIDDEN),
     ("two", CamHead.HIDDEN), ("four", CamHead.HIDDEN)],
)  # fmt: skip
@pytest.mark.parametrize("tail", ["", "softmax"])
def test_heads_are_found(head: str, kind: CamHead, tail: str) -> None:
    program = lower(read_graph(small(head, tail=tail)))
    logits = find_logits(program)
    found = find_head(program, logits)
    assert program.values[logits].name == "logits"
    assert found.kind == kind
    assert program.values[found.features].name == "map"
    assert Model(compile_model(small(head, tail=tail))).has_cam


def test_linear_layers_before_the_logits_are_one() -> None:
    rng = np.random.default_rng(1)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4, 4, 2), 0.04, -3)
    y = tb.add_mean(build, rng, tb.add_conv(build, rng, x, 3, (3, 3)))
    first = tb.add_dense(build, rng, y, 5)
    second = tb.add_dense(build, rng, first, 4, name="logits")
    program = lower(read_graph(build.finish([x], [second])))
    head = find_head(program, second)
    dense = [s.weights * s.weight_scales[:, None] for s in program.steps[-2:]]
    assert head.kind == CamHead.DIRECT
    assert np.allclose(head.direct, dense[1] @ dense[0] / 16)


def test_a_hidden_relu6_layer_is_refused() -> None:
    rng = np.random.default_rng(2)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4, 4, 2), 0.04, -3, name="in")
    y = tb.add_mean(build, rng, tb.add_conv(build, rng, x, 3, (3, 3)))
    y = tb.add_dense(build, rng, y, 6, activation=tb.RELU6, name="hidden")
    tflite = build.finish([x], [tb.add_dense(build, rng, y, 4, name="logits")])
    with pytest.raises(ModelError, match=r"tensor hidden: .*use ReLU"):
        compile_model(tflite)
    assert not Model(compile_model(tflite, cam=False)).has_cam


@pytest.mark.parametrize("head", ["deep"])
def test_no_head_names_the_tensor_and_a_way_out(head: str) -> None:
    with pytest.raises(ModelError, match="no Grad-CAM head at tensor") as caught:
        compile_model(small(head))
    assert "--no-cam" in caught.value.hint
    model = Model(compile_model(small(head), cam=False))
    assert not model.has_cam
    with pytest.raises(ModelError, match="no Grad-CAM head"):
        model.cam(np.zeros((4, 4, 2), np.int8))
    with pytest.raises(ModelError, match="no Grad-CAM head"):
        model.score(np.zeros((4, 4, 2), np.int8), wire.ScoreKind.CAM_EVIDENCE)
    assert model.score(np.zeros((4, 4, 2), np.int8)).class_1 < 4


def slow_cam(model: Model, head: Any, frame: NDArray[np.int8], c: int) -> NDArray[np.float64]:
    """Grad-CAM in floating point from the int8 features and real weights."""
    tensors = {name["name"]: n for n, name in enumerate(model.meta["tensors"])}
    part = unpack_blob(model.blob).find(Section.TENSORS)
    assert part is not None
    content = dict(model.tensors(frame))
    features = content[tensors["map"]].astype(np.float64)
    fields = wire.BlobTensor.unpack(part.content, tensors["map"] * wire.BlobTensor.SIZE)
    real = fields.scale * (features - fields.zero_point)
    if head.kind == CamHead.DIRECT:
        return np.asarray(real @ head.direct[c])
    weights = head.dense[c]
    layers = [upper.matrix for upper in head.uppers] + [head.direct]
    for active, matrix in zip(active_units(model), layers, strict=True):
        weights = (weights * active) @ matrix
    return np.asarray(real @ weights)


def cam_parts(model: Model) -> tuple[wire.BlobCam, list[wire.BlobCamLayer], bytes]:
    """The fixed part of the CAM section, its upper layers and the bytes of its tables."""
    cam = unpack_blob(model.blob).find(Section.CAM)
    assert cam is not None
    fixed = wire.BlobCam.unpack(cam.content)
    size = wire.BlobCamLayer.SIZE
    ends = range(wire.BlobCam.SIZE, wire.BlobCam.SIZE + size * fixed.uppers, size)
    uppers = [wire.BlobCamLayer.unpack(cam.content, at) for at in ends]
    return fixed, uppers, cam.content[wire.BlobCam.SIZE + size * fixed.uppers :]


def active_units(model: Model) -> list[NDArray[np.bool_]]:
    """Which units of the last inference were active, topmost hidden layer first."""
    fixed, uppers, _ = cam_parts(model)
    part = unpack_blob(model.blob).find(Section.TENSORS)
    assert part is not None
    numbers = [*(upper.tensor for upper in uppers), fixed.hidden_tensor]
    zeros = [
        wire.BlobTensor.unpack(part.content, number * wire.BlobTensor.SIZE).zero_point
        for number in numbers
    ]
    pairs = zip(numbers, zeros, strict=True)
    return [model.tensor(number).reshape(-1) > zero for number, zero in pairs]


def integer_weights(model: Model, c: int) -> list[int]:
    """Channel weights of a stacked head as SPEC.md says, one number at a time."""
    fixed, uppers, tables = cam_parts(model)
    widths = [*(upper.units for upper in uppers), fixed.hidden]
    entries = (fixed.hidden + fixed.hidden % 2) * fixed.channels
    # Units 2i and 2i + 1 lie side by side.
    pairs = np.frombuffer(tables, "<i2", entries).reshape(-1, fixed.channels, 2)
    table = pairs.transpose(0, 2, 1).reshape(-1, fixed.channels)
    rest = np.frombuffer(tables, np.int8, offset=2 * entries)
    dense, rest = np.split(rest, [fixed.classes * widths[0]])
    weights = [int(w) for w in dense.reshape(fixed.classes, -1)[c]]
    masks = active_units(model)
    for n, upper in enumerate(uppers):
        matrix, rest = np.split(rest, [widths[n] * widths[n + 1]])
        rows = matrix.reshape(widths[n], -1)
        sums = [
            sum(w * int(rows[u, h]) for u, w in enumerate(weights) if masks[n][u])
            for h in range(widths[n + 1])
        ]
        weights = [total >> upper.shift for total in sums]
    return [
        sum(w * int(table[h, k]) for h, w in enumerate(weights) if masks[-1][h]) >> fixed.shift
        for k in range(fixed.channels)
    ]


@pytest.mark.parametrize("head", ["two", "four"])
def test_stacked_heads_follow_the_specification_bit_for_bit(head: str) -> None:
    model = Model(compile_model(small(head, channels=7, units=5)))
    number = model.header.features_tensor
    part = unpack_blob(model.blob).find(Section.TENSORS)
    assert part is not None
    zero = wire.BlobTensor.unpack(part.content, number * wire.BlobTensor.SIZE).zero_point
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(30):
        frame = rng.integers(-128, 128, (4, 4, 2), np.int8)
        model.run(frame[None])
        features = model.tensor(number).astype(np.int64) - zero
        for c in range(5):
            weights = integer_weights(model, c)
            seen += any(weights)
            expected = features @ np.array(weights)
            units, total = model.cam_units(frame, c)
            assert np.array_equal(units, expected.reshape(units.shape))
            assert total == int(np.maximum(expected, 0).sum())
    assert seen > 50


@pytest.mark.parametrize("head", ["two", "four"])
def test_stacked_heads_that_could_overflow_are_refused(head: str) -> None:
    blob = compile_model(small(head, channels=7, units=5))
    parts = unpack_blob(blob)
    cam = parts.find(Section.CAM)
    assert cam is not None
    layer = wire.BlobCam.SIZE
    damage = [
        (wire.BlobCam.OFFSETS["shift"], 0), (wire.BlobCam.OFFSETS["uppers"], 4),
        (wire.BlobCam.OFFSETS["uppers"], 3), (layer + wire.BlobCamLayer.OFFSETS["units"], 0),
        (layer + wire.BlobCamLayer.OFFSETS["units"], 60000),
        (layer + wire.BlobCamLayer.OFFSETS["tensor"], 9999),
        (layer + wire.BlobCamLayer.OFFSETS["shift"], 32),
    ]  # fmt: skip
    for at, value in damage:
        content = bytearray(cam.content)
        content[at : at + 2] = value.to_bytes(2, "little")
        if bytes(content) == cam.content:
            continue
        changed = tuple(
            dataclasses.replace(part, content=bytes(content)) if part.kind == Section.CAM else part
            for part in parts.parts
        )
        model = Model(pack_blob(parts.header, changed))
        with pytest.raises(ModelError):
            model.cam_units(np.zeros((4, 4, 2), np.int8), 0)


@pytest.mark.parametrize("head", ["mean", "flatten", "none", "max", "hidden", "two", "four"])
def test_integer_cam_is_the_real_one(head: str) -> None:
    tflite = small(head, channels=7, units=5)
    model = Model(compile_model(tflite))
    program = lower(read_graph(tflite))
    found = find_head(program, find_logits(program))
    rng = np.random.default_rng(0)
    for _ in range(20):
        frame = rng.integers(-128, 128, (4, 4, 2), np.int8)
        every = [slow_cam(model, found, frame, c) for c in range(5)]
        for c in range(5):
            # Tables share one scale over all classes; each upper layer rounds once more.
            allowed = 0.01 + 0.02 * len(found.uppers)
            assert np.abs(model.cam(frame, c) - every[c]).max() <= allowed * np.abs(every).max()
            units, total = model.cam_units(frame, c, minus=(c + 1) % 5)
            assert total == int(np.maximum(units, 0).sum())
            other = model.cam_units(frame, (c + 1) % 5)[0]
            assert np.abs(units - (model.cam_units(frame, c)[0] - other)).max() <= 255 * 7 * 2


@given(
    st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(1, 300), st.integers(0, 99)
)
@settings(deadline=None)
def test_tables_cannot_overflow(c: int, h: int, k: int, positions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    from drip.compile.head import Head

    dense, table = rng.normal(size=(c, h)) * 10.0 ** rng.integers(-3, 3), rng.normal(size=(h, k))
    tables = make_tables(Head(CamHead.HIDDEN, 0, 1, table, dense), positions)
    wide, small_ = tables.table.astype(np.int64), tables.dense.astype(np.int64)
    for mask in itertools.product((0, 1), repeat=min(h, 6)):
        active = np.resize(np.array(mask), h)
        weights = ((small_ * active) @ wide) >> tables.shift
        every = np.abs(weights[:, None] - np.vstack([weights, 0 * weights[:1]])[None]).sum(axis=2)
        assert 255 * positions * every.max() < 1 << 31
    direct = make_tables(Head(CamHead.DIRECT, 0, None, dense, dense[:, :0]), positions)
    alpha = direct.table.astype(np.int64)
    every = np.abs(alpha[:, None] - np.vstack([alpha, 0 * alpha[:1]])[None]).sum(axis=2)
    assert 255 * positions * every.max() < 1 << 31


# ---------------------------------------------------------------- refusals


def refused(build: tb.TfliteBuilder, inputs: list[int], outputs: list[int], match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        compile_model(build.finish(inputs, outputs))
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_float_model_is_refused() -> None:
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4), dtype="float32")
    y = build.tensor((1, 4), dtype="float32")
    build.op("RELU", [x], y)
    refused(build, [x], [y], "float model")


def test_hybrid_model_is_refused() -> None:
    build = tb.TfliteBuilder()
    x, y = (build.tensor((1, 4), dtype="float32") for _ in range(2))
    w = build.tensor((4, 4), 0.1, data=np.ones((4, 4), np.int8))
    build.op("FULLY_CONNECTED", [x, w, -1], y, FusedActivationFunction=tb.NONE, WeightsFormat=0)
    refused(build, [x], [y], "hybrid")


def test_dynamic_batch_is_refused() -> None:
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4), 0.1, signature=(-1, 4), name="frame")
    y = tb.add_dense(build, np.random.default_rng(0), x, 2)
    refused(build, [x], [y], "frame has a dynamic shape")


def test_unknown_operator_is_refused() -> None:
    build = tb.TfliteBuilder()
    x, y = build.tensor((1, 4), 0.1), build.tensor((1, 4), 0.1, name="waves")
    build.op("SIN", [x], y)
    refused(build, [x], [y], r"operator SIN \(waves\) is not supported")


def test_int16_activations_are_refused() -> None:
    build = tb.TfliteBuilder()
    x, y = (build.tensor((1, 4), 0.1, dtype="int16") for _ in range(2))
    build.op("RELU", [x], y)
    refused(build, [x], [y], "int16")


def test_accumulator_overflow_is_refused() -> None:
    build = tb.TfliteBuilder()
    rng = np.random.default_rng(0)
    x = build.tensor((1, 4), 0.1)
    y = tb.add_dense(build, rng, x, 2)
    bias = next(t for t in build.tensors if t["name"] == "bias")
    bias["data"] = np.array([2**31 - 1, 0], np.int32)
    refused(build, [x], [y], "accumulator can exceed 32 bits")


def test_two_inputs_are_refused() -> None:
    build = tb.TfliteBuilder()
    a, b, y = (build.tensor((1, 4), 0.1) for _ in range(3))
    build.op("ADD", [a, b], y, FusedActivationFunction=tb.NONE)
    refused(build, [a, b], [y], "2 inputs")


def test_wrong_number_of_class_names_is_refused() -> None:
    with pytest.raises(ModelError, match="3 class names for 4 logits"):
        compile_model(small(), spec=InputSpec(classes=("a", "b", "c")))


def test_something_else_is_refused() -> None:
    for content in (b"", b"hello", bytes(1000)):
        with pytest.raises(ModelError, match=r"not a \.tflite"):
            compile_model(content)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_files_never_end_in_a_traceback(data: st.DataObject) -> None:
    content = bytearray(small(data.draw(st.sampled_from(("mean", "flatten", "hidden")))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from((0, 1, 2, 127, 128, 255, content[at] ^ 1)))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(8, len(content) - 1)) :]
    try:
        compile_model(bytes(content))
    except DripError as error:
        assert "\n" not in error.message


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


@pytest.mark.parametrize("kernel", [(4, 4), (1, 1)])
def test_hidden_layer_that_is_a_convolution_becomes_dense_and_notes_signs(
    kernel: tuple[int, int],
) -> None:
    rng = np.random.default_rng(5)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4, 4, 2), 0.04, -3, name="in")
    y = tb.add_conv(build, rng, x, 3, (3, 3), activation=tb.RELU)
    if kernel == (1, 1):
        y = tb.add_conv(build, rng, y, 0, (4, 4), multiplier=1, padding=tb.VALID)
    y = tb.add_conv(build, rng, y, 7, kernel, padding=tb.VALID, activation=tb.RELU)
    tflite = build.finish([x], [tb.add_dense(build, rng, y, 3, name="logits")])
    model, plain = (Model(compile_model(tflite, cam=cam)) for cam in (True, False))
    kinds = []
    for each in (model, plain):
        part = unpack_blob(each.blob).find(Section.OPS)
        assert part is not None
        size = wire.BlobOp.SIZE
        ops = [wire.BlobOp.unpack(part.content, n) for n in range(0, len(part.content), size)]
        kinds.append([op.kind for op in ops][-2:])
    assert kinds == [[Op.FULLY_CONNECTED] * 2, [Op.CONV_2D, Op.FULLY_CONNECTED]]
    cam = unpack_blob(model.blob).find(Section.CAM)
    assert cam is not None
    number = wire.BlobCam.unpack(cam.content).hidden_tensor
    seen = set()
    for _ in range(20):
        frame = rng.integers(-128, 128, (4, 4, 2), np.int8)
        ours, theirs = ([t for _, t in m.tensors(frame)][-2:] for m in (model, plain))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
        signs = model.tensor(number).reshape(-1)
        # What is above zero in int8 came from a sum above zero.
        assert signs[ours[0].reshape(-1) > ours[0].min()].all()
        seen |= set(signs.tolist())
    assert seen == {0, 1}
