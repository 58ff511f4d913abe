"""The host's tools against a device in MicroPython, over the line of its REPL."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from device_board import digits_model, model_id, new_card
from interpreters import serve

from drip import wire
from drip.cli import main
from drip.deploy import deploy
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


def test_it_answers_and_scores_as_the_core_does(library, files):
    import numpy as np

    from drip.core import Model

    model = Model(digits_model())
    with serve(library, **files) as board, connect(board.url) as client:
        assert client.device.port.rstrip(b"\0") == b"micropython"
        assert client.device.model_id == model_id(digits_model())
        for frame in FRAMES:
            result = client.feed(frame)
            host = model.score(np.frombuffer(frame, np.uint8).reshape(model.frame_shape))
            assert (result.raw_score, result.percentile) == (host.raw, host.percentile)
            assert (result.class_1, result.class_2) == (host.class_1, host.class_2)
        status = client.status()
        assert (status.frames_seen, status.link_errors) == (len(FRAMES), 0)


def test_drip_sync_pulls_what_was_kept(library, files, tmp_path, capsys):
    store = tmp_path / "store"
    with serve(library, **files) as board:
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


def test_a_model_is_pushed_and_boots_from_then_on(library, files):
    second = digits_model("dd" * 16)
    with serve(library, **files) as board:
        with connect(board.url) as client:
            report = deploy(client, second)
            assert report.before_id == model_id(digits_model())
            assert report.after_id == model_id(second)
            assert client.feed(FRAMES[0]).model_id == model_id(second)[:8]
            assert client.reset().model_id == model_id(second)
        board.cut_power()
        board.start()
        with connect(board.url) as client:
            assert client.device.model_id == model_id(second)
            assert client.model_info().state == wire.SlotState.CONFIRMED


def test_what_was_logged_survives_reset_and_power_cut(library, files):
    with serve(library, **files) as board:
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


def test_without_card_and_slots_it_still_answers(library, files):
    with serve(library, model=files["model"]) as board, connect(board.url) as client:
        assert client.device.card_state == wire.CardState.ABSENT
        assert client.device.slot_bytes == 0
        assert client.score(FRAMES[3]).class_1 < 10
