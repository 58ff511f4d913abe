"""The Grad-CAM head that compilation finds, and its integer tables."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import tflite_builder as tb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_model import small

from drip import wire
from drip.compile import compile_model
from drip.compile.blob import pack_blob, unpack_blob
from drip.compile.graph import read_graph
from drip.compile.head import find_head, find_logits, make_tables
from drip.compile.lower import lower
from drip.errors import ModelError
from drip.wire import CamHead, Op, Section

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.core import Model


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
