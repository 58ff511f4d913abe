"""Bit-exactness of the core against the tflite-micro interpreter, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_models import models
from tflite_builder import (
    NONE,
    RELU,
    SAME,
    VALID,
    TfliteBuilder,
    add_conv,
    add_dense,
    add_mean,
    add_pool,
)

from drip.compile import compile_model
from drip.core import Model
from drip.errors import VerifyError
from drip.verify import verify

pytest.importorskip(
    "tflite_micro", reason="needs tflite-micro: pip install .[verify] (Linux x86-64)"
)
pytest.importorskip("drip._core", reason="needs the compiled core: make setup")

MODELS = Path(__file__).parents[2] / "models"
REFERENCE = sorted(path.parent.name for path in MODELS.glob("*/model.tflite"))


def check(tflite: bytes, inputs: int = 10, **options: Any) -> None:
    """Assert that nothing differs, and that something was compared."""
    report = verify(tflite, inputs=inputs, **options)
    assert report.compared > 0
    assert [t for t in report.tensors if t.mismatches] == []


def starting(shape: tuple[int, ...], zero: int = -3) -> tuple[TfliteBuilder, Any, int]:
    """A builder, its random numbers and an input."""
    build = TfliteBuilder()
    return build, np.random.default_rng(7), build.tensor(shape, 0.04, zero, name="in")


@settings(
    max_examples=200,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(models())
def test_random_models(tflite: bytes) -> None:
    check(tflite, inputs=3)


@pytest.mark.parametrize(
    ("shape", "out_c", "kernel", "options"),
    [
        ((1, 7, 6, 3), 5, (3, 3), {"stride": (2, 2)}),
        ((1, 6, 6, 3), 5, (2, 4), {}),
        ((1, 8, 8, 4), 2, (3, 3), {}),
        ((1, 1, 1, 5), 7, (1, 1), {}),
        ((1, 1, 1, 5), 7, (3, 3), {}),
        ((1, 7, 7, 3), 4, (1, 1), {"stride": (3, 3)}),
        ((1, 9, 9, 2), 4, (2, 2), {"stride": (4, 3), "padding": VALID}),
        ((1, 5, 5, 7), 3, (3, 3), {"extreme": True}),
        ((1, 5, 5, 7), 3, (3, 3), {"per_tensor": True, "bias": False}),
        ((1, 5, 5, 7), 3, (3, 3), {"out_scale": 1e-4}),
        ((1, 9, 8, 3), 6, (3, 3), {"dilation": (2, 3)}),
        ((1, 1, 30, 3), 6, (1, 5), {"dilation": (1, 2)}),
        ((1, 6, 5, 3), 0, (3, 3), {"multiplier": 1, "stride": (2, 1)}),
        ((1, 6, 5, 3), 0, (3, 3), {"multiplier": 3}),
        ((1, 6, 5, 4), 0, (3, 2), {"multiplier": 2, "dilation": (2, 2)}),
        ((1, 12, 1, 8), 0, (5, 1), {"multiplier": 1, "padding": VALID}),
        ((1, 3, 3, 5), 0, (1, 1), {"multiplier": 1, "stride": (2, 2)}),
    ],
)
@pytest.mark.parametrize("activation", [NONE, RELU])
def test_convolutions(
    shape: tuple[int, ...],
    out_c: int,
    kernel: tuple[int, int],
    options: dict[str, Any],
    activation: int,
) -> None:
    build, rng, x = starting(shape)
    y = add_conv(build, rng, x, out_c, kernel, activation=activation, **options)
    check(build.finish([x], [y]))


@pytest.mark.parametrize("zero", [-128, 0, 127])
def test_extreme_accumulators(zero: int) -> None:
    build, rng, x = starting((1, 6, 6, 16), zero)
    y = add_conv(build, rng, x, 8, (5, 5), extreme=True)
    y = add_conv(build, rng, y, 8, (3, 3), extreme=True, per_tensor=True)
    check(build.finish([x], [y]), inputs=30)


@pytest.mark.parametrize(
    ("pads", "fused"), [((1, 1, 1, 1), 1), ((0, 1, 0, 1), 1), ((3, 3, 0, 0), 0)]
)
def test_padding_before_a_convolution_becomes_part_of_it(
    pads: tuple[int, int, int, int], fused: int
) -> None:
    build, rng, x = starting((1, 6, 6, 3))
    top, bottom, left, right = pads
    padded = build.tensor((1, 6 + top + bottom, 6 + left + right, 3), 0.04, -3, name="padded")
    table = build.constant([[0, 0], [top, bottom], [left, right], [0, 0]])
    build.op("PAD", [x, table], padded)
    y = add_conv(build, rng, padded, 4, (3, 3), stride=(2, 2), padding=VALID)
    tflite = build.finish([x], [y])
    check(tflite)
    assert verify(tflite, inputs=1).fused == ("padded",) * fused


@pytest.mark.parametrize(("cells", "after", "fused"), [(1, 2, 0), (2, 2, 0), (3, 2, 0), (2, 1, 1)])
def test_padding_that_a_last_window_would_lie_in_stays(cells: int, after: int, fused: int) -> None:
    """SAME pads a window of 4 by 1 in front and 2 behind, beside what PAD adds."""
    build, rng, x = starting((1, 1, cells, 2))
    padded = build.tensor((1, 1, cells + after, 2), 0.04, -3, name="padded")
    table = build.constant([[0, 0], [0, 0], [0, after], [0, 0]])
    build.op("PAD", [x, table], padded)
    y = add_conv(build, rng, padded, 3, (1, 4))
    tflite = build.finish([x], [y])
    check(tflite)
    assert verify(tflite, inputs=1).fused == ("padded",) * fused


@pytest.mark.parametrize("depthwise", [False, True])
def test_space_to_batch_becomes_dilation(depthwise: bool) -> None:
    build, rng, x = starting((1, 8, 7, 3))
    apart = build.tensor((6, 6, 4, 3), 0.04, -3, name="apart")
    build.op(
        "SPACE_TO_BATCH_ND",
        [x, build.constant([2, 3]), build.constant([[2, 2], [3, 2]])],
        apart,
    )
    inner = add_conv(
        build, rng, apart, 5, (3, 3), padding=VALID, multiplier=1 if depthwise else None
    )
    out_c = build.tensors[inner]["shape"][-1]
    build.tensors[inner]["shape"] = (6, 4, 2, out_c)
    y = build.tensor(
        (1, 8, 6, out_c), build.tensors[inner]["scales"], build.tensors[inner]["zeros"]
    )
    build.op(
        "BATCH_TO_SPACE_ND",
        [inner, build.constant([2, 3]), build.constant([[0, 0], [0, 0]])],
        y,
    )
    tflite = build.finish([x], [y])
    check(tflite)
    assert len(verify(tflite, inputs=1).fused) == 2


def test_one_dimensional_dilation_through_reshapes() -> None:
    build, rng, x = starting((1, 20, 3))
    apart = build.tensor((2, 12, 3), 0.04, -3)
    build.op("SPACE_TO_BATCH_ND", [x, build.constant([2]), build.constant([[2, 2]])], apart)
    wide = build.tensor((2, 1, 12, 3), 0.04, -3)
    build.op("EXPAND_DIMS", [apart, build.constant(1)], wide)
    inner = add_conv(build, rng, wide, 5, (1, 3), padding=VALID)
    scale, zero = build.tensors[inner]["scales"], build.tensors[inner]["zeros"]
    build.tensors[inner]["shape"] = (2, 1, 10, 5)
    narrow = build.tensor((2, 10, 5), scale, zero)
    build.op("RESHAPE", [inner, build.constant([2, 10, 5])], narrow)
    y = build.tensor((1, 20, 5), scale, zero)
    build.op("BATCH_TO_SPACE_ND", [narrow, build.constant([2]), build.constant([[0, 0]])], y)
    check(build.finish([x], [y]))


def test_dense_layer_at_every_position() -> None:
    build, rng, x = starting((1, 4, 6))
    weights = rng.integers(-127, 128, (5, 6), np.int8)
    w = build.tensor((5, 6), 0.01, data=weights)
    y = build.tensor((1, 4, 5), 0.2, 4)
    build.op(
        "FULLY_CONNECTED", [x, w, -1], y,
        FusedActivationFunction=NONE, WeightsFormat=0, KeepNumDims=True,
    )  # fmt: skip
    check(build.finish([x], [y]))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_conversions_at_the_border_are_stripped(dtype: str) -> None:
    build, rng, _ = starting((1, 1))
    if dtype == "uint8":
        x = build.tensor((1, 6, 6, 2), 0.05, 125, dtype="uint8", name="outer")
    else:
        x = build.tensor((1, 6, 6, 2), dtype="float32", name="outer")
    inner = build.tensor((1, 6, 6, 2), 0.05, -3)
    build.op("QUANTIZE", [x], inner)
    y = add_dense(build, rng, add_mean(build, rng, add_conv(build, rng, inner, 4, (3, 3))), 3)
    out = build.tensor((1, 3), dtype="float32", name="real")
    build.op("DEQUANTIZE", [y], out)
    tflite = build.finish([x], [out])
    check(tflite)
    assert Model(compile_model(tflite)).frame_dtype == ("uint8" if dtype == "uint8" else "int8")


def test_several_outputs_stay_readable() -> None:
    build, rng, x = starting((1, 6, 6, 2))
    a = add_conv(build, rng, x, 4, (3, 3), activation=RELU)
    b = add_pool(build, a, "MAX_POOL_2D", (2, 2), (2, 2), SAME)
    c = add_dense(build, rng, add_mean(build, rng, b), 3, name="logits")
    tflite = build.finish([x], [b, c, a])
    check(tflite)
    model = Model(compile_model(tflite))
    frame = rng.integers(-128, 128, (6, 6, 2), np.int8)
    during = dict(model.tensors(frame))
    for tensor in model.meta["outputs"]:
        assert np.array_equal(model.tensor(tensor), during[tensor])


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_concatenation(axis: int) -> None:
    build, rng, x = starting((1, 4, 5, 3))
    other = add_conv(build, rng, x, 3, (3, 3), out_scale=0.04)
    build.tensors[other]["zeros"] = np.array([-3])
    shape = [1, 4, 5, 3]
    shape[axis] *= 3
    y = build.tensor(tuple(shape), 0.04, -3)
    build.op("CONCATENATION", [x, other, x], y, Axis=axis, FusedActivationFunction=NONE)
    check(build.finish([x], [y]))


def test_a_blob_of_another_model_is_refused() -> None:
    build, rng, x = starting((1, 3, 3, 2))
    first = build.finish([x], [add_conv(build, rng, x, 2, (1, 1))])
    second = build.finish([x], [add_conv(build, rng, x, 2, (1, 1))])
    blob = compile_model(first, cam=False)
    with pytest.raises(VerifyError, match="not compiled from this"):
        verify(second, blob=blob)


def test_a_difference_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    build, rng, x = starting((1, 3, 3, 2))
    tflite = build.finish([x], [add_conv(build, rng, x, 2, (1, 1))])
    honest = Model.tensors

    def off_by_one(self: Model, frame: Any, **options: Any) -> Any:
        for number, content in honest(self, frame, **options):
            changed = content.copy()
            changed[0, 0, 0] ^= 1
            yield number, changed

    monkeypatch.setattr(Model, "tensors", off_by_one)
    report = verify(tflite, inputs=5)
    assert (report.mismatches, report.tensors[0].mismatches, report.tensors[0].largest) == (5, 5, 1)


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_models(name: str) -> None:
    check((MODELS / name / "model.tflite").read_bytes(), inputs=10)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE)
def test_reference_models_at_length(name: str) -> None:
    check((MODELS / name / "model.tflite").read_bytes(), inputs=1000)


def test_digits_on_random_and_real_inputs() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
    from drip.data import digits

    tflite = (MODELS / "digits" / "model.tflite").read_bytes()
    report = verify(tflite, inputs=1000, real=digits().x[:500])
    assert report.inputs == 1500
    assert report.mismatches == 0
    assert report.compared == 1500 * (8 * 8 * 16 + 4 * 4 * (16 + 24 + 24) + 24 + 10)
