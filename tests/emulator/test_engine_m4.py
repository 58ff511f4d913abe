"""The engine on an emulated Cortex-M4F computes what the host core computes, byte for byte.

Both variants of the kernels run the committed reference model and random ones; the measurement
itself compares the CRC-32 of every tensor and raises when one differs.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from drip import wire
from drip.bench import engine, engine_report
from drip.compile import compile_model
from drip.compile.blob import unpack_blob
from drip.compile.layouts import pairs_scratch_bytes
from drip.core import Model
from drip.errors import VerifyError
from drip.wire import Op, ScoreKind, Section

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))
sys.path.insert(0, str(ROOT / "tests" / "core"))

import tflite_builder as tb  # noqa: E402 - beside the unit tests
from drip._core import ffi, lib  # noqa: E402
from nets import Engine, Net  # noqa: E402 - beside the core tests
from random_models import models  # noqa: E402

_MISSING = [tool for tool in (engine.COMPILER, engine.EMULATOR) if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(
    bool(_MISSING),
    reason=f"{' and '.join(_MISSING)} missing: apt install gcc-arm-none-eabi qemu-system-arm",
)


@pytest.fixture(scope="module", params=engine.VARIANTS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    return engine.Target(tmp_path_factory.mktemp("m4") / request.param, request.param)


@pytest.fixture(scope="module")
def digits() -> bytes:
    return compile_model((ROOT / "models" / "digits" / "model.tflite").read_bytes())


def test_reference_model_is_equal(target: engine.Target, digits: bytes) -> None:
    cost = target.measure("digits", digits, inputs=3)
    assert cost.compared == 3 * len(cost.operators)
    assert cost.macs == 147_696
    limit = 2.0 if target.variant == "dsp" else 6.0
    assert engine.LEAST_INSTRUCTIONS_PER_MAC < cost.instructions_per_mac <= limit


def test_counts_repeat(target: engine.Target, digits: bytes) -> None:
    first, second = (target.measure("digits", digits) for _ in range(2))
    assert first == second


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(tflite=models())
def test_random_models_are_equal(target: engine.Target, tflite: bytes) -> None:
    blob = compile_model(tflite, cam=False)
    cost = target.measure("random", blob, inputs=2)
    assert 2 <= cost.compared <= 2 * len(cost.operators)


def _layer(layer: str, shape: tuple[int, int, int], options: dict) -> bytes:
    """A model of one layer, then one that reads it, so that memory can be shared."""
    rng = np.random.default_rng(zlib.crc32(repr((layer, shape, options)).encode()))
    build = tb.TfliteBuilder()
    x = build.tensor((1, *shape), 0.05, int(rng.integers(-128, 128)), name="in")
    if layer == "conv":
        y = tb.add_conv(build, rng, x, **options)
    elif layer == "depthwise":
        y = tb.add_conv(build, rng, x, 0, multiplier=1, **options)
    elif layer == "dense":
        y = tb.add_dense(build, rng, x, **options)
    elif layer == "pool":
        y = tb.add_pool(build, x, **options)
    else:
        y = x
        out = build.tensor((1, *shape), options["out_scale"], 3)
        other = build.tensor((1, *shape), options["scale"], -7)
        z = build.op("QUANTIZE", [x], other)
        y = build.op("ADD", [x, z], out, FusedActivationFunction=tb.NONE)
    if layer != "dense":
        y = tb.add_dense(build, rng, y, 3)
    return build.finish([x], [y])


# Geometry that takes each way through the kernels: blocks of four, three, two and one position,
# whole words and not, odd channels, scratch for four columns or two, requantisation short and not.
CASES = {
    "conv 3x3, words": ("conv", (9, 7, 8), {"out_c": 6, "kernel": (3, 3)}),
    "conv 3x3, bytes": ("conv", (9, 7, 3), {"out_c": 5, "kernel": (3, 3)}),
    "conv 3x3, one channel": ("conv", (8, 8, 1), {"out_c": 4, "kernel": (3, 3), "stride": (2, 1)}),
    "conv 10x4": ("conv", (49, 10, 1), {"out_c": 8, "kernel": (10, 4), "stride": (2, 2)}),
    "conv 1x1, 1 position": ("conv", (1, 1, 16), {"out_c": 7, "kernel": (1, 1)}),
    "conv 1x1, 2 positions": ("conv", (2, 1, 12), {"out_c": 2, "kernel": (1, 1)}),
    "conv 1x1, 3 positions": ("conv", (1, 3, 8), {"out_c": 1, "kernel": (1, 1)}),
    "conv 1x1, 5 channels": ("conv", (3, 3, 5), {"out_c": 9, "kernel": (1, 1)}),
    "conv 1x1, stride": ("conv", (6, 5, 8), {"out_c": 8, "kernel": (1, 1), "stride": (2, 2)}),
    "conv 1x5": ("conv", (1, 50, 6), {"out_c": 16, "kernel": (1, 5)}),
    "conv 1x5, stride": (
        "conv", (1, 25, 16), {"out_c": 24, "kernel": (1, 5), "stride": (1, 2)}
    ),
    "conv 3x3, all at the border": ("conv", (4, 4, 24), {"out_c": 24, "kernel": (3, 3)}),
    "conv, saturating": ("conv", (6, 6, 8), {"out_c": 8, "kernel": (3, 3), "extreme": True}),
    "conv, left shifts": ("conv", (6, 6, 4), {"out_c": 6, "kernel": (3, 3), "out_scale": 1e-4}),
    "conv, relu6": ("conv", (5, 5, 4), {"out_c": 3, "kernel": (2, 2), "activation": tb.RELU6}),
    "depthwise 3x3": ("depthwise", (12, 12, 8), {"kernel": (3, 3)}),
    "depthwise 3x3, turned": ("depthwise", (25, 5, 6), {"kernel": (3, 3)}),
    "depthwise 3x3, turned, stride": (
        "depthwise", (25, 5, 4), {"kernel": (3, 3), "stride": (2, 2)}
    ),
    "depthwise 3x3, stride 2": ("depthwise", (11, 13, 5), {"kernel": (3, 3), "stride": (2, 2)}),
    "depthwise 3x3, stride 3": ("depthwise", (11, 13, 5), {"kernel": (3, 3), "stride": (3, 3)}),
    "depthwise 3x3, 1 position": ("depthwise", (3, 3, 4), {"kernel": (3, 3), "padding": tb.VALID}),
    "depthwise 3x2": ("depthwise", (7, 7, 4), {"kernel": (3, 2)}),
    "depthwise 5x5": ("depthwise", (9, 9, 3), {"kernel": (5, 5)}),
    "depthwise 5x1, one wide": ("depthwise", (24, 1, 10), {"kernel": (5, 1)}),
    "depthwise 10x1, one wide": (
        "depthwise", (24, 1, 10), {"kernel": (10, 1), "padding": tb.VALID}
    ),
    "depthwise 1x7": ("depthwise", (3, 20, 6), {"kernel": (1, 7), "stride": (1, 2)}),
    "depthwise, left shifts": ("depthwise", (8, 8, 4), {"kernel": (3, 3), "out_scale": 1e-4}),
    "dense, 7 inputs": ("dense", (1, 1, 7), {"units": 6}),
    "dense, 640 inputs": ("dense", (1, 1, 640), {"units": 9}),
    "dense, 3 inputs": ("dense", (1, 1, 3), {"units": 1}),
    "average, 256 taps": (
        "pool", (16, 16, 6), {"kind": "AVERAGE_POOL_2D", "kernel": (16, 16), "stride": (1, 1),
                              "padding": tb.VALID}
    ),
    "average, 255 taps": (
        "pool", (17, 15, 8), {"kind": "AVERAGE_POOL_2D", "kernel": (17, 15), "stride": (1, 1),
                              "padding": tb.VALID}
    ),
    "maximum, odd channels": (
        "pool", (7, 7, 7), {"kind": "MAX_POOL_2D", "kernel": (3, 3), "stride": (2, 2),
                            "padding": tb.SAME}
    ),
    "add, other scale": ("add", (5, 5, 3), {"scale": 0.03, "out_scale": 0.08}),
    "add, larger scale": ("add", (5, 5, 3), {"scale": 0.09, "out_scale": 0.1}),
    "add, same scale": ("add", (5, 5, 3), {"scale": 0.05, "out_scale": 0.1}),
    "add, small result": ("add", (5, 5, 3), {"scale": 0.03, "out_scale": 0.00001}),
}  # fmt: skip


def _compile(case: str, margin: float, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr("drip.compile.plan._SCRATCH_MARGIN", margin)
    return compile_model(_layer(*CASES[case]), cam=False)


@pytest.mark.parametrize("case", CASES)
def test_every_way_through_the_kernels(
    target: engine.Target, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Scratch for four columns at any price, then for two wherever that saves memory.
    for margin in (100.0, 0.0) if case.startswith("conv") else (1.0,):
        cost = target.measure("case", _compile(case, margin, monkeypatch), inputs=4)
        assert cost.compared == 4 * len(cost.operators)


def test_scratch_for_two_or_four_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for margin in (100.0, 0.0):
        ops = unpack_blob(_compile("conv 3x3, words", margin, monkeypatch)).find(Section.OPS)
        assert ops is not None
        sizes.append(wire.BlobOp.unpack(ops.content).scratch_bytes)
    assert sizes == [pairs_scratch_bytes(3, 3, 8), 2 * 3 * 3 * 8]


def _head(channels: int, hidden: int, rows: int) -> bytes:
    rng = np.random.default_rng((channels, hidden, rows))
    build = tb.TfliteBuilder()
    x = build.tensor((1, rows, 3, 2), 0.05, -3, name="in")
    y = tb.add_conv(build, rng, x, channels, (2, 2), activation=tb.RELU)
    y = tb.add_mean(build, rng, y)
    if hidden:
        y = tb.add_dense(build, rng, y, hidden, activation=tb.RELU)
    return build.finish([x], [tb.add_dense(build, rng, y, 4, name="logits")])


def test_scores_of_every_kind_of_head_are_equal(target: engine.Target) -> None:
    with_evidence = set()
    for channels, hidden, rows in (
        (1, 0, 2), (3, 0, 1), (4, 0, 1), (12, 0, 3), (13, 0, 2), (16, 0, 2),
        (3, 1, 1), (4, 5, 2), (7, 2, 1), (8, 6, 1), (12, 7, 2), (20, 32, 3), (21, 9, 1),
    ):  # fmt: skip
        blob = compile_model(_head(channels, hidden, rows))
        # The measurement itself compares the scores and raises when one differs.
        target.measure("head", blob, inputs=12)
        model = Model(blob)
        frames = np.random.default_rng(0).integers(-128, 128, (12, *model.frame_shape), np.int8)
        for frame in frames:
            raw = model.score(frame, ScoreKind.CAM_EVIDENCE, quantised=True).raw
            with_evidence.add((hidden != 0, raw < 0))
    assert len(with_evidence) == 4


def test_wrong_score_of_the_target_is_noticed(
    target: engine.Target, digits: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = engine._Run.parse

    def spoiled(name: str, output: str) -> engine._Run:
        run = parse(name, output)
        run.raws[0] += 1
        return run

    monkeypatch.setattr(engine._Run, "parse", spoiled)
    with pytest.raises(VerifyError, match="score of input 0 differs"):
        target.measure("digits", digits)


@pytest.mark.parametrize(
    "shape",
    [(8, 8, 1), (28, 28, 1), (32, 32, 3), (7, 11, 2), (49, 10, 1), (3, 9, 1), (16, 16, 1),
     (128, 1, 3), (90, 1, 3), (20, 1, 1), (50, 1, 6), (50, 1, 5), (33, 1, 4), (17, 1, 2),
     (13, 1, 14), (40, 1, 14), (40, 1, 15), (1, 9, 9), (1, 1, 30), (1, 1, 4), (1, 5, 1)],
)  # fmt: skip
def test_pictures_of_inputs_are_equal(target: engine.Target, shape: tuple[int, int, int]) -> None:
    net = Net()
    x, out = net.tensor(*shape), net.tensor(*shape)
    net.op(Op.REQUANTIZE, x, out, mult0=1 << 30, shift0=1)
    blob = net.blob(out)
    host = Engine(blob)
    rng = np.random.default_rng(3)
    frames = np.stack(
        [rng.integers(a, b, shape).astype(np.int8) for a, b in ((-128, 128), (90, 128), (-128, 9))]
    )
    name = "picture" + "x".join(map(str, shape))
    image, _ = target._link(name, blob, frames, net.arena)
    looks = engine._Run.parse(name, engine._emulate(image)).looks
    for number, frame in enumerate(frames):
        ffi.memmove(lib.drip_nn_input(host.nn), frame.tobytes(), frame.size)
        thumb = ffi.new("drip_thumb_t *")
        lib.drip_policy_thumb(host.nn, thumb)
        assert looks[number] == zlib.crc32(bytes(ffi.buffer(thumb)))


def test_wrong_picture_of_the_target_is_noticed(
    target: engine.Target, digits: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = engine._Run.parse

    def spoiled(name: str, output: str) -> engine._Run:
        run = parse(name, output)
        run.looks[0] ^= 1
        return run

    monkeypatch.setattr(engine._Run, "parse", spoiled)
    with pytest.raises(VerifyError, match="picture of input 0 differs"):
        target.measure("digits", digits)


def test_engine_fits_its_flash(target: engine.Target) -> None:
    assert target.text_bytes <= 14 * 1024


def test_image_of_a_fixed_model_has_its_operators_only(
    target: engine.Target, digits: bytes
) -> None:
    cost = target.measure("digits", digits)
    assert cost.linked_text_bytes < 0.8 * cost.text_bytes


def test_wrong_target_result_is_noticed(
    target: engine.Target, digits: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = unpack_blob(digits)
    ops = parts.find(Section.OPS)
    assert ops is not None
    first = wire.BlobOp.unpack(ops.content)
    assert first.kind == Op.CONV_2D
    # The target gets a model whose first layer has another zero point.
    changed = dataclasses.replace(first, out_zero=first.out_zero + 1).pack()
    other = bytearray(digits)
    at = digits.index(ops.content)
    other[at : at + len(changed)] = changed
    crc = zlib.crc32(bytes(other[16:])).to_bytes(4, "little")
    other[12:16] = crc
    link = target._link

    def swapped(name, blob, frames, arena):
        return link(name, bytes(other), frames, arena)

    monkeypatch.setattr(target, "_link", swapped)
    with pytest.raises(VerifyError, match="operator 0 differs"):
        target.measure("digits", digits)


def test_check_refuses_slower_kernels(target: engine.Target, digits: bytes, tmp_path: Path) -> None:
    cost = target.measure("digits", digits)
    name = f"digits/{target.variant}"
    path = tmp_path / "engine.json"
    path.write_text(f'{{"{name}": {round(cost.instructions / 1.015)}}}')
    assert engine_report.check([cost], path) == [
        f"{name}: {round(cost.instructions):,} instructions, +1.50%"
    ]
    path.write_text(f'{{"{name}": {round(cost.instructions / 1.03)}}}')
    with pytest.raises(VerifyError, match=r"\+3\.0%"):
        engine_report.check([cost], path)
    path.write_text("{}")
    with pytest.raises(VerifyError, match=f"{name} is not in it"):
        engine_report.check([cost], path)


def test_check_refuses_costly_selection(
    target: engine.Target, digits: bytes, tmp_path: Path
) -> None:
    cost = target.measure("digits", digits)
    path = tmp_path / "engine.json"
    path.write_text(f'{{"digits/{target.variant}": {round(cost.instructions)}}}')
    engine_report.check([cost], path)
    assert cost.scoring_share < 0.006
    # The redundancy rule looked at the frame and at all eight pictures.
    assert 0.003 < cost.selecting_share - cost.scoring_share < 0.008
    dear = dataclasses.replace(cost, scoring_instructions=cost.instructions * 0.011)
    with pytest.raises(VerifyError, match=r"spends 1\.10% on scoring"):
        engine_report.check([dear], path)
