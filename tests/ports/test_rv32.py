"""The core on RV32IMC, the instruction set of ESP32-C3: bit-exact, with instructions counted.

A whole device on the ESP32 port's portable files must send the same bytes there as here. The
front-end is measured on the emulated Cortex-M4 as well (tests/bench/frontend.py).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip import wire
from drip.calibrate import calibrate
from drip.card import format_image
from drip.compile.blob import unpack_blob
from drip.core import Model
from drip.data import Dataset
from drip.device.framing import Frame, FrameReader, encode_frame
from drip.frontend import LogMel
from drip.wire import FrameType

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import emulated  # noqa: E402 - beside this file
from emulated import BENCH, CORE, INCLUDES, PORT, TARGETS  # noqa: E402


@cache
def objects(target: str, folder: Path) -> list[str]:
    """The core and what the device program takes of the port, compiled once."""
    port = [PORT / name for name in ("ring.c", "job.c", "cardstore.c")]
    sources = [*CORE.glob("src/*.c"), *CORE.glob("src/kernels/*.c"), *port, HERE / "whole_device.c"]
    if target == "here":
        command = [*os.environ.get("CC", "cc").split(), "-O1", "-std=gnu11", "-fsanitize=undefined"]
        command += INCLUDES
        sources.append(HERE / "host_board.c")
        if shutil.which(command[0]) is None:
            pytest.skip("needs a C compiler: apt install gcc")
    else:
        try:
            command = TARGETS[target].compiler()
        except emulated.MissingToolError as error:
            pytest.skip(str(error))
    made = []
    for source in sources:
        made.append(str(folder / f"{target}-{source.stem}.o"))
        done = subprocess.run(
            [*command, "-c", str(source), "-o", made[-1]], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return made


def emulate(
    target: str,
    folder: Path,
    sources: Sequence[Path | str],
    model: bytes,
    inputs: bytes,
    *defines: str,
) -> list[list[str]]:
    """Lines of words that the program printed."""
    try:
        return emulated.emulate(target, folder, sources, model, inputs, *defines)
    except emulated.MissingToolError as error:
        pytest.skip(str(error))


def test_the_reference_model_is_equal_on_rv32(tmp_path: Path) -> None:
    """Every tensor and score of the vectors that all targets share, and how many instructions."""
    blob = (ROOT / "models" / "digits" / "model.drip").read_bytes()
    vectors = json.loads((ROOT / "models" / "digits" / "vectors.json").read_text())
    model = Model(blob)
    cases = vectors["vectors"]
    raw = [np.frombuffer(base64.b64decode(case["frame"]), model.frame_dtype) for case in cases]
    frames = [model.quantise(frame.reshape(model.frame_shape)) for frame in raw]
    sources = [*CORE.glob("src/*.c"), *CORE.glob("src/kernels/*.c"), BENCH / "main.c"]
    inputs = b"".join(frame.tobytes() for frame in frames)
    sizes = ("-DBENCH_ARENA=65536", "-DBENCH_SCRATCH=8192")
    lines = emulate("rv32", tmp_path, sources, blob, inputs, *sizes)
    told = {}
    spent, scored = [], 0
    for words in lines:
        if words[0] == "op":
            told[int(words[1], 16), int(words[2], 16)] = int(words[4], 16)
        if words[0] == "infer":
            spent.append(int(words[2], 16))
        if words[0] == "score":
            got = np.uint32(int(words[3], 16)).astype(np.int32)
            assert got == cases[int(words[1], 16)]["scores"]["cam_evidence"]
            scored += 1
    for number, frame in enumerate(frames):
        for op, (_, content) in enumerate(model.tensors(frame)):
            assert told[number, op] == zlib.crc32(content.tobytes()), (number, op)
    assert len(spent) == scored == len(cases) > 0
    # 147,696 multiply-accumulates; no SIMD, so one instruction each would be a miracle.
    assert 147_696 < max(spent) < 1_400_000
    print(f"digits on rv32imc: {max(spent)} instructions")


def script(frames: Any, card: bytes, push: bytes) -> bytes:
    """A card, then what a host says: settings, frames, all of the log, another model, frames."""
    requests: list[tuple[int, int, bytes]] = []

    def ask(kind: int, body: bytes = b"", milliseconds: int = 60) -> None:
        requests.append((milliseconds, kind, body))

    def feed(frame: bytes, kind: int) -> None:
        token = len(requests)
        for at in range(0, len(frame), 1024):
            head = wire.Feed(frame_bytes=len(frame), offset=at, token=token).pack()
            ask(kind, head + frame[at : at + 1024], 300 if at + 1024 >= len(frame) else 5)

    hello = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=wire.SCHEMA_HASH)
    ask(FrameType.HELLO, hello.pack(), 2500)
    ask(FrameType.TIME, wire.TimeRequest(unix_us=10**15).pack())
    wanted = {"policy_kind": wire.PolicyKind.TARGET, "target": 40000, "redundancy": 200, "burst": 4}
    wanted |= {"floor_share": 2000, "events": 1, "commit_ms": 1000}
    items = [
        wire.ConfigItem(wire.Config[name.upper()], 4, value).pack()
        for name, value in wanted.items()
    ]
    for item in items:
        ask(FrameType.CONFIG_SET, item, 100)
    for frame in np.repeat(frames, 2, axis=0):
        feed(frame.tobytes(), FrameType.FEED)
    feed(frames[0].tobytes(), FrameType.SCORE)
    ask(FrameType.SYNC, b"", 200)
    ask(FrameType.READ, wire.ReadRequest(position=0, size=64 << 10, chunk=1024).pack(), 300)
    header = wire.BlobHeader.unpack(push)
    about = {"total_bytes": len(push), "arena_bytes": header.arena_bytes}
    about |= {"op_bitmap": header.op_bitmap, "blob_crc": zlib.crc32(push)}
    begin = wire.ModelRequest(op=wire.ModelOp.BEGIN, model_id=header.model_id, **about)
    ask(FrameType.MODEL, begin.pack(), 100)
    for at in range(0, len(push), 1024):
        piece = wire.ModelRequest(op=wire.ModelOp.DATA, offset=at).pack() + push[at : at + 1024]
        ask(FrameType.MODEL, piece, 20)
    ask(FrameType.MODEL, wire.ModelRequest(op=wire.ModelOp.TRIAL).pack(), 2000)
    ask(FrameType.MODEL, wire.ModelRequest(op=wire.ModelOp.CONFIRM).pack(), 100)
    feed(frames[1].tobytes(), FrameType.SCORE)
    ask(FrameType.STATUS)
    content = len(card).to_bytes(4, "little") + card
    for number, (milliseconds, kind, body) in enumerate(requests):
        frame = encode_frame(kind, number, body)
        content += struct.pack("<II", milliseconds * 1000, len(frame)) + frame
    return content


def on_this_computer(folder: Path, named: list[str]) -> str:
    """The same program, model and inputs, under UBSan."""
    image = folder / "here"
    files = [f'-DMODEL_FILE="{folder / "model"}"', f'-DINPUTS_FILE="{folder / "inputs"}"']
    command = [*os.environ.get("CC", "cc").split(), "-fsanitize=undefined", *files, *named]
    command += [str(BENCH / "model.S"), "-o", str(image)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(image)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def answers(lines: list[list[str]]) -> list[list[Frame]]:
    """The frames that came after each frame of the script."""
    reader = FrameReader()
    said = [reader.feed(bytes.fromhex("".join(words[1:]))) for words in lines if words[0] == "line"]
    assert reader.errors == 0
    return said


def case(name: str) -> tuple[bytes, Any]:
    """A calibrated model and frames for it: `digits`, or one that hears."""
    if name == "digits":
        blob = (ROOT / "models" / "digits" / "model.drip").read_bytes()
        frames = np.random.default_rng(4).integers(0, 17, (320, 8, 8, 1), np.uint8)
    else:
        sys.path.insert(0, str(ROOT / "tests" / "core"))
        from test_frontend_model import clips, hearing

        blob, frames = hearing(), clips(310)[..., None]
    labels = np.arange(len(frames), dtype=np.int64) % 4
    names = unpack_blob(blob).classes()
    data = Dataset(frames, labels, names).take(np.arange(300))
    report = calibrate(blob, data, target_ratio=0.4, kinds=[wire.ScoreKind.CAM_EVIDENCE])
    return report.blob, frames[300:]


@pytest.mark.parametrize("name", ["digits", "hears"])
def test_a_whole_device_is_equal_on_rv32(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Link, log, policy, score, Grad-CAM, front-end, settings and a pushed model: every byte.

    The device runs on the port's ring, desk and card store.
    """
    blob, frames = case(name)
    model = Model(blob)
    format_image(tmp_path / "card.img", 512 << 10, log_uuid=bytes(range(16)))
    # Another id, so that the push is a change.
    push = blob[:64] + b"PUSH" + blob[68:]
    push = push[:12] + zlib.crc32(push[16:]).to_bytes(4, "little") + push[16:]
    inputs = script(frames, (tmp_path / "card.img").read_bytes(), push)
    built = tmp_path_factory.getbasetemp()
    lines = emulate("rv32", tmp_path, objects("rv32", built), blob, inputs)
    spent = [int(words.pop(), 16) for words in lines if words[0] == "card"]
    said = on_this_computer(tmp_path, objects("here", built))
    here = [words.split() for words in said.splitlines()]
    assert lines == [words[:2] if words[0] == "card" else words for words in here]
    assert lines[0] == ["selftest", "00000003"]
    # Equal is not enough: it must have done something.
    by_kind: dict[int, list[bytes]] = {}
    for frame in (frame for group in answers(lines) for frame in group):
        by_kind.setdefault(frame.type & ~wire.RESPONSE, []).append(frame.body)
    results = [wire.Result.unpack(body, 4) for body in by_kind[FrameType.FEED] if len(body) > 8]
    assert [result.raw_score for result in results] == [
        model.score(frame.reshape(model.frame_shape)).raw for frame in np.repeat(frames, 2, axis=0)
    ]
    scores = [wire.Result.unpack(body, 4) for body in by_kind[FrameType.SCORE] if len(body) > 8]
    assert scores[-1].model_id == push[64:72] != results[0].model_id
    status = wire.Status.unpack(by_kind[FrameType.STATUS][-1], 4)
    assert status.frames_seen == 2 * len(frames)
    assert 0 < status.frames_kept < status.frames_seen
    assert status.dropped_redundant > 0
    log = b"".join(by_kind[FrameType.READ])
    payload = [frame.tobytes()[:40] in log for frame in frames]
    assert any(payload)
    assert not all(payload)
    assert len({result.percentile for result in results}) > 5
    print(f"{name}: a whole device on rv32imc, {spent[0]} instructions")


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_front_end_is_equal_and_fits_a_step(target: str, tmp_path: Path) -> None:
    mel = LogMel()
    rng = np.random.default_rng(2)
    t = np.arange(mel.window) / mel.sample_rate
    sound = [
        20000 * np.sin(2 * np.pi * 440 * t),
        rng.normal(0, 3000, mel.window),
        np.zeros(mel.window),
        np.where(rng.random(mel.window) < 0.5, -32768, 32767),
        np.round(3 * np.sin(2 * np.pi * 3000 * t)),
    ]
    windows = np.array(sound).astype("<i2")
    sources = [BENCH / "frontend.c"]
    sources += [CORE / "src" / name for name in ("frontend.c", "frontend_fft.c", "bytes.c")]
    lines = emulate(target, tmp_path, sources, mel.section(), windows.tobytes())
    told = [(int(w[2], 16), int(w[3], 16)) for w in lines if w[0] == "window"]
    assert len(told) == len(windows)
    for samples, (_, crc) in zip(windows, told, strict=True):
        assert crc == zlib.crc32(mel.features(samples.astype(np.int16)).tobytes())
    most = max(spent for spent, _ in told)
    # 5 ms: 100 MHz at two cycles per instruction, and 160 MHz. Silence costs next to nothing.
    assert 50_000 < most < {"m4": 250_000, "rv32": 300_000}[target]
    assert told[2][0] < 25_000
    print(f"front-end on {target}: {most} instructions for a window of {mel.fft} points")
