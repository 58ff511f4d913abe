"""Several boards at once; real processes and ptys."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from fleets import LINE
from synced import contents, recorded

from drip.device import MemoryTransport, NativeDevice, connect, opening
from drip.errors import LinkError
from drip.store import Store
from drip.sync import SyncReport, fleet
from drip.sync.fleet import Line, Options, sync_boards

if os.name == "nt":
    pytest.skip("ptys are POSIX", allow_module_level=True)


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
