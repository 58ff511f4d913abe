"""From raw sound to a model on the board: train, convert and compile with a front-end."""

from __future__ import annotations

import numpy as np
import pytest

from drip.compile import compile_model
from drip.compile.blob import unpack_blob
from drip.data import Dataset, InputScaling, default_scaling
from drip.errors import DataError, UsageError
from drip.frontend import LogMel
from drip.wire import Section

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.core import Model

MEL = LogMel.at_rate(8000, 20)
SAMPLES = 8000


def sounds(count: int, seed: int) -> Dataset:
    """Low tones, high tones and noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    t = np.arange(SAMPLES) / 8000
    hz = np.where(y == 0, rng.uniform(200, 500, count), rng.uniform(1500, 3000, count))
    x = 4000 * np.sin(2 * np.pi * hz[:, None] * t) * (y < 2)[:, None]
    x += rng.normal(0, 1, x.shape) * np.where(y == 2, 3000, 100)[:, None]
    frames = np.round(x).astype(np.int16)[..., None]
    return Dataset(frames, y.astype(np.int64), ("low", "high", "noise"))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_windows_at_a_rate(rate: int) -> None:
    mel = LogMel.at_rate(rate)
    assert (mel.window, mel.hop) == (round(rate * 0.04), round(rate * 0.02))
    assert mel.fft // 2 < mel.window <= mel.fft
    assert LogMel.at_rate(16000) == LogMel()
    with pytest.raises(UsageError, match="no front-end"):
        LogMel.at_rate(96000)


def test_scaling_of_sound() -> None:
    data = sounds(3, 1)
    scaling = default_scaling(data, MEL)
    assert scaling == InputScaling("int16", 1 / 255, 0.0, MEL)
    assert scaling.input_shape(data.frame_shape) == (49, 20, 1)
    with pytest.raises(DataError, match="no sound"):
        scaling.input_shape((SAMPLES, 2))


@pytest.mark.slow
def test_a_keyword_model_trains_on_sound_and_runs_on_sound() -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    from drip.convert import convert, read_metadata
    from drip.models import load_builder
    from drip.train import predict, train

    data, test = sounds(150, 1), sounds(60, 2)
    scaling = default_scaling(data, MEL)
    result = train(load_builder("cnn"), data, steps=60, batch=16, seed=1, scaling=scaling)
    tflite = convert(result.model, data.x, scaling=scaling, classes=data.classes)
    metadata = read_metadata(tflite)
    assert metadata["frame_shape"] == [SAMPLES, 1]
    assert metadata["frontend"]["sample_rate"] == 8000
    blob = compile_model(tflite)
    section = unpack_blob(blob).find(Section.FRONTEND)
    assert section is not None
    assert section.content == MEL.section()
    model = Model(blob)
    assert (model.frame_shape, model.input_shape) == ((SAMPLES, 1), (49, 20))
    chosen = model.run(test.x)[0].argmax(axis=1)
    floats = predict(result.model, test.x, scaling).argmax(axis=1)
    assert (chosen == test.y).mean() > 0.9
    assert (chosen == floats).mean() > 0.95
