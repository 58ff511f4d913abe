"""Log-mel features: the core's integers against floating point, and what hostile tables can do."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import frontend_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drip.errors import DataError, UsageError
from drip.frontend import LogMel
from drip.wire import BlobFrontend, Err

core = pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
RATE = 16000
SPEECH = Path(os.environ.get("DRIP_DATA", "data")) / "speech_commands_bed_cat_happy.npz"
DIGEST = "30831a7f999eb859e983ea1b397ac4bd41c2d226f372728a05f1678cfb1a6b47"


def sounds() -> dict[str, Any]:
    """One second each, int16."""
    rng = np.random.default_rng(7)
    t = np.arange(RATE) / RATE
    chirp = np.sin(2 * np.pi * (50 * t + 3700 * t * t))
    voiced = sum(np.sin(2 * np.pi * 140 * n * t) / n for n in range(1, 30))
    return {
        "chirp": np.round(20000 * chirp),
        "quiet chirp": np.round(30 * chirp),
        "voice": np.round(9000 * voiced * (t % 0.2 < 0.12)),
        "noise": np.round(rng.normal(0, 3000, RATE)),
        "full scale": np.where(rng.random(RATE) < 0.5, -32768, 32767),
        "square": np.where(t * 440 % 1 < 0.5, -32768, 32767),
        "one click": np.where(np.arange(RATE) == 8000, 32767, 0),
        "steady": np.full(RATE, -32768),
    }


@pytest.mark.parametrize("name", list(sounds()))
def test_equals_floating_point(name: str) -> None:
    clip = sounds()[name].astype(np.int16)
    mel = LogMel()
    exact = mel.float_features(clip)
    got = mel.features(clip)[..., 0].astype(np.float64)
    error = np.abs(got - np.clip(np.round(exact), 0, 255))
    # Twiddles of 16 bits leave a floor some 85 dB below the loudest band of a window.
    floor = np.maximum(0, exact.max(axis=1, keepdims=True) - 80 * 255 / 105)
    heard = np.broadcast_to(exact > floor, exact.shape)
    assert error[heard].max(initial=0) <= 1
    if name in ("voice", "noise", "full scale"):
        assert (error[heard] > 0).mean() < 0.01
    assert (got <= np.clip(exact, floor, 255) + 1).all()


def test_silence_and_the_shape() -> None:
    mel = LogMel()
    quiet = mel.features(np.zeros((2, RATE), np.int16))
    assert quiet.shape == (2, 49, 40, 1)
    assert not quiet.any()
    assert mel.windows(639) == 0
    assert mel.features(np.ones(640, np.int16)).shape == (1, 40, 1)


def test_the_bytes_are_the_same_everywhere() -> None:
    # Any change of these bytes makes models wrong that were trained on the old ones.
    rng = np.random.default_rng(1)
    clips = (rng.normal(0, 1, (4, RATE)) * 4000 * np.linspace(0, 1, RATE)).astype(np.int16)
    digest = hashlib.sha256(LogMel().features(clips).tobytes()).hexdigest()
    assert digest == DIGEST


def assert_bit_exact(mel: LogMel, clips: Any) -> None:
    """Against integers that share nothing with the core."""
    for clip, got in zip(clips, mel.features(clips)[..., 0], strict=True):
        assert np.array_equal(frontend_oracle.features(mel.section(), clip), got)


@pytest.mark.parametrize("name", list(sounds()))
def test_equals_the_specified_integers_bit_for_bit(name: str) -> None:
    assert_bit_exact(LogMel(), sounds()[name].astype(np.int16)[None, :4000])


@pytest.mark.slow
@pytest.mark.skipif(not SPEECH.is_file(), reason=f"needs {SPEECH}: set DRIP_DATA to its folder")
def test_equals_the_specified_integers_on_every_raw_clip() -> None:
    """300 spoken words. The file's own features were made in floating point: 99.87 % are equal."""
    with np.load(SPEECH) as file:
        clips, features = file["raw_int16_16k"], file["raw_feature"]
    assert (clips.shape, clips.dtype) == ((300, RATE), np.int16)
    assert_bit_exact(LogMel(), clips)
    got = LogMel().features(clips)
    error = np.abs(got.astype(int) - features)
    assert (error == 0).mean() > 0.998
    assert error.max() <= 2


@pytest.mark.parametrize(
    "mel",
    [
        LogMel(sample_rate=8000, window=256, hop=128, fft=256, mels=20, high_hz=4000),
        LogMel(window=63, hop=7, fft=64, mels=10, low_hz=300, high_hz=8000),
        LogMel(window=2048, hop=1024, fft=2048, mels=64),
        LogMel(mels=1),
        LogMel(low_hz=0, high_hz=8000),
    ],
)
def test_other_parameters(mel: LogMel) -> None:
    clip = sounds()["voice"].astype(np.int16)
    assert_bit_exact(mel, clip[None, :3000])
    exact = mel.float_features(clip)
    got = mel.features(clip)[..., 0]
    heard = exact > exact.max(axis=1, keepdims=True) - 80 * 255 / 105
    assert np.abs(got - np.clip(np.round(exact), 0, 255))[heard].max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"fft": 1000},
        {"fft": 4096, "window": 4096},
        {"window": 2000},
        {"mels": 0},
        {"mels": 65},
        {"high_hz": 9000},
        {"hop": 0},
        {"low_hz": 7600},
        {"low_db": 45},
    ],
)
def test_parameters_that_no_board_could_run(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no front-end"):
        LogMel(**wrong)


@pytest.mark.parametrize(
    "clip", [np.zeros(639, np.int16), np.zeros(RATE), np.zeros((1, 1, RATE), np.int16)]
)
def test_clips_that_are_no_sound(clip: Any) -> None:
    with pytest.raises(DataError, match="no sound"):
        LogMel().features(clip)


def opened(section: bytes) -> tuple[int, Any, Any]:
    memory = core.ffi.new("uint32_t[]", len(section) // 4 + 1)
    core.ffi.memmove(memory, section, len(section))
    frontend = core.ffi.new("drip_frontend_t *")
    return core.lib.drip_frontend_open(frontend, memory, len(section)), frontend, memory


def test_every_truncation_is_refused() -> None:
    section = LogMel(fft=64, window=64, mels=5).section()
    assert opened(section)[0] == 0
    for length in range(len(section)):
        assert opened(section[:length])[0] in (Err.SHORT, Err.CORRUPT)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fft", 96),
        ("fft", 32),
        ("fft", 4096),
        ("window", 1),
        ("window", 65),
        ("hop", 0),
        ("mels", 0),
        ("mels", 65),
    ],
)
def test_impossible_headers_are_refused(field: str, value: int) -> None:
    section = bytearray(LogMel(fft=64, window=64, mels=5).section())
    at = BlobFrontend.OFFSETS[field]
    section[at : at + 2] = value.to_bytes(2, "little")
    assert opened(bytes(section) + bytes(8192))[0] == Err.CORRUPT


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_tables_are_refused_or_harmless(data: st.DataObject) -> None:
    """Under the sanitizers: no overflow, no access out of bounds, whatever the bytes."""
    section = bytearray(LogMel(fft=64, window=64, hop=64, mels=5).section())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(section) - 1))
        section[at] = data.draw(st.integers(0, 255))
    code, frontend, memory = opened(bytes(section))
    assert code in (0, Err.SHORT, Err.CORRUPT)
    if code == 0:
        samples = np.random.default_rng(data.draw(st.integers(0, 9))).bytes(4096)
        assert core.lib.drip_frontend_work_bytes(frontend) == 4 * frontend.desc.fft
        work = core.ffi.new("int32_t[]", frontend.desc.fft)
        out = core.ffi.new("uint8_t[]", frontend.desc.mels)
        core.lib.drip_frontend_window(frontend, samples, work, out)
    assert memory is not None


def test_samples_may_lie_at_any_address_and_at_the_end_of_the_work() -> None:
    mel = LogMel()
    clip = sounds()["noise"].astype(np.int16)[:640]
    _, frontend, memory = opened(mel.section())
    raw = core.ffi.new("uint8_t[]", 1281)
    core.ffi.memmove(raw + 1, clip.tobytes(), 1280)
    work, out = core.ffi.new("int32_t[1024]"), core.ffi.new("uint8_t[40]")
    core.lib.drip_frontend_window(frontend, raw + 1, work, out)
    wanted = mel.features(clip).ravel().tolist()
    assert list(out) == wanted
    for fft, window in ((1024, 640), (64, 64)):
        mel = LogMel(window=window, fft=fft, mels=5)
        _, frontend, memory = opened(mel.section())
        end = core.ffi.cast("uint8_t *", work) + 4 * fft - 2 * window
        core.ffi.memmove(end, clip.tobytes(), 2 * window)
        core.lib.drip_frontend_window(frontend, end, work, out)
        assert list(out[0:5]) == mel.features(clip[:window]).ravel().tolist()
    assert memory is not None
