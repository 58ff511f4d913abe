"""What compilation refuses, in one line each."""

from __future__ import annotations

import numpy as np
import pytest
import tflite_builder as tb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import small

from drip.compile import InputSpec, compile_model
from drip.errors import DripError, ModelError

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")


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
