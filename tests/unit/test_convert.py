"""Models: builders, training and conversion to int8 with a Grad-CAM head."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip.convert import convert, convert_file, features_tensor, read_metadata
from drip.data import DIGITS_SCALING, Dataset, InputScaling, digits, split
from drip.errors import (
    DataError,
    MissingDependencyError,
    ModelError,
    UsageError,
    install_hint,
)
from drip.models import BUILDERS, backend, load_builder

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits" / "model.tflite"

# Frame, classes, features.
SHAPES: dict[str, tuple[tuple[int, ...], int, tuple[int, ...] | None]] = {
    "cnn": ((8, 8, 1), 10, (4, 4, 24)),
    "cnn-hidden": ((28, 28, 1), 10, (7, 7, 24)),
    "cnn-flatten": ((16, 12, 3), 4, (8, 6, 24)),
    "conv1d": ((50, 6), 5, (13, 32)),
    "ds-cnn": ((49, 10, 1), 12, (25, 5, 64)),
    "mobilenet": ((96, 96, 3), 2, (3, 3, 256)),
    "resnet8": ((32, 32, 3), 10, (8, 8, 64)),
    "wakeword": ((30, 1, 40), 3, (15, 1, 128)),
    "autoencoder": ((640,), 1, None),
}

# The published nets of MLPerf Tiny: a wrong stride, kernel or width shows here.
PUBLISHED_MACS = {
    "ds-cnn": 2_656_768,
    "mobilenet": 7_489_664,
    "resnet8": 12_501_632,
    "wakeword": 826_368,
    "autoencoder": 264_192,
}


def needs_tensorflow() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")


def outputs_of(blob: bytes) -> list[tuple[str, tuple[int, ...], int]]:
    """(name, shape, type code) of each output, in order."""
    import tflite

    graph = tflite.Model.GetRootAs(blob, 0).Subgraphs(0)
    tensors = [graph.Tensors(i) for i in graph.OutputsAsNumpy()]
    return [(t.Name().decode(), tuple(t.ShapeAsNumpy().tolist()), t.Type()) for t in tensors]


def macs_of(blob: bytes) -> int:
    """Multiplications of one inference, padded taps included."""
    import tflite

    model = tflite.Model.GetRootAs(blob, 0)
    graph = model.Subgraphs(0)
    total = 0
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        code = model.OperatorCodes(op.OpcodeIndex()).BuiltinCode()
        out = graph.Tensors(op.Outputs(0)).ShapeAsNumpy()
        if code in (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.FULLY_CONNECTED):
            total += int(np.prod(out) * np.prod(graph.Tensors(op.Inputs(1)).ShapeAsNumpy()[1:]))
        elif code == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:
            total += int(np.prod(out) * np.prod(graph.Tensors(op.Inputs(1)).ShapeAsNumpy()[1:3]))
    return total


def interpreter(blob: bytes) -> Any:
    micro = pytest.importorskip("tflite_micro", reason="needs tflite-micro: pip install .[verify]")
    return micro.runtime.Interpreter.from_bytes(blob)


def run_int8(blob: bytes, raw: Any, scaling: InputScaling) -> list[Any]:
    """Dequantised outputs of tflite-micro for raw frames, one array per output."""
    micro = interpreter(blob)
    into = micro.get_input_details(0)["quantization_parameters"]
    results: list[list[Any]] = []
    for frame in raw:
        real = scaling.apply(frame[np.newaxis])
        q = np.round(real / into["scales"][0]) + into["zero_points"][0]
        micro.set_input(np.clip(q, -128, 127).astype(np.int8), 0)
        micro.invoke()
        row = []
        for i in range(len(outputs_of(blob))):
            at = micro.get_output_details(i)["quantization_parameters"]
            row.append((micro.get_output(i).astype(float) - at["zero_points"][0]) * at["scales"][0])
        results.append(row)
    return [np.concatenate([row[i] for row in results]) for i in range(len(results[0]))]


def test_reference_model_matches_its_manifest() -> None:
    blob = DIGITS.read_bytes()
    manifest = json.loads((MODELS / "digits" / "manifest.json").read_text())
    entry = manifest["files"]["model.tflite"]
    assert entry == {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
    assert len(blob) < 30_000
    fields = read_metadata(blob)
    assert fields["classes"] == list("0123456789")
    assert fields["frame_shape"] == [8, 8, 1]
    assert InputScaling.from_json(fields) == DIGITS_SCALING
    assert fields["data_digest"] == manifest["data_digest"]
    assert fields["seed"] == 0
    int8 = 9
    assert outputs_of(blob) == [("logits", (1, 10), int8), ("features", (1, 4, 4, 24), int8)]


def test_reference_model_recognises_unseen_digits() -> None:
    parts = split(digits(), seed=0, fit=900, calibration=1, stream=1, test=400)
    assert parts.fit.digest() == read_metadata(DIGITS.read_bytes())["data_digest"]
    logits, features = run_int8(DIGITS.read_bytes(), parts.test.x, DIGITS_SCALING)
    assert (logits.argmax(axis=1) == parts.test.y).mean() > 0.97
    assert features.shape == (400, 4, 4, 24)
    assert features.min() == 0.0


def test_metadata_of_other_files() -> None:
    blob = DIGITS.read_bytes()
    for bad in (b"", b"TFL3", b"hello world, this is text", blob[:4], blob[:40], blob[:2000]):
        with pytest.raises(ModelError) as caught:
            read_metadata(bad)
        assert "\n" not in caught.value.message and caught.value.hint


def test_damaged_metadata_is_refused_or_unread() -> None:
    blob = bytearray(DIGITS.read_bytes())
    whole = read_metadata(bytes(blob))
    rng = np.random.default_rng(0)
    for at in [*range(64), *rng.integers(0, len(blob), 400)]:
        damaged = bytearray(blob)
        damaged[at] ^= 0xFF
        try:
            fields = read_metadata(bytes(damaged))
        except ModelError as error:
            assert "\n" not in error.message
        else:
            assert fields in ({}, whole) or fields.keys() | whole.keys()


def test_builder_names_and_files(tmp_path: Path) -> None:
    assert set(SHAPES) == set(BUILDERS)
    assert load_builder("cnn") is BUILDERS["cnn"]
    (tmp_path / "my.py").write_text("def build(input_shape, classes):\n    return classes\n")
    assert load_builder(f"{tmp_path}/my.py:build")((1,), 7) == 7
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    for spec, says in [
        ("nosuch", "nosuch"),
        ("missing.py:build", "missing.py"),
        (f"{tmp_path}/my.py:other", "other"),
        (f"{tmp_path}/broken.py:build", "no_such_module"),
        (f"{tmp_path}/my.py", "my.py"),
    ]:
        with pytest.raises(ModelError) as caught:
            load_builder(spec)
        assert says in caught.value.message and caught.value.hint


def test_missing_tensorflow_names_the_supported_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    backend._load.cache_clear()
    try:
        with pytest.raises(MissingDependencyError) as caught:
            backend.tensorflow()
    finally:
        backend._load.cache_clear()
    assert install_hint("train") in caught.value.hint
    assert "3.10 to 3.13" in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SHAPES))
def test_every_builder_converts(name: str) -> None:
    needs_tensorflow()
    frame, classes, features = SHAPES[name]
    model = BUILDERS[name](frame, classes)
    raw = np.random.default_rng(0).integers(-128, 128, (8, *frame)).astype(np.int8)
    blob = convert(
        model,
        raw,
        scaling=InputScaling("int8", 1 / 128),
        classes=tuple(str(c) for c in range(classes)),
        metadata={"seed": 5},
    )
    int8 = 9
    outputs = 640 if name == "autoencoder" else classes
    wanted = [("logits", (1, outputs), int8)]
    if features is not None:
        wanted.append(("features", (1, *features), int8))
    assert outputs_of(blob) == wanted
    assert read_metadata(blob)["seed"] == 5
    names = [] if name == "autoencoder" else [str(c) for c in range(classes)]
    assert read_metadata(blob)["classes"] == names
    if name in PUBLISHED_MACS:
        assert macs_of(blob) == PUBLISHED_MACS[name]
    # Interpreters that map the file read int32 biases in place: every buffer must be aligned.
    import tflite

    flat = tflite.Model.GetRootAs(blob, 0)
    starts = [
        flat.Buffers(i)._tab.Vector(flat.Buffers(i)._tab.Offset(4))
        for i in range(flat.BuffersLength())
        if flat.Buffers(i).DataLength()
    ]
    assert {start % 16 for start in starts} == {0}
    interpreter(blob).invoke()


@pytest.mark.slow
def test_training_repeats_byte_for_byte() -> None:
    needs_tensorflow()
    from drip.train import train

    parts = split(digits(), seed=0, fit=200, calibration=50, stream=100, test=400)
    progress: list[tuple[int, int]] = []

    def once(seed: int) -> tuple[bytes, Any]:
        result = train(
            BUILDERS["cnn"],
            parts.fit,
            validation=parts.test,
            steps=125,
            batch=32,
            seed=seed,
            scaling=DIGITS_SCALING,
            on_progress=lambda done, total: progress.append((done, total)),
            augment=lambda x, rng: x + rng.normal(0, 0.02, x.shape).astype(np.float32),
        )
        blob = convert(result.model, parts.fit.x, scaling=DIGITS_SCALING, classes=parts.fit.classes)
        return blob, result

    blob, result = once(1)
    assert progress == [(min(10 * i, 125), 125) for i in range(1, 14)]
    assert result.steps == 125
    assert result.epochs == 20.0
    assert result.history["step"][-1] == 125
    assert result.history["loss"][-1] < result.history["loss"][0] / 2
    assert result.history["validation_accuracy"][0] > 0.85
    assert once(1)[0] == blob
    assert once(2)[0] != blob


@pytest.mark.slow
def test_int8_agrees_with_keras() -> None:
    needs_tensorflow()
    from drip.train import predict, train

    parts = split(digits(), seed=0, fit=400, calibration=50, stream=100, test=200)
    result = train(BUILDERS["cnn-hidden"], parts.fit, steps=200, seed=0, scaling=DIGITS_SCALING)
    blob = convert(result.model, parts.fit.x, scaling=DIGITS_SCALING, classes=parts.fit.classes)
    logits, features = run_int8(blob, parts.test.x, DIGITS_SCALING)
    real = predict(result.model, parts.test.x, DIGITS_SCALING)
    assert (logits.argmax(axis=1) == real.argmax(axis=1)).mean() >= 0.97
    assert np.corrcoef(logits.ravel(), real.ravel())[0, 1] > 0.995

    spatial = backend.keras().Model(result.model.inputs, features_tensor(result.model.outputs[0]))
    real = predict(spatial, parts.test.x, DIGITS_SCALING)
    assert np.corrcoef(features.ravel(), real.ravel())[0, 1] > 0.995


@pytest.mark.slow
def test_softmax_is_left_out_and_put_back() -> None:
    needs_tensorflow()
    layers = backend.keras().layers
    raw = np.random.default_rng(0).integers(0, 17, (40, 8, 8, 1)).astype(np.uint8)
    for head in (
        [layers.Dense(5, activation="softmax")],
        [layers.Dense(5), layers.Softmax()],
        [layers.Dense(5), layers.Activation("softmax")],
    ):
        model = backend.keras().Sequential(
            [
                layers.Input((8, 8, 1)),
                layers.Conv2D(6, 3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                *head,
            ]
        )
        blob = convert(model, raw, scaling=DIGITS_SCALING, classes=tuple("abcde"))
        logits, features = run_int8(blob, raw[:4], DIGITS_SCALING)
        assert features.shape == (4, 6, 6, 6)
        assert np.abs(logits.sum(axis=1) - 1).max() > 0.1
        real = model(DIGITS_SCALING.apply(raw[:4])).numpy()
        assert np.allclose(real.sum(axis=1), 1)


@pytest.mark.slow
def test_features_of_other_heads() -> None:
    needs_tensorflow()
    k = backend.keras()
    layers = k.layers

    def shape_of(*after: Any) -> tuple[int, ...] | None:
        stem = [layers.Input((8, 8, 1)), layers.Conv2D(6, 3), layers.ReLU()]
        tensor = features_tensor(k.Sequential([*stem, *after]).outputs[0])
        return None if tensor is None else tuple(tensor.shape[1:])

    gap = layers.GlobalAveragePooling2D
    assert shape_of(gap(), layers.Dense(3)) == (6, 6, 6)
    assert shape_of(gap(), layers.Dense(4, "relu"), layers.Dropout(0.1), layers.Dense(3)) == (
        6,
        6,
        6,
    )
    assert shape_of(layers.GlobalMaxPooling2D(), layers.Dense(3)) == (6, 6, 6)
    assert shape_of(layers.AveragePooling2D(6), layers.Flatten(), layers.Dense(3)) == (6, 6, 6)
    # Pooling that leaves a map is part of the body: the map after it is what the head sees.
    assert shape_of(layers.AveragePooling2D(2), layers.Flatten(), layers.Dense(3)) == (3, 3, 6)
    # The head of keras.applications.MobileNet: a 1x1 convolution in place of the dense layer.
    assert shape_of(
        gap(keepdims=True), layers.Dropout(0.1), layers.Conv2D(3, 1), layers.Reshape((3,))
    ) == (6, 6, 6)
    dense_only = k.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    assert features_tensor(dense_only.outputs[0]) is None


@pytest.mark.slow
def test_models_that_cannot_be_converted() -> None:
    needs_tensorflow()
    k = backend.keras()
    layers = k.layers
    raw = digits().x[:5]

    class Subclassed(k.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    small = [layers.Conv2D(3, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    entry = layers.Input((8, 8, 1))
    for model, says in (
        (Subclassed(), "Subclassed"),
        (k.Sequential(small), "built sequential"),
        (k.Sequential([entry, layers.Reshape((8, 8)), layers.LSTM(3), layers.Dense(3)]), "LSTM"),
        (k.Model(entry, [layers.Flatten()(entry), layers.Dense(2)(entry)]), "2 outputs"),
        (k.Sequential([layers.Input((None, 8, 1)), *small]), "not fixed"),
    ):
        with pytest.raises(ModelError) as caught:
            convert(model, raw, scaling=DIGITS_SCALING, classes=("a", "b", "c"))
        assert says in caught.value.message and "\n" not in caught.value.message


@pytest.mark.slow
def test_keras_applications_convert_with_their_own_head() -> None:
    needs_tensorflow()
    model = backend.keras().applications.MobileNet(
        weights=None, input_shape=(64, 64, 3), alpha=0.25, classes=5
    )
    raw = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    blob = convert(model, raw, scaling=InputScaling("uint8", 1 / 255), classes=tuple("abcde"))
    assert [shape for _, shape, _ in outputs_of(blob)] == [(1, 5), (1, 2, 2, 256)]


@pytest.mark.slow
def test_keras_files(tmp_path: Path) -> None:
    needs_tensorflow()
    raw = digits().x[:50]
    model = BUILDERS["cnn"]((8, 8, 1), 10)
    model.save(tmp_path / "m.keras")
    names = tuple("0123456789")
    blob = convert_file(tmp_path / "m.keras", raw, scaling=DIGITS_SCALING, classes=names)
    assert [name for name, _, _ in outputs_of(blob)] == ["logits", "features"]
    (tmp_path / "text.keras").write_text("hello")
    for path in (tmp_path / "text.keras", tmp_path / "missing.keras"):
        with pytest.raises(ModelError) as caught:
            convert_file(path, raw, scaling=DIGITS_SCALING, classes=names)
        assert "\n" not in caught.value.message and caught.value.hint
    with pytest.raises(DataError):
        convert(model, raw[:0], scaling=DIGITS_SCALING, classes=names)
    with pytest.raises(DataError):
        convert(model, raw[:, :7], scaling=DIGITS_SCALING, classes=names)
    with pytest.raises(ModelError, match="9 class names"):
        convert(model, raw, scaling=DIGITS_SCALING, classes=names[:9])


@pytest.mark.slow
def test_training_refuses_what_cannot_be_learned() -> None:
    needs_tensorflow()
    from drip.train import train

    data = digits().take(np.arange(40))

    def failing(input_shape: tuple[int, ...], classes: int) -> Any:
        raise RuntimeError("no such layer")

    def run(builder: Any, frames: Dataset = data, steps: int = 5) -> None:
        train(builder, frames, steps=steps, seed=0, scaling=DIGITS_SCALING)

    for builder, says in (
        (failing, "no such layer"),
        (lambda shape, classes: 3, "not a keras.Model"),
        (lambda shape, classes: BUILDERS["cnn"]((9, 9, 1), classes), "[9, 9, 1]"),
        (lambda shape, classes: BUILDERS["cnn"](shape, 4), "10 classes"),
        (BUILDERS["conv1d"], "time, channels"),
    ):
        with pytest.raises(ModelError) as caught:
            run(builder)
        assert says in caught.value.message and "\n" not in caught.value.message
    with pytest.raises(DataError, match="40 of 40"):
        run(BUILDERS["cnn"], Dataset(data.x, np.full(40, -1), data.classes))
    with pytest.raises(DataError, match="no frames"):
        run(BUILDERS["cnn"], data.take([]))
    with pytest.raises(UsageError):
        run(BUILDERS["cnn"], steps=0)
