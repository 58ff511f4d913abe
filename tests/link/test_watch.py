"""A watch over boards that come and go; real processes and ptys."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleets import LINE, eventually, feed

from drip import wire
from drip.device import FrameReader, NativeDevice, launch_native
from drip.errors import CardError, StoreError
from drip.store import AppendReport, Store
from drip.sync import SyncReport, fleet
from drip.sync.fleet import BoardResult, Line, Options, sync_boards, watch_boards

if os.name == "nt":
    pytest.skip("ptys are POSIX", allow_module_level=True)

import pty
import tty


class Watching:
    """A watch in a thread of its own."""

    def __init__(self, find: Callable[[], list[str]], store: Store, **options: bool) -> None:
        self.news: list[BoardResult] = []
        self.stop = threading.Event()
        self.totals: list[BoardResult] = []
        self.error: BaseException | None = None

        def run() -> None:
            try:
                self.totals = watch_boards(
                    find,
                    store,
                    line=LINE,
                    options=Options(**options),
                    every_s=0.1,
                    on_news=self.news.append,
                    stop=self.stop,
                )
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> list[BoardResult]:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.totals


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_RETRY_S", (0.1, 0.2))
    monkeypatch.setattr(fleet, "_SCAN_S", 0.05)


@pytest.mark.usefixtures("quick")
def test_a_board_is_unplugged_and_plugged_in_again(
    cards: list[Path], store: Store, tmp_path: Path
) -> None:
    port = tmp_path / "tty"
    watching = Watching(lambda: [str(port)], store)

    def reports() -> int:
        return sum(item.report is not None for item in watching.news)

    try:
        for count in range(3):
            with launch_native(card=cards[0], link=port) as device:
                eventually(lambda: bool(watching.news) and watching.news[-1].error is None)
                eventually(lambda count=count: reports() == count)
                # The watch holds the port, so the frames come from another boot.
                device.cut_power()
            eventually(lambda: watching.news[-1].error is not None)
            with launch_native(card=cards[0]) as device:
                feed(device.url, 10, count)
        with launch_native(card=cards[0], link=port):
            eventually(lambda: reports() == 3)
            (total,) = watching.end()
    finally:
        watching.stop.set()
    assert total.report is not None
    assert total.report.store == AppendReport(30)
    assert len(store) == 30
    messages = [item.error.message for item in watching.news if item.error is not None]
    assert all(str(port) in message for message in messages)
    assert len(messages) <= 8, "the same trouble is told once"


@pytest.mark.usefixtures("quick")
def test_boards_appear_and_disappear(cards: list[Path], store: Store) -> None:
    with ExitStack() as stack:
        running: dict[str, NativeDevice] = {}
        watching = Watching(lambda: list(running), store)
        stack.callback(watching.stop.set)
        for number, card in enumerate(cards):
            with launch_native(card=card) as device:
                feed(device.url, 4, number)
            device = stack.enter_context(launch_native(card=card))
            running[device.url] = device
            eventually(lambda number=number: len(store) == 4 * (number + 1))
        totals = watching.end()
    added = [item.report.store for item in totals if item.report]
    assert added == [AppendReport(4)] * 3
    assert {item.device_id for item in totals} == {item.device_id for item in watching.news}


@pytest.mark.usefixtures("quick")
def test_what_is_kept_is_read_once(boards: list[NativeDevice], store: Store) -> None:
    watching = Watching(lambda: [boards[0].url], store, keep=True)
    eventually(lambda: len(store) == 20)
    time.sleep(0.5)
    (total,) = watching.end()
    assert total.report is not None
    # Another look costs a STATUS, not the log.
    assert total.report.store == AppendReport(20)


@pytest.mark.usefixtures("quick")
def test_a_full_disk_ends_a_watch(
    boards: list[NativeDevice], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> SyncReport:
        raise StoreError("no space", "free some")

    monkeypatch.setattr(fleet, "sync_device", full)
    watching = Watching(lambda: [device.url for device in boards], store)
    watching.thread.join(20)
    assert isinstance(watching.error, StoreError)


@pytest.mark.usefixtures("quick")
def test_a_missing_card_is_told_once_and_waited_for(
    boards: list[NativeDevice], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    real = fleet.sync_device

    def no_card(*arguments: object, **options: object) -> SyncReport:
        tries.append(1)
        if len(tries) < 5:
            raise CardError("has no card", "insert one")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(fleet, "sync_device", no_card)
    watching = Watching(lambda: [boards[0].url], store)
    eventually(lambda: len(store) == 20)
    watching.end()
    assert len([item for item in watching.news if item.error is not None]) == 1


class Modem:
    """Somebody else's serial device on a pty: answers every line, notes every byte."""

    def __init__(self) -> None:
        self._line, self._far = pty.openpty()
        tty.setraw(self._far)
        self.port = os.ttyname(self._far)
        self.got = bytearray()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if select.select([self._line], [], [], 0.05)[0]:
                self.got += os.read(self._line, 4096)
                os.write(self._line, b"\r\nERROR\r\n>>> ")

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        os.close(self._line)
        os.close(self._far)


@pytest.mark.usefixtures("quick")
def test_a_stranger_gets_hello_only_and_is_left_alone(
    boards: list[NativeDevice], store: Store
) -> None:
    modem = Modem()
    try:
        line = Line(timeout_s=0.5, reset=True)
        results = sync_boards([modem.port, boards[0].url], store, line=line, options=Options())
        assert "is not a DRIP device: it said 'ERROR" in str(results[0].error)
        assert results[1].error is None
        watching = Watching(lambda: [modem.port, boards[1].url], store)
        eventually(lambda: len(store) == 40)
        eventually(lambda: any(item.port == modem.port for item in watching.news))
        totals = watching.end()
    finally:
        modem.close()
    assert [item.port for item in totals] == [boards[1].url]
    reader = FrameReader()
    frames = reader.feed(bytes(modem.got))
    assert {frame.type for frame in frames} == {wire.FrameType.HELLO}
    assert reader.errors == 0
