"""Faults under the board's own image, in QEMU: power cuts at SPI bytes, removal, errors."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from pathlib import Path

import boards
import pytest

from drip import wire
from drip.data import digits
from drip.device import Client, Kind, connect
from drip.errors import DeviceError

FRAMES = [frame.tobytes() for frame in digits().x[:24]]
SYNC_EVERY = 4
STATUS_CUT = 99


@pytest.fixture(autouse=True)
def qemu() -> None:
    boards.needs(Kind.QEMU)


def wait_for_card(client: Client, state: wire.CardState, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while client.status().card_state != state:
        assert time.monotonic() < deadline, wire.CardState(client.status().card_state).name
        time.sleep(0.1)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A card after a first session, and the SPI bytes that the session of the tests takes on it."""
    boards.needs(Kind.QEMU)
    folder = tmp_path_factory.mktemp("cut")
    card = boards.new_card(folder / "card.img")
    with boards.in_qemu(card=card) as board:
        assert boards.feed_until_it_ends(board.url, FRAMES, SYNC_EVERY) == len(FRAMES)
    assert boards.payloads(card) == FRAMES
    used = folder / "used.img"
    shutil.copy(card, used)
    with boards.in_qemu(card=card) as board:
        assert boards.feed_until_it_ends(board.url, FRAMES, SYNC_EVERY) == len(FRAMES)
        total = board.counters.spi_bytes
    assert boards.payloads(card) == FRAMES * 2
    return used, total


def cut_and_recover(used: Path, folder: Path, position: int) -> str | None:
    """Cut the power before an SPI byte, start again; returns what is wrong."""
    card = folder / "card.img"
    shutil.copy(used, card)
    with boards.in_qemu({"cut": position}, card=card) as board:
        durable = boards.feed_until_it_ends(board.url, FRAMES, SYNC_EVERY)
        if board.wait(10) != STATUS_CUT:
            return "the power was not cut"
    with boards.in_qemu(card=card) as board, connect(board.url) as client:
        if client.status().card_state != wire.CardState.READY:
            wait_for_card(client, wire.CardState.READY)
        boards.keep_all(client)
        if client.feed(FRAMES[0]).keep != 1:
            return "it keeps no frame any more"
        client.sync_log()
    found = boards.payloads(card)
    kept = found[len(FRAMES) : -1]
    if found[: len(FRAMES)] != FRAMES or found[-1:] != FRAMES[:1]:
        return "frames of before or after are missing"
    if kept != FRAMES[: len(kept)] or len(kept) < durable:
        return f"{durable} frames were durable, {len(kept)} are left"
    return None


def run_cuts(session: tuple[Path, int], folder: Path, count: int, seed: int) -> None:
    used, total = session
    failed = []
    for position in sorted(random.Random(seed).sample(range(1, total), count)):
        try:
            wrong = cut_and_recover(used, folder, position)
        except AssertionError as error:
            wrong = str(error)
        if wrong is not None:
            failed.append(f"byte {position}: {wrong}")
    assert failed == [], f"of {total} bytes"


def test_a_power_cut(session: tuple[Path, int], tmp_path: Path) -> None:
    run_cuts(session, tmp_path, 2, 5)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_200_power_cuts(
    session: tuple[Path, int], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    run_cuts(session, tmp_path, 200, int(pytestconfig.getoption("hypothesis_seed")))


@pytest.mark.slow
def test_a_card_that_is_pulled_and_put_back(tmp_path: Path) -> None:
    card = boards.new_card(tmp_path / "card.img")
    with boards.in_qemu(card=card) as board, connect(board.url) as client:
        boards.keep_all(client)
        for frame in FRAMES[:8]:
            assert client.feed(frame).keep == 1
        client.sync_log()
        board.set_card(False)
        for frame in FRAMES[8:12]:
            client.feed(frame)
        wait_for_card(client, wire.CardState.ABSENT)
        assert client.feed(FRAMES[12]).keep == 0
        board.set_card(True)
        wait_for_card(client, wire.CardState.READY)
        for frame in FRAMES[16:]:
            assert client.feed(frame).keep == 1
        client.sync_log()
    found = boards.payloads(card)
    assert found[:8] == FRAMES[:8]
    assert found[-8:] == FRAMES[16:]


@pytest.mark.slow
def test_a_card_pulled_at_random_bytes(session: tuple[Path, int], tmp_path: Path) -> None:
    used, total = session
    for position in random.Random(3).sample(range(1, total), 6):
        card = tmp_path / "card.img"
        shutil.copy(used, card)
        pulled = boards.in_qemu({"pull": position}, card=card)
        with pulled as board, connect(board.url) as client:
            boards.keep_all(client)
            for frame in FRAMES:
                client.feed(frame)
            wait_for_card(client, wire.CardState.ABSENT)
            board.set_card(True)
            wait_for_card(client, wire.CardState.READY)
            assert client.feed(FRAMES[0]).keep == 1, position
            client.sync_log()
        found = boards.payloads(card)
        assert found[: len(FRAMES)] == FRAMES, position
        assert found[-1] == FRAMES[0], position


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["wrerr", "garble"])
def test_one_error_costs_nothing(fault: str, tmp_path: Path) -> None:
    card = boards.new_card(tmp_path / "card.img")
    with boards.in_qemu({fault: 3}, card=card) as board:
        assert boards.feed_until_it_ends(board.url, FRAMES, SYNC_EVERY) == len(FRAMES)
        with connect(board.url) as client:
            assert client.status().card_errors == 0
    assert boards.payloads(card) == FRAMES


@pytest.mark.slow
def test_a_block_that_cannot_be_written(session: tuple[Path, int], tmp_path: Path) -> None:
    used, _ = session
    worn = used.read_bytes().find(FRAMES[12]) // wire.BLOCK_BYTES
    card = boards.new_card(tmp_path / "card.img")
    with boards.in_qemu({"bad": worn}, card=card) as board, connect(board.url) as client:
        boards.keep_all(client)
        for frame in FRAMES:
            client.feed(frame)
            with contextlib.suppress(DeviceError):
                client.sync_log()
        status = client.status()
        assert status.card_errors > 0
        assert status.frames_seen == len(FRAMES)
    found = boards.payloads(card)
    assert 1 <= len(found) < len(FRAMES)
    assert found == FRAMES[: len(found)]
