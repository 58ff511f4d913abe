"""Several boards at once, boards that come and go, Ctrl-C; real processes and ptys."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_sync import contents, recorded

from drip import cli, errors, wire
from drip.card import format_image
from drip.device import (
    FrameReader,
    MemoryTransport,
    NativeDevice,
    connect,
    launch_native,
    native_binary,
    opening,
)
from drip.errors import CardError, LinkError, MissingDependencyError, StoreError
from drip.store import AppendReport, Store
from drip.sync import SyncReport, fleet, ports
from drip.sync.fleet import BoardResult, Line, Options, sync_boards, watch_boards
from drip.sync.ports import FoundPort

if os.name == "nt":
    pytest.skip("ptys are POSIX", allow_module_level=True)

import pty
import tty

LINE = Line(timeout_s=2.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def cards(tmp_path: Path) -> list[Path]:
    try:
        native_binary()
    except MissingDependencyError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    images = [tmp_path / f"card{number}.img" for number in range(3)]
    for image in images:
        format_image(image, 2 << 20)
    return images


@pytest.fixture
def boards(cards: list[Path]) -> Iterator[list[NativeDevice]]:
    """Three boards without a model, which keep every frame; each has 20 frames of its own."""
    with ExitStack() as stack:
        running = [stack.enter_context(launch_native(card=card)) for card in cards]
        for number, device in enumerate(running):
            feed(device.url, 20, number)
        yield running


def feed(port: str, count: int, mark: int) -> None:
    with connect(port) as client:
        for at in range(count):
            client.feed(bytes([mark, at]) * 32)


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


# ---------------------------------------------------------------- all at once


def test_three_boards_into_one_store(boards: list[NativeDevice], store: Store) -> None:
    steps: dict[str, list[tuple[int, int]]] = {}
    results = sync_boards(
        [device.url for device in boards],
        store,
        line=LINE,
        options=Options(),
        on_progress=lambda port, done, total: steps.setdefault(port, []).append((done, total)),
    )
    assert [item.port for item in results] == [device.url for device in boards]
    assert [item.report.store.new for item in results if item.report and item.report.store] == [
        20,
        20,
        20,
    ]
    assert len({item.device_id for item in results}) == 3
    assert len(store) == 60
    frames = store.frames()
    assert sorted(x.tobytes()[:2] for x in frames.x) == [
        bytes([number, at]) for number in range(3) for at in range(20)
    ]
    for port in steps:
        assert steps[port][-1][0] == steps[port][-1][1] > 0
    assert len(steps) == 3


def test_one_that_is_missing_does_not_disturb_the_others(
    boards: list[NativeDevice], store: Store, tmp_path: Path
) -> None:
    boards[1].cut_power()
    nowhere = str(tmp_path / "nowhere")
    results = sync_boards(
        [boards[0].url, nowhere, boards[2].url], store, line=LINE, options=Options()
    )
    assert [type(item.error) for item in results] == [type(None), LinkError, type(None)]
    assert results[1].device_id is None
    assert len(store) == 40


def test_a_dry_run_and_keep(boards: list[NativeDevice], store: Store) -> None:
    port = boards[0].url
    (dry,) = sync_boards([port], store, line=LINE, options=Options(dry_run=True))
    assert dry.report is not None
    assert dry.report.pending_bytes > 0
    assert len(store) == 0
    (kept,) = sync_boards([port], store, line=LINE, options=Options(keep=True))
    assert kept.report is not None
    assert kept.report.acked == 0
    assert len(store) == 20
    with connect(port) as client:
        assert client.status().log_acked == 0


def test_reset_restarts_the_board_first(boards: list[NativeDevice], store: Store) -> None:
    with connect(boards[0].url) as client:
        before = client.device.boot_id
    (result,) = sync_boards(
        [boards[0].url], store, line=Line(timeout_s=2.0, reset=True), options=Options()
    )
    assert result.error is None
    with connect(boards[0].url) as client:
        assert client.device.boot_id == before + 1
    assert len(store) == 20


def test_a_defect_in_a_thread_is_not_hidden(
    boards: list[NativeDevice], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> SyncReport:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(fleet, "sync_device", broken)
    with pytest.raises(ZeroDivisionError):
        sync_boards([boards[0].url], store, line=LINE, options=Options())


def test_told_to_stop_a_thread_spools_what_has_arrived(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches the main thread only; the others end at their next wait."""
    device = recorded(40)
    stops: list[threading.Event] = []
    real = opening.Cancellable

    def note(inner: object, stop: threading.Event) -> object:
        stops.append(stop)
        return real(inner, stop)  # type: ignore[arg-type]

    def interrupt(index: int, frame: object) -> None:
        if index == 10:
            stops[0].set()

    device.on_request = interrupt
    monkeypatch.setattr(opening, "Cancellable", note)
    monkeypatch.setattr(opening, "open_transport", lambda *_, **__: device)
    (result,) = sync_boards(["fake"], store, line=LINE, options=Options())
    assert (result.report, result.error) == (None, None)
    assert list(store.spool.rglob("*.seg")), "what has arrived need not travel again"
    device.on_request = lambda *_: None
    (result,) = sync_boards(["fake"], store, line=LINE, options=Options())
    assert result.error is None
    assert contents(store) == device.log.frames


class Silent(MemoryTransport):
    """A board that hangs until its reset line is pulled."""

    def __init__(self, revived: object, has_line: bool) -> None:
        super().__init__(lambda data: None, "silent")
        self._revived = revived
        self._has_line = has_line
        self.pulses = 0

    def pulse_reset(self) -> bool:
        self.pulses += 1
        return self._has_line

    def read(self, size: int, timeout_s: float) -> bytes:
        if self.pulses and self._has_line:
            return self._revived.read(size, timeout_s)  # type: ignore[attr-defined, no-any-return]
        return b""

    def write(self, data: bytes) -> None:
        if self.pulses and self._has_line:
            self._revived.write(data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("has_line", [True, False])
def test_a_board_that_hangs_is_restarted_over_its_line_when_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch, has_line: bool
) -> None:
    silent = Silent(recorded(5), has_line)
    monkeypatch.setattr(opening, "open_transport", lambda *_, **__: silent)
    line = Line(timeout_s=0.2)
    (result,) = sync_boards(["p"], store, line=line, options=Options())
    assert silent.pulses == 0, "nothing is restarted unless asked"
    assert isinstance(result.error, LinkError)
    line = Line(timeout_s=0.2, reset=True)
    (result,) = sync_boards(["p"], store, line=line, options=Options())
    assert silent.pulses == 0, "nor on a port that nobody has named"
    line = Line(timeout_s=0.2, reset=True, pulse=True)
    (result,) = sync_boards(["p"], store, line=line, options=Options())
    assert silent.pulses == 1
    assert (result.error is None) == has_line
    assert len(store) == (5 if has_line else 0)


# ---------------------------------------------------------------- watch


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


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_command_cleanly(
    boards: list[NativeDevice], tmp_path: Path, end: signal.Signals
) -> None:
    folder = tmp_path / "store"
    command = [sys.executable, "-m", "drip", "sync", boards[0].url, str(folder)]
    command += ["--watch", "--every", "0.2", "--json", "-"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: bool(list(folder.glob("records/*.parquet"))))
        process.send_signal(end)
        process.send_signal(end)  # as timeout(1) does
        out, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "20 new frames" in said
    assert json.loads(out)["store_new"] == 20
    with connect(boards[0].url) as client:
        assert client.status().frames_seen == 20, "the port is free again"


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


# ---------------------------------------------------------------- the command


def test_ctrl_c_ends_a_sync_at_once(boards: list[NativeDevice], tmp_path: Path) -> None:
    """The board hangs; nobody has to wait for its timeout."""
    os.kill(boards[0].pid, signal.SIGSTOP)
    settings = tmp_path / "drip.toml"
    settings.write_text("[board]\ntimeout_s = 500.0\n")
    command = [sys.executable, "-m", "drip", "sync", boards[0].url, str(tmp_path / "store")]
    command += ["--config", str(settings)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: (tmp_path / "store" / "store.json").exists())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    os.kill(boards[0].pid, signal.SIGCONT)
    assert process.returncode == 130
    assert said == "error: interrupted\n"


def pretend(monkeypatch: pytest.MonkeyPatch, found: dict[str, bool]) -> None:
    listed = [FoundPort(port, None, "test", known) for port, known in found.items()]
    monkeypatch.setattr(ports, "find_ports", lambda: listed)


def test_all_asks_known_ports_only(
    boards: list[NativeDevice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known, unknown = boards[0].url, boards[1].url
    pretend(monkeypatch, {known: True, unknown: False})
    folder = tmp_path / "store"
    assert cli.main(["sync", "--all", str(folder), "--json", "-"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [(item["port"], item["store_new"]) for item in out["boards"]] == [(known, 20)]
    with connect(unknown) as client:
        assert client.status().log_acked == 0
    assert cli.main(["sync", "--all", "--probe", str(folder), "--json", "-"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [item["store_new"] for item in out["boards"]] == [0, 20]
    assert len(Store.open(folder)) == 40


def test_adapters_without_a_board_are_left_out(
    boards: list[NativeDevice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nowhere = str(tmp_path / "nowhere")
    pretend(monkeypatch, {nowhere: True, boards[0].url: True})
    folder = tmp_path / "store"
    assert cli.main(["sync", "--all", str(folder), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert [item["port"] for item in json.loads(printed.out)["boards"]] == [boards[0].url]
    assert f"left out: no such port: {nowhere}" in printed.err
    pretend(monkeypatch, {nowhere: True})
    assert cli.main(["sync", "--all", str(folder)]) == errors.LinkError.exit_code
    assert "no board answers" in capsys.readouterr().err
    pretend(monkeypatch, {nowhere: False})
    assert cli.main(["sync", "--all", str(folder)]) == errors.LinkError.exit_code
    assert "--probe" in capsys.readouterr().err


def test_a_store_may_be_a_url(
    boards: list[NativeDevice],
    cards: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    away, here = "memory://bench/url", f"file://{tmp_path}/store"
    assert cli.main(["sync", boards[0].url, away, "--keep", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["store_new"] == 20
    assert cli.main(["store", "stats", away, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 20
    boards[0].cut_power()
    assert cli.main(["card", "pull", str(cards[0]), away, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["store_new"] == 0
    assert cli.main(["sync", boards[1].url, here]) == 0
    assert len(Store.open(tmp_path / "store")) == 20
    (tmp_path / "drip.toml").write_text(f'[store]\npath = "{away}"\n')
    assert cli.main(["sync", boards[2].url]) == 0
    assert len(Store.open(away)) == 40
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".img"}
    assert left == {"state", "store", "drip.toml"}, "no folder is called memory:"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--all", "port", "store"],
        ["port", "store", "--probe"],
        ["port", "store", "--watch", "--dry-run"],
        [],
    ],
)
def test_contradictions_are_refused(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sync", *arguments]) == errors.UsageError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
