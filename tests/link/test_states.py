"""What a person is told: card states, events, interrupted syncs, files that cannot be written."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from fake_device import FakeDevice
from synced import contents, recorded

from drip import cli, errors, wire
from drip.bench.line import LineEnd, SimDevice
from drip.device import Client, monitor, opening
from drip.device.states import card_trouble, describe_event
from drip.store import Store
from drip.sync import fleet, sync_device

CARD = errors.CardError.exit_code
STATES = {
    wire.CardState.ABSENT: ("has no card", "insert a card"),
    wire.CardState.FOREIGN: ("without a DRIP log", "drip card format"),
    wire.CardState.ERROR: ("cannot read its card", "replace the card"),
    wire.CardState.PROTECTED: ("write-protected", "lock switch"),
    wire.CardState.FRAGMENTED: ("not in one piece", "drip card pull DRIP00.LOG"),
}


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """A board with some frames behind every port."""
    device = recorded()
    monkeypatch.setattr(opening, "open_transport", lambda *_, **__: device)
    return device


def test_every_state_of_a_card_in_which_nothing_is_logged_has_words() -> None:
    fine = {wire.CardState.READY, wire.CardState.FULL}
    for state in set(wire.CardState) - fine:
        trouble = card_trouble(state)
        assert trouble is not None and all(trouble), state
    assert card_trouble(200) is None


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_sync_and_status_say_what_is_wrong_with_the_card_and_what_to_do(
    state: wire.CardState,
    plugged: FakeDevice,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugged.card_state = state
    what, hint = STATES[state]
    assert cli.main(["sync", "port", str(tmp_path / "store")]) == CARD
    error, advice = capsys.readouterr().err.splitlines()
    assert error.startswith("error: fake ") and what in error
    assert advice.startswith("hint: ") and hint in advice
    assert wire.FrameType.READ not in plugged.seen
    # A board without a usable card answers all the same: that is no error of status.
    assert cli.main(["status", "port"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert state.name.lower() in shown
    assert "what to do" in shown
    assert cli.main(["monitor", "port", "--once", "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["card_state"] == state.name.lower()
    assert hint in figures["card_hint"]


def test_a_card_that_is_fine_needs_no_advice(
    plugged: FakeDevice, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "port"]) == 0
    assert "what to do" not in capsys.readouterr().out
    plugged.card_state = wire.CardState.FULL
    assert cli.main(["status", "port"]) == 0
    assert "drip sync" in capsys.readouterr().out


# ---------------------------------------------------------------- events


def test_monitor_hears_what_happens_between_two_looks() -> None:
    device = SimDevice(card_bytes=1 << 20, segment_bytes=32 << 10)
    device.run(0.3)
    end = LineEnd(device)
    said: list[str] = []

    @contextlib.contextmanager
    def board():
        with Client(
            end,
            on_event=lambda event: said.append(describe_event(event)),
            clock=end.clock,
            sleep=end.sleep,
        ) as client:
            yield client

    waits = 0

    def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            device.log_frames([b"one"], every_s=0.0)
            device.log_frames([b"two"], every_s=0.0)
        elif waits == 2:
            device.boot()
            device.run(0.3)
        else:
            raise KeyboardInterrupt

    looks = monitor.follow(board, 1.0, sleep)
    first = next(looks)
    assert isinstance(first, monitor.Reading) and first.status.frames_seen == 0
    assert device.device.events == 1
    second = next(looks)
    assert isinstance(second, monitor.Reading) and second.status.frames_seen == 2
    # Only the newest frame is told when several come at once: events never fill the line.
    seq = device.device.result.seq
    assert said[:1] == ["started: power"]
    assert said[-1].startswith(f"kept frame {seq}: class 0")
    del said[:]
    third = next(looks)
    assert isinstance(third, monitor.Reading) and third.status.frames_seen == 0
    assert said == ["started: power"]
    with pytest.raises(KeyboardInterrupt):
        next(looks)
    assert device.device.events == 0


def test_every_kind_of_event_has_words() -> None:
    kept = wire.EventKept(kind=wire.Event.KEPT, seq=7, class_1=3, percentile=wire.PERCENTILE_ONE)
    assert describe_event(kept) == "kept frame 7: class 3, score 100.0 %"
    card = wire.EventState(kind=wire.Event.CARD, state=wire.CardState.ERROR, code=int(wire.Err.IO))
    assert describe_event(card) == "card: error (io)"
    boot = wire.EventState(kind=wire.Event.BOOT, state=wire.BootReason.WATCHDOG)
    assert describe_event(boot) == "started: watchdog"
    drift = wire.EventDrift(kind=wire.Event.DRIFT, psi_score=250, psi_class=90, frames=1000)
    assert "0.25" in describe_event(drift) and "1000 frames" in describe_event(drift)
    assert describe_event(wire.EventState(kind=99)) == "event 99"


# ---------------------------------------------------------------- after an interruption


def test_what_an_interrupted_sync_has_pulled_is_brought_in_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    store = Store.open(tmp_path / "store", create=True)
    device = recorded()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", killed)
        with pytest.raises(KilledError):
            sync_device(device.client(), store)
    assert len(store) == 0
    assert cli.main(["store", "ingest", str(store.path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"new": 60, "duplicates": 0, "conflicts": 0}
    assert contents(Store.open(tmp_path / "store")) == device.log.frames
    assert cli.main(["store", "ingest", str(store.path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 0


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("target", ["missing/x.json", "."])
def test_a_target_that_cannot_be_written_is_refused_before_any_work(
    plugged: FakeDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = cli.main(["sync", "port", "store", "--json", target])
    assert code == errors.StoreError.exit_code
    assert "cannot write" in capsys.readouterr().err
    assert plugged.seen == []
    assert not (tmp_path / "store").exists()


def test_what_is_no_card_leaves_no_store_behind(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(bytes(range(256)) * 64)
    for image in ("junk", "missing"):
        assert cli.main(["card", "pull", str(tmp_path / image), str(tmp_path / "store")]) == CARD
        assert not (tmp_path / "store").exists()


def test_making_a_card_tells_scripts_about_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card.img"
    assert cli.main(["card", "format", str(card), "--size", "1M", "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["file"], figures["bytes"]) == (str(card), 1 << 20)
    assert len(bytes.fromhex(figures["log_uuid"])) == 16


def test_boards_are_opened_in_one_way_only() -> None:
    """What connect() does about rates, sync must do too."""
    assert fleet.connect is opening.connect
