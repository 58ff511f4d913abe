"""Windows of sound: scaling, direct current, overlap, loss, time; the shipped driver."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import pytest

from drip import wire
from drip.wire import Err

ROOT = Path(__file__).resolve().parents[2]
CDEF = """
typedef struct { uint32_t rate_hz; uint16_t window, hop, stream_id; uint8_t shift, reserved; }
    drip_mic_config_t;
typedef struct { drip_mic_config_t config; int16_t *samples; uint32_t count, settle;
    uint64_t last_us; int32_t direct; uint32_t windows, missed, clipped; } drip_mic_t;
typedef struct { const uint8_t *data; uint32_t size; uint64_t time_us; uint16_t stream_id, reserved;
    uint32_t token; } drip_frame_t;
int drip_mic_init(drip_mic_t *mic, const drip_mic_config_t *config, int16_t *samples);
uint32_t drip_mic_put(drip_mic_t *mic, const int32_t *words, uint32_t count, uint64_t time_us);
int drip_mic_take(drip_mic_t *mic, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame);
void drip_mic_stream(const drip_mic_t *mic, void *stream);
"""
SETTLE = 4096
RATE = 16000


@pytest.fixture(scope="module")
def mic_library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt install gcc")
    out = tmp_path_factory.mktemp("mic") / "mic.so"
    command = ["cc", "-std=c11", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wconversion"]
    command += ["-Werror", f"-I{ROOT / 'firmware' / 'core' / 'include'}"]
    subprocess.run([*command, ROOT / "firmware/drivers/mic.c", "-o", out], check=True)
    ffi = cffi.FFI()
    ffi.cdef(CDEF)
    return ffi, ffi.dlopen(str(out))


class Microphone:
    def __init__(self, library: Any, window: int = 8, hop: int = 4, shift: int = 16) -> None:
        self.ffi, self.lib = library
        self.mic = self.ffi.new("drip_mic_t *")
        self.samples = self.ffi.new("int16_t[]", window + hop)
        config = self.ffi.new("drip_mic_config_t *", [RATE, window, hop, 5, shift, 0])
        self.window = window
        assert self.lib.drip_mic_init(self.mic, config, self.samples) == 0

    def put(self, words: Any, time_us: int = 0) -> int:
        words = np.ascontiguousarray(words, np.int32)
        return int(
            self.lib.drip_mic_put(
                self.mic, self.ffi.from_buffer("int32_t[]", words), len(words), time_us
            )
        )

    def take(self) -> tuple[list[int], int] | None:
        frame = self.ffi.new("drip_frame_t *")
        buffer = self.ffi.new("uint8_t[]", 2 * self.window)
        if not self.lib.drip_mic_take(self.mic, buffer, 2 * self.window, frame):
            return None
        assert (frame.size, frame.stream_id) == (2 * self.window, 5)
        return np.frombuffer(self.ffi.buffer(buffer), "<i2").tolist(), int(frame.time_us)


def test_windows_overlap_and_tell_their_time(mic_library: Any) -> None:
    mic = Microphone(mic_library)
    mic.put(np.zeros(SETTLE))
    assert mic.take() is None
    words = np.array([1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6]) << 16
    assert mic.put(words[:8], 1_000_000) == 0
    assert mic.take() == ([1, -1, 2, -2, 3, -3, 4, -4], 1_000_000)  # less than a millisecond ago
    assert mic.take() is None
    assert mic.put(words[8:], 2_000_000) == 0
    assert mic.take() == ([3, -3, 4, -4, 5, -5, 6, -6], 2_000_000)
    assert (mic.mic.windows, mic.mic.missed) == (2, 0)


def test_the_start_of_a_long_window_is_its_time(mic_library: Any) -> None:
    mic = Microphone(mic_library, 16000, 8000)
    mic.put(np.zeros(SETTLE))
    mic.put(np.zeros(20000), 9_000_000)
    got = mic.take()
    assert got is not None
    assert got[1] == 9_000_000 - 1_250_000


def test_a_window_that_nobody_takes_is_lost_and_counted(mic_library: Any) -> None:
    mic = Microphone(mic_library)
    mic.put(np.zeros(SETTLE))
    words = (np.arange(20) % 2 * 2 - 1) * (np.arange(20) + 1) << 16
    assert mic.put(words) == 2
    assert mic.mic.missed == 2
    got = mic.take()
    assert got is not None
    assert [abs(value) for value in got[0]] == list(range(9, 17))


def test_direct_current_goes_and_sound_stays(mic_library: Any) -> None:
    mic = Microphone(mic_library, 4096, 4096)
    t = np.arange(SETTLE + 4096 * 3)
    tone = 3000 * np.sin(2 * np.pi * 440 * t / RATE)
    lost = mic.put(np.round((tone + 1500) * 65536).astype(np.int64))
    got = mic.take()
    assert lost == 1
    assert got is not None
    value = np.array(got[0])
    assert abs(value.mean()) < 30
    assert abs(value.std() - 3000 / np.sqrt(2)) < 30


@pytest.mark.parametrize(("shift", "gain"), [(16, 1), (13, 8), (8, 256)])
def test_gain_rounds_and_saturates(mic_library: Any, shift: int, gain: int) -> None:
    mic = Microphone(mic_library, 4, 4, shift)
    mic.put(np.zeros(SETTLE))
    full = [2**31 - 256, -(2**31), 0, 0]
    mic.put(full)
    got = mic.take()
    assert got is not None
    assert got[0][:2] == [32767, -32768]
    assert mic.mic.clipped >= (2 if gain > 1 else 1)
    mic = Microphone(mic_library, 4, 4, shift)
    mic.put(np.zeros(SETTLE))
    mic.put(np.array([100, -100, 100, -100]) * (65536 // gain))
    got = mic.take()
    assert got is not None
    # A bit more or less is what is taken for direct current meanwhile.
    assert np.abs(np.array(got[0]) - [100, -100, 100, -100]).max() <= (gain == 256)


@pytest.mark.parametrize(
    "wrong",
    [
        (3999, 8, 4, 16),
        (48001, 8, 4, 16),
        (RATE, 0, 0, 16),
        (RATE, 8, 0, 16),
        (RATE, 8, 9, 16),
        (RATE, 32769, 4, 16),
        (RATE, 8, 4, 7),
        (RATE, 8, 4, 17),
    ],
)
def test_settings_that_cannot_work_are_refused(mic_library: Any, wrong: Any) -> None:
    ffi, lib = mic_library
    rate, window, hop, shift = wrong
    config = ffi.new("drip_mic_config_t *", [rate, window, hop, 0, shift, 0])
    code = lib.drip_mic_init(ffi.new("drip_mic_t *"), config, ffi.new("int16_t[16]"))
    assert code == Err.ARGUMENT


def test_the_stream_is_described(mic_library: Any) -> None:
    mic = Microphone(mic_library)
    stream = mic.ffi.new("uint8_t[]", wire.Stream.SIZE)
    mic.lib.drip_mic_stream(mic.mic, stream)
    told = wire.Stream.unpack(bytes(mic.ffi.buffer(stream)))
    assert (told.id, told.dtype, told.rank) == (5, wire.Dtype.I16, 2)
    assert tuple(told.shape) == (8, 1, 1, 1)
    assert told.rate_mhz == 1000 * RATE // 4
