"""Models that users bring: found heads, exact arithmetic, true Grad-CAM, or one clear line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import own_models as own
import pytest
import tflite_builder as tb
from numpy.typing import NDArray

from drip import cli
from drip.compile import InputSpec, compile_model
from drip.compile.frames import guess_scaling
from drip.core import Model
from drip.data import Dataset, InputScaling, digits, save_npz
from drip.errors import ModelError
from drip.inspect import BlobInfo, inspect_blob

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")

INPUTS = 50


def with_tensorflow(function: Any) -> Any:
    """Mark a test that needs TensorFlow and tflite-micro, which takes its time."""
    for name, extra in (("tensorflow", "train"), ("tflite_micro", "verify")):
        missing = importlib.util.find_spec(name) is None
        reason = f"needs {name}: pip install .[{extra}]"
        function = pytest.mark.skipif(missing, reason=reason)(function)
    return pytest.mark.slow(function)


def exact(tflite: bytes, blob: bytes) -> BlobInfo:
    """Assert that every tensor is tflite-micro's for INPUTS inputs."""
    from drip.verify import verify

    report = verify(tflite, inputs=INPUTS, blob=blob)
    assert report.compared >= INPUTS * 10
    assert [t.name for t in report.tensors if t.mismatches] == []
    return inspect_blob(blob)


def refused(tflite: bytes, message: str, hint: str, **options: Any) -> None:
    with pytest.raises(ModelError) as caught:
        compile_model(tflite, **options)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def frames_of(model: Any, count: int = 40) -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, *model.input_shape[1:])).astype(np.uint8)


def converted(model: Any, classes: int = 4) -> bytes:
    from drip.convert import convert

    names = tuple(f"class {c}" for c in range(classes))
    scaling = InputScaling("uint8", 1 / 255)
    return convert(model, frames_of(model), scaling=scaling, classes=names)


# ---------------------------------------------------------------- without TensorFlow


def max_model(**scales: Any) -> bytes:
    """A map, its largest values, logits."""
    rng = np.random.default_rng(0)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 5, 4, 2), 0.04, -3, name="in")
    y = tb.add_conv(build, rng, x, 6, (3, 3), activation=tb.RELU)
    t = build.tensors[y]
    out = build.tensor((1, 6), scales.get("scale", t["scales"]), t["zeros"], name="largest")
    y = build.op("REDUCE_MAX", [y, build.constant([1, 2])], out, KeepDims=False)
    return build.finish([x], [tb.add_dense(build, rng, y, 3, name="logits")])


def test_global_max_pooling_is_max_pooling() -> None:
    info = inspect_blob(compile_model(max_model()))
    assert [layer.kind for layer in info.layers] == ["CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED"]
    assert (info.cam_head, info.features) == ("direct", (5, 4, 6))
    refused(max_model(scale=0.5), "changes the scale", "quantise")


@pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="needs tflite-micro: pip install .[verify]",
)
def test_global_max_pooling_is_exact() -> None:
    tflite = max_model()
    exact(tflite, compile_model(tflite))


def class_maps() -> bytes:
    rng = np.random.default_rng(0)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 6, 6, 2), 0.04, -3, name="in")
    y = tb.add_conv(build, rng, x, 5, (3, 3))
    build.tensors[y]["name"] = "maps"
    return build.finish([x], [tb.add_mean(build, rng, y)])


def test_maps_that_are_pooled_to_logits_are_the_evidence() -> None:
    model = Model(compile_model(class_maps()))
    frame = np.random.default_rng(0).integers(-128, 128, (6, 6, 2), np.int8)
    _, features = model.run(frame[None], quantised=True)
    tensor = next(t for t in inspect_blob(model.blob).tensors if t.name == "maps")
    assert features is not None and tensor.shape == (6, 6, 5)
    for c in range(5):
        units, _ = model.cam_units(frame, c, quantised=True)
        centred = features[0, :, :, c].astype(np.int64)
        # One class, one channel: the map of a class is its channel.
        order = [np.argsort(a.ravel(), kind="stable") for a in (units, centred)]
        assert np.array_equal(*order)


def image_model(scale: float, zero: int, dtype: str = "int8") -> bytes:
    rng = np.random.default_rng(0)
    build = tb.TfliteBuilder()
    outer = x = build.tensor((1, 6, 6, 3), scale, zero, name="in")
    if dtype == "float32":
        outer = build.tensor((1, 6, 6, 3), dtype="float32", name="outer")
        build.op("QUANTIZE", [outer], x)
    y = tb.add_mean(build, rng, tb.add_conv(build, rng, x, 4, (3, 3), activation=tb.RELU))
    return build.finish([outer], [tb.add_dense(build, rng, y, 3)])


@pytest.mark.parametrize(
    ("scale", "zero"), [(1 / 255, -128), (1.0, -128), (2 / 255, 0), (4.3 / 255, -20)]
)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_images_fill_the_range_of_a_model_that_does_not_say(
    scale: float, zero: int, dtype: str
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype(np.uint8)
    tflite = image_model(scale, zero, dtype)
    scaling = guess_scaling(tflite, frames, InputScaling("uint8", 1 / 255))
    model = Model(compile_model(tflite, spec=InputSpec(scaling)))
    # A symmetric range has its zero half a step beside the middle.
    assert np.abs(model.quantise(frames[0]) - (frames[0].astype(int) - 128)).max() <= (zero == 0)
    usual = {(1 / 255, -128): 1 / 255, (1.0, -128): 1.0}.get((scale, zero))
    assert usual is None or scaling == InputScaling("uint8", usual)


@pytest.mark.parametrize(("scale", "zero", "expected"), [(2 / 255, 0, 1 / 128), (1.0, 0, 1.0)])
def test_signed_frames_too(scale: float, zero: int, expected: float) -> None:
    frames = np.random.default_rng(0).integers(-128, 128, (20, 6, 6, 3)).astype(np.int8)
    tflite = image_model(scale, zero)
    assert guess_scaling(tflite, frames, InputScaling("int8", 0.1)).scale == expected


def test_frames_that_miss_an_end_of_the_range_are_scaled_as_usual() -> None:
    """Representative frames up to 240: the model was quantised to 0.94, a 255 would be 1."""
    frames = np.random.default_rng(0).integers(0, 241, (20, 6, 6, 3)).astype(np.uint8)
    tflite = image_model(240 / 255 / 255, -128)
    assert guess_scaling(tflite, frames, InputScaling("uint8", 0.1)).scale == 1 / 255


def test_frames_that_cannot_be_what_a_model_was_trained_on_are_refused() -> None:
    usual = InputScaling("int16", 1 / 1000)
    wide = np.random.default_rng(0).normal(0, 1000, (20, 6, 6, 3)).astype(np.int16)
    assert guess_scaling(image_model(8 / 255, 0), wide, usual) == usual
    for tflite, frames, says in (
        (image_model(1 / 255, -128), np.full((4, 6, 6, 3), 9, np.uint8), "fill 0.0% of"),
        (image_model(1 / 255, -128), digits().x[:4, 1:7, 1:7].repeat(3, 3), "fill 6"),
        (image_model(0.5 / 255, 0), wide, "lie outside of"),
    ):
        with pytest.raises(ModelError, match=says) as caught:
            guess_scaling(tflite, frames, usual)
        assert "[preprocessing]" in caught.value.hint


def test_an_operator_that_stayed_float_is_named() -> None:
    rng = np.random.default_rng(0)
    build = tb.TfliteBuilder()
    x = build.tensor((1, 6, 6, 3), 0.1, name="in")
    y = tb.add_conv(build, rng, x, 4, (3, 3))
    real = build.tensor((1, 6, 6, 4), dtype="float32", name="real")
    build.op("DEQUANTIZE", [y], real)
    waves = build.tensor((1, 6, 6, 4), dtype="float32", name="waves")
    build.op("RSQRT", [real], waves)
    again = build.tensor((1, 6, 6, 4), 0.1, name="again")
    build.op("QUANTIZE", [waves], again)
    tflite = build.finish([x], [tb.add_dense(build, rng, again, 3)])
    refused(tflite, "operator RSQRT (waves) stays in float", "BatchNormalization")


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("LEAKY_RELU", "ReLU6"), ("SUB", "drip.toml"), ("TRANSPOSE", "attention"), ("SIN", "CONV_2D")],
)
def test_an_operator_without_a_kernel_is_named_with_what_to_do(kind: str, hint: str) -> None:
    build = tb.TfliteBuilder()
    x, y = build.tensor((1, 4), 0.1), build.tensor((1, 4), 0.1, name="there")
    build.op(kind, [x], y)
    refused(build.finish([x], [y]), f"operator {kind} (there) is not supported", hint)


def test_five_axes_are_not_taken_for_a_batch() -> None:
    build = tb.TfliteBuilder()
    x = build.tensor((1, 4, 4, 2), 0.1, name="in")
    y = build.tensor((1, 4, 1, 4, 2), 0.1, name="wide")
    build.op("RESHAPE", [x, build.constant([1, 4, 1, 4, 2])], y)
    refused(build.finish([x], [y]), "wide has 5 axes", "at most batch")


def test_a_dynamic_batch_is_refused_with_the_line_that_fixes_it() -> None:
    build = tb.TfliteBuilder()
    x = build.tensor((1, 8, 8, 3), 0.1, signature=(-1, 8, 8, 3), name="frame")
    y = tb.add_conv(build, np.random.default_rng(0), x, 2, (3, 3))
    refused(build.finish([x], [y]), "frame has a dynamic shape", "batch_shape=(1, 8, 8, 3)")


# ---------------------------------------------------------------- converted by drip convert


HEADS: dict[str, tuple[Any, str, tuple[int, int, int]]] = {
    "applications": (own.mobilenet, "direct", (3, 3, 256)),
    "applications with softmax": (
        lambda: own.mobilenet(classifier_activation="softmax"), "direct", (3, 3, 256),
    ),
    "applications without top": (own.mobilenet_without_top, "direct", (3, 3, 256)),
    "nested body": (own.nested_body, "direct", (3, 3, 256)),
    "nested head": (own.nested_head, "direct", (3, 3, 12)),
    "sequential": (own.sequential, "direct", (3, 3, 12)),
    "explicit padding": (own.explicit_padding, "direct", (4, 4, 8)),
    "dilated": (own.dilated, "direct", (12, 12, 8)),
    "dilated in time": (own.dilated_in_time, "direct", (1, 40, 8)),
    "separable in time": (own.separable_in_time, "direct", (1, 8, 8)),
    "residual": (own.residual, "direct", (8, 8, 8)),
    "two hidden": (own.two_hidden, "hidden", (6, 6, 24)),
    "joined": (own.joined, "direct", (8, 8, 14)),
}  # fmt: skip


@with_tensorflow
@pytest.mark.parametrize("name", HEADS)
def test_a_model_of_ones_own(name: str) -> None:
    build, kind, features = HEADS[name]
    tflite = converted(own.shake(build()))
    blob = compile_model(tflite)
    info = exact(tflite, blob)
    assert (info.cam_head, info.features) == (kind, features)
    assert info.classes == ("class 0", "class 1", "class 2", "class 3")
    model = Model(blob)
    assert model.selftest() > 0
    scores = model.score_all(frames_of(build())[:5])
    assert set(scores.class_1) <= set(range(4))


@with_tensorflow
def test_models_that_run_without_grad_cam_say_so() -> None:
    tflite = converted(own.shake(own.dense_only()))
    refused(tflite, "there is no feature map", "--no-cam")
    assert exact(tflite, compile_model(tflite, cam=False)).cam_head == "none"


@with_tensorflow
def test_models_that_do_not_run_say_why() -> None:
    for build, message, hint in (
        (own.layer_normalised, "stays in float", ""),
        (lambda: own.activated("leaky_relu"), "operator LEAKY_RELU", "ReLU6"),
        (lambda: own.activated("tanh"), "operator TANH", "ReLU6"),
        (own.normalised_input, "operator SUB", "Normalization"),
        (own.enlarged, "has 5 axes", "UpSampling"),
    ):
        refused(converted(own.shake(build())), message, hint)
    with pytest.raises(ModelError, match="recurrent"):
        converted(own.recurrent())


# ---------------------------------------------------------------- converted without DRIP


def real_frames(model: Any) -> NDArray[np.float32]:
    return frames_of(model).astype(np.float32) / 255


def body_with_softmax() -> Any:
    return own.mobilenet(classifier_activation="softmax")


@with_tensorflow
@pytest.mark.parametrize("border", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("build", [own.sequential, body_with_softmax])
def test_a_tflite_that_only_has_class_probabilities(build: Any, border: str) -> None:
    model = own.shake(build())
    tflite = own.directly(model, real_frames(model), border=border)
    frames = frames_of(model)
    scaling = guess_scaling(tflite, frames, InputScaling("uint8", 1 / 255))
    blob = compile_model(tflite, spec=InputSpec(scaling, tuple("abcd")))
    info = exact(tflite, blob)
    assert info.cam_head == "direct"
    assert info.features == ((3, 3, 12) if build is own.sequential else (3, 3, 256))
    assert scaling.scale == pytest.approx(1 / 255, rel=0.01)
    # Quantised or not, most answers are the same; what differs is close.
    real = np.asarray(model(real_frames(model)))
    core = Model(blob)
    chosen = core.score_all(frames).class_1
    regret = real.max(axis=1) - real[np.arange(len(real)), chosen]
    assert np.median(regret) == 0
    assert (chosen == real.argmax(axis=1)).mean() > 0.8


@with_tensorflow
def test_other_tflite_files_of_the_converter() -> None:
    for build in (own.explicit_padding, own.dilated, own.dilated_in_time, own.joined):
        model = own.shake(build())
        tflite = own.directly(model, real_frames(model))
        assert exact(tflite, compile_model(tflite)).cam_head == "direct"
    model = own.shake(own.sequential())
    for options, message, hint in (
        ({"batch": None}, "dynamic shape [-1, 8, 8, 1]", "batch_shape=(1, 8, 8, 1)"),
        ({"batch": 4}, "has shape [4,", "batch size of 1"),
        ({"quantisation": "none"}, "is a float model", "full int8"),
        ({"quantisation": "none", "batch": None}, "is a float model", "full int8"),
    ):
        refused(own.directly(model, real_frames(model), **options), message, hint)
    # Small models stay float under dynamic range quantisation; this one has weights to quantise.
    tflite = own.directly(own.nested_body(), real_frames(own.nested_body()), quantisation="dynamic")
    refused(tflite, "hybrid quantisation", "full int8")


# ---------------------------------------------------------------- Grad-CAM


@with_tensorflow
@pytest.mark.parametrize("name", list(own.heads(1)) if importlib.util.find_spec("keras") else [])
def test_integer_cam_orders_digits_as_the_gradient_does(name: str) -> None:
    from test_cam_float import float_scores, spearman

    from drip.convert import convert
    from drip.data import DIGITS_SCALING
    from drip.train import train

    data = digits()
    fit, test = data.take(np.arange(900)), data.take(np.arange(900, 1797))

    def build(input_shape: tuple[int, ...], classes: int) -> Any:
        return own.with_head(*own.heads(classes)[name])

    trained = train(build, fit, steps=300, seed=1, scaling=DIGITS_SCALING).model
    tflite = convert(trained, fit.x, scaling=DIGITS_SCALING, classes=data.classes)
    model = Model(compile_model(tflite))
    scores = model.score_all(test.x)
    chosen = scores.class_1
    assert (chosen == test.y).mean() > 0.8
    for minus in (None, scores.class_2):
        ours = np.empty(len(test))
        for n, frame in enumerate(test.x):
            other = None if minus is None else int(minus[n])
            units, total = model.cam_units(frame, int(chosen[n]), other)
            ours[n] = total * model.cam_scale / units.size
        real = float_scores(trained, DIGITS_SCALING.apply(test.x), chosen, minus)
        assert ((ours > 0) == (real > 0)).mean() > 0.98
        some = (ours > 0) & (real > 0)
        # Of a flat head, few classes have evidence by themselves; all have more than another one.
        assert some.sum() > (20 if minus is None else 300)
        assert spearman(ours[some], real[some]) >= 0.995


# ---------------------------------------------------------------- the commands


OWN_LAYER = '''
import keras


class Squeeze(keras.layers.Layer):
    """A layer that Keras does not know."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.inner = keras.layers.Conv2D(units, 1, activation="relu")

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def build(input_shape, classes):
    return keras.Sequential([
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        Squeeze(24),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(classes, activation="softmax"),
    ])
'''


@with_tensorflow
def test_a_file_with_a_layer_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not built, not functional, ending in softmax, with a layer Keras cannot find by itself."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(OWN_LAYER)
    data = digits()
    save_npz("data.npz", Dataset(data.x * 15, data.y, data.classes))
    train = ["train", "--data", "data.npz", "--model", "my.py:build", "--steps", "300"]
    assert cli.main([*train, "-o", "my.keras"]) == 0
    assert "accuracy 0." in capsys.readouterr().out
    convert = ["convert", "my.keras", "--representative", "data.npz"]
    assert cli.main(convert) == ModelError.exit_code
    message = capsys.readouterr().err
    assert "uses Squeeze" in message and "--model my.py:build" in message
    assert cli.main([*convert, "--model", "my.py:build"]) == 0
    assert "input = uint8 frame * 0.00392157 + 0" in capsys.readouterr().out
    assert cli.main(["compile", "my.tflite", "--data", "data.npz"]) == 0
    assert cli.main(["verify", "my.tflite", "--inputs", str(INPUTS)]) == 0
    assert cli.main(["run", "my.drip", "data.npz", "--limit", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    right = int(next(line for line in lines if "labelled" in line).split(";")[1].split()[0])
    assert right > 200


@with_tensorflow
def test_frames_without_labels_are_enough_to_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = own.shake(own.sequential())
    model.save("other.keras")
    np.savez("frames.npz", x=frames_of(model))
    assert cli.main(["convert", "other.keras", "--representative", "frames.npz"]) == 0
    assert cli.main(["compile", "other.tflite"]) == 0
    assert cli.main(["inspect", "other.drip", "--json", "facts.json"]) == 0
    facts = inspect_blob(Path("other.drip").read_bytes())
    assert facts.classes == ("0", "1", "2", "3")
    assert facts.cam_head == "direct"
