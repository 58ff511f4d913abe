"""drip.Scorer on a real interpreter gives what the core on the host gives, bit for bit."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import test_frontend_model as hearing
from interpreters import execute, unix_own

from drip import wire
from drip.core import Model

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits"
VECTORS = json.loads((DIGITS / "vectors.json").read_text())["vectors"]

_SCORE = """
import sys, json, binascii, drip
model, kind, frames = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
scorer = drip.Scorer(model, kind)
out = []
for frame in frames:
    r = scorer.score(binascii.a2b_base64(frame))
    row = [r.raw, r.score, r.class_1, r.class_2, r.logit_1, r.logit_2, r.reason]
    out.append([row, binascii.crc32(scorer.cam()), str(r.label), r.keep])
print(json.dumps(out))
"""

_NAME = "import json, drip\nprint(json.dumps(drip.native.__name__))"


def score(library: Path, frames: list[str], kind: int = 0, model: Path = DIGITS / "model.drip"):
    return execute(library, _SCORE, str(model), str(kind), json.dumps(frames))


@pytest.fixture
def assert_as_on_the_host(library):
    """Compares the scores of raw frames on the interpreter with those of the host's core."""

    def check(path: Path, frames: np.ndarray, kind: wire.ScoreKind | None = None) -> None:
        model = Model(path.read_bytes())
        encoded = [base64.b64encode(frame.tobytes()).decode() for frame in frames]
        rows = score(library, encoded, int(kind or 0), path)
        assert len(rows) == len(frames) > 0
        for (row, _, _, _), frame in zip(rows, frames, strict=True):
            shaped = frame.reshape(model.frame_shape)
            assert tuple(row[:6]) == dataclasses.astuple(model.score(shaped, kind))

    return check


@pytest.mark.slow
def test_a_firmware_with_the_module_in_it_needs_no_native_one(library, tmp_path):
    bare = shutil.copytree(library, tmp_path / "lib", ignore=shutil.ignore_patterns("native*"))
    arguments = (str(DIGITS / "model.drip"), "0", json.dumps([VECTORS[0]["frame"]]))
    (row,) = execute(bare, _SCORE, *arguments, interpreter=unix_own())
    assert row[0][0] == VECTORS[0]["scores"]["cam_evidence"]
    assert row[1] == int(VECTORS[0]["cam"]["crc"], 16)
    name = execute(bare, _NAME, interpreter=unix_own())
    assert name == "_drip"


def test_the_shared_vectors_bit_for_bit(library):
    rows = score(library, [vector["frame"] for vector in VECTORS])
    assert len(rows) == len(VECTORS) >= 10
    for (row, crc, label, _), vector in zip(rows, VECTORS, strict=True):
        assert row[0] == vector["scores"]["cam_evidence"]
        assert row[2:4] == vector["classes"]
        assert row[4:6] == vector["logits"]
        assert crc == int(vector["cam"]["crc"], 16)
        assert label == str(vector["classes"][0])


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 6, 7])
def test_every_score_equals_the_host_core(assert_as_on_the_host, kind):
    raw = b"".join(random.Random(n).randbytes(64) for n in range(40))
    frames = np.frombuffer(raw, np.uint8).reshape(40, 64) % 17
    assert_as_on_the_host(DIGITS / "model.drip", frames, wire.ScoreKind(kind))


def test_a_model_that_hears_scores_raw_sound(assert_as_on_the_host, tmp_path):
    path = tmp_path / "hearing.drip"
    path.write_bytes(hearing.hearing())
    assert_as_on_the_host(path, hearing.clips(6))


_LOCKED = """
import sys, json, micropython, drip
scorer = drip.Scorer(sys.argv[1])
frames = [bytes((7 * n + i) % 17 for i in range(64)) for n in range(20)]

def run():
    kept = 0
    micropython.heap_lock()
    for frame in frames:
        result = scorer.score(frame)
        if result.keep:
            kept += 1
        result.label
        result.score
    micropython.heap_unlock()
    return kept

print(json.dumps(run()))
"""


def test_a_frame_allocates_nothing(library):
    # With the heap locked any allocation raises MemoryError.
    kept = execute(library, _LOCKED, str(DIGITS / "model.drip"))
    assert kept == 20  # the model is not calibrated: nothing shows that a frame is dull


_ERRORS = """
import sys, json, drip
out = []
def attempt(what):
    try:
        what()
        out.append(None)
    except drip.Error as error:
        out.append(error.code)
blob = bytearray(open(sys.argv[1], "rb").read())
scorer = drip.Scorer(blob)
attempt(lambda: scorer.cam())
attempt(lambda: scorer.score(bytes(63)))
attempt(lambda: scorer.score(bytes(65)))
attempt(lambda: drip.Scorer(bytearray(100)))
bad = bytearray(blob); bad[500] ^= 1
attempt(lambda: drip.Scorer(bad))
attempt(lambda: drip.Scorer(blob, kind=99))
attempt(lambda: scorer.config(99, 1))
attempt(lambda: scorer.config(2, 3))
kept = scorer.score(bytes(64)).keep
print(json.dumps([out, kept, scorer.frame_bytes, scorer.labels]))
"""


def test_what_the_core_refuses_raises_with_its_code(library):
    out, kept, frame_bytes, labels = execute(library, _ERRORS, str(DIGITS / "model.drip"))
    err = wire.Err
    assert out[:3] == [err.STATE, err.RANGE, err.RANGE]
    assert out[3] in (err.SHORT, err.MAGIC)
    assert out[4:] == [err.CRC, err.UNSUPPORTED, err.UNSUPPORTED, None]
    assert kept is False  # policy NONE
    assert frame_bytes == 64
    assert labels == [str(digit) for digit in range(10)]
