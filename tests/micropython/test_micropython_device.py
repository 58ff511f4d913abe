"""The host's tools against a device in MicroPython, over the line of its REPL.

The interpreter is a process of this computer, or runs on an emulated Cortex-M4F or RV32: then card
and slots are files that it reaches by semihosting, and its line is the UART.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from device_board import digits_model, model_id, new_card
from interpreters import ServedHere
from mpy_boards import CORTEX_M4F, RV32, ServedEmulated

from drip import wire
from drip.cli import main
from drip.device import connect
from drip.store import Store
from drip.wire import Config

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(30)]
KEEP_ALL = {Config.POLICY_KIND: wire.PolicyKind.ALL}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A formatted card and a model; the file of the slots does not exist yet."""
    card, model = tmp_path / "card.img", tmp_path / "model.drip"
    card.write_bytes(bytes(new_card(4096).data))
    model.write_bytes(digits_model())
    return {"card": card, "model": model, "slots": tmp_path / "slots.bin"}


Serve = Callable[..., AbstractContextManager[ServedHere | ServedEmulated]]


MACHINES = {"cortex-m4f": CORTEX_M4F, "rv32": RV32}


@pytest.fixture(params=["here", *(pytest.param(n, marks=pytest.mark.slow) for n in MACHINES)])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Starts a device with these files; it runs while the block runs."""
    if request.param == "here":
        library = request.getfixturevalue("library")
        return lambda **files: contextlib.closing(ServedHere(library, **files))
    machine = MACHINES[request.param]
    return lambda **files: contextlib.closing(ServedEmulated(machine, tmp_path, **files))


def test_it_answers_and_scores_as_the_core_does(serve, files):
    import numpy as np

    from drip.core import Model

    model = Model(digits_model())
    with serve(**files) as board, connect(board.url) as client:
        assert client.device.port.rstrip(b"\0") == b"micropython"
        assert client.device.model_id == model_id(digits_model())
        for frame in FRAMES:
            result = client.feed(frame)
            host = model.score(np.frombuffer(frame, np.uint8).reshape(model.frame_shape))
            assert (result.raw_score, result.percentile) == (host.raw, host.percentile)
            assert (result.class_1, result.class_2) == (host.class_1, host.class_2)
        status = client.status()
        assert (status.frames_seen, status.link_errors) == (len(FRAMES), 0)


def test_drip_sync_pulls_what_was_kept(serve, files, tmp_path, capsys):
    store = tmp_path / "store"
    with serve(**files) as board:
        with connect(board.url) as client:
            client.config_set(KEEP_ALL)
            assert [client.feed(frame).keep for frame in FRAMES] == [1] * len(FRAMES)
            client.sync_log()
        assert main(["sync", board.url, str(store)]) == 0, capsys.readouterr()
        with connect(board.url) as client:
            status = client.status()
            assert status.log_acked > 0
            assert status.card_errors == 0
    frames = Store.open(store).frames()
    assert [frame.tobytes() for frame in frames.x] == FRAMES


def test_a_model_is_pushed_and_boots_from_then_on(serve, files, tmp_path, capsys):
    second = digits_model("dd" * 16)
    path = tmp_path / "second.drip"
    path.write_bytes(second)
    with serve(**files) as board:
        assert main(["deploy", str(path), board.url]) == 0, capsys.readouterr()
        with connect(board.url) as client:
            assert client.device.model_id == model_id(second)
            assert client.feed(FRAMES[0]).model_id == model_id(second)[:8]
            assert client.reset().model_id == model_id(second)
        board.cut_power()
        board.start()
        with connect(board.url) as client:
            assert client.device.model_id == model_id(second)
            assert client.model_info().state == wire.SlotState.CONFIRMED


def test_what_was_logged_survives_reset_and_power_cut(serve, files):
    with serve(**files) as board:
        with connect(board.url) as client:
            client.config_set(KEEP_ALL)
            first = [client.feed(frame).seq for frame in FRAMES[:10]]
            assert client.reset().boot_id == 2
            assert client.status().frames_seen == 0
            client.config_set(KEEP_ALL)
            assert client.feed(FRAMES[10]).seq > max(first)
            client.sync_log()
        board.cut_power()
        data = files["card"].read_bytes()
        assert all(frame in data for frame in FRAMES[:11])
        board.start()
        with connect(board.url) as client:
            assert client.device.boot_id == 3


def test_drip_monitor_shows_it(serve, files, capsys):
    with serve(**files) as board:
        with connect(board.url) as client:
            for frame in FRAMES[:5]:
                client.feed(frame)
        assert main(["monitor", board.url, "--once", "--json", "-"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["frames_seen"], sum(shown["score_histogram"])) == (5, 5)
        assert 0 < shown["card_fill"] < 1


def test_what_a_sensor_gave_is_scored_kept_and_synced(serve, files, tmp_path, capsys):
    store = tmp_path / "store"
    with serve(**files, sensor="8") as board:
        with connect(board.url) as client:
            deadline = time.monotonic() + 30
            while client.status().frames_seen < 8:
                assert time.monotonic() < deadline
            client.sync_log()
        assert main(["sync", board.url, str(store)]) == 0, capsys.readouterr()
    # An uncalibrated model shows no frame to be dull: all are kept.
    given = [bytes((7 * n + i) % 17 for i in range(64)) for n in range(8)]
    assert [frame.tobytes() for frame in Store.open(store).frames().x] == given


def test_without_card_and_slots_it_still_answers(serve, files):
    with serve(model=files["model"]) as board, connect(board.url) as client:
        assert client.device.card_state == wire.CardState.ABSENT
        assert client.device.slot_bytes == 0
        assert client.score(FRAMES[3]).class_1 < 10
