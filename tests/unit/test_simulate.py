"""The device in this process: what it decides, counts and logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drip.card import read_segments
from drip.data import Dataset
from drip.errors import CardError, DataError, DeviceError
from drip.wire import CardState, Config, PolicyKind, ScoreKind

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.calibrate import calibrate
from drip.compile import compile_model
from drip.core import Model
from drip.simulate import Device

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.tflite"
NO_CHANCE = {Config.RANDOM_SHARE: 0}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
    from drip.data import digits as load

    return load()


@pytest.fixture(scope="module")
def blob(digits: Dataset) -> bytes:
    plain = compile_model(DIGITS.read_bytes())
    return calibrate(plain, digits.take(np.arange(600)), target_ratio=0.3).blob


def test_decisions_are_the_calibrated_ones(blob: bytes, digits: Dataset) -> None:
    frames = digits.x[600:800]
    results = Device(blob, settings=NO_CHANCE).run(frames)
    model = Model(blob)
    for frame, result in zip(frames, results, strict=True):
        score = model.score(frame, ScoreKind.CAM_EVIDENCE)
        assert (result.raw_score, result.percentile) == (score.raw, score.percentile)
        assert (result.class_1, result.logit_1) == (score.class_1, score.logit_1)
        assert result.model_id == model.model_id[:8]
    assert 0.2 < np.mean([r.keep for r in results]) < 0.4


def test_kept_frames_are_on_the_card(blob: bytes, digits: Dataset, tmp_path: Path) -> None:
    device = Device(blob)
    results = device.run(digits.x[600:800])
    device.save_card(tmp_path / "card.img")
    kept = {r.seq: n for n, r in enumerate(results) if r.keep}
    found = {}
    for segment in read_segments(tmp_path / "card.img"):
        for record in segment.parsed.records if segment.parsed else ():
            found[record.header.seq] = record.payload
    assert set(found) == set(kept)
    for seq, n in kept.items():
        assert found[seq] == digits.x[600 + n].tobytes()
    status = device.status()
    assert (status.frames_seen, status.frames_kept) == (200, len(kept))
    assert status.card_state == CardState.READY
    assert status.records_pending == 0


def test_settings(blob: bytes, digits: Dataset) -> None:
    frames = digits.x[:20]
    every = Device(blob, settings={Config.POLICY_KIND: PolicyKind.ALL}).run(frames)
    assert [r.keep for r in every] == [1] * 20
    none = Device(blob, settings={Config.POLICY_KIND: PolicyKind.NONE, **NO_CHANCE}).run(frames)
    assert [r.keep for r in none] == [0] * 20
    with pytest.raises(DeviceError, match="SCORE_KIND = 99"):
        Device(blob, settings={Config.SCORE_KIND: 99})


def test_without_a_card(blob: bytes, digits: Dataset) -> None:
    device = Device(blob, card_bytes=0)
    assert device.feed(digits.x[0]).class_1 < 10
    assert device.status().card_state == CardState.ABSENT
    with pytest.raises(CardError, match="NO_CARD"):
        device.sync()


def test_bad_input(blob: bytes) -> None:
    with pytest.raises(DataError, match="the model takes"):
        Device(blob).feed(np.zeros((4, 4, 1), np.uint8))
    with pytest.raises(CardError, match="too small"):
        Device(blob, card_bytes=4096)
