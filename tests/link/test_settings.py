"""What survives a restart, what STATUS counts, and changing the rate of the line."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
from device_board import FRAMES, DeviceBoard, board, digits_model, lib, new_card
from flash_model import Flash, PowerLossError

from drip import wire
from drip.bench.line import LineEnd, SimDevice
from drip.device import Client, opening
from drip.errors import LinkError
from drip.store import Store
from drip.sync import sync_device
from drip.wire import Capability, Config, Err, FrameType


def settings(device: DeviceBoard) -> dict[int, int]:
    body = device.ask(FrameType.CONFIG_GET)
    items = [wire.ConfigItem.unpack(body, at) for at in range(4, len(body), 8)]
    return {item.key: item.value for item in items}


def restart(device: DeviceBoard) -> None:
    device.boot()
    device.run()
    device.hello()


def test_settings_survive_a_restart_on_a_board_with_a_journal():
    device = board(card=new_card(), flash=Flash())
    assert device.hello().capabilities & Capability.CONFIG
    assert device.config(threshold=1234, random_share=77, events=1, commit_ms=50) == 0
    before = settings(device)
    assert before[Config.THRESHOLD] == 1234
    restart(device)
    after = settings(device)
    assert after == before | {int(Config.EVENTS): 0}
    # The same again writes nothing.
    operations = device.flash.operations
    assert device.config(threshold=1234) == 0
    assert device.flash.operations == operations
    assert device.config(threshold=70000) == Err.ARGUMENT
    restart(device)
    assert settings(device)[Config.THRESHOLD] == 1234


def test_without_a_journal_settings_end_with_the_power():
    device = board(card=new_card())
    assert not device.hello().capabilities & Capability.CONFIG
    assert device.config(threshold=1234) == 0
    restart(device)
    assert settings(device)[Config.THRESHOLD] != 1234


def test_settings_and_models_share_the_journal():
    """Many changes wear the journal round; neither loses the other's newest entry."""
    blob = digits_model()
    device = board(card=new_card(), flash=Flash(slot_bytes=16384), model=None)
    for number in range(12):
        assert device.config(threshold=1000 + number) == 0
        if number == 5:
            assert device.upload(blob).code == 0
            assert device.model_op(wire.ModelOp.TRIAL).code == 0
            assert device.model_op(wire.ModelOp.CONFIRM).code == 0
        restart(device)
        assert settings(device)[Config.THRESHOLD] == 1000 + number
        assert (device.hello().class_count == 10) == (number >= 5)


@pytest.mark.parametrize("torn", [0.0, 0.5, 1.0])
def test_power_loss_while_settings_are_written_leaves_old_or_new(torn):
    blob = digits_model()
    for cut in range(12):
        flash = Flash(slot_bytes=16384, journal_bytes=512)
        device = board(card=new_card(), flash=flash, model=None)
        assert device.upload(blob).code == 0
        assert device.model_op(wire.ModelOp.TRIAL).code == 0
        assert device.model_op(wire.ModelOp.CONFIRM).code == 0
        flash.cut_at, flash.torn = flash.operations + cut, torn
        flash.busy_polls = 10  # longer than a step: a dead device does nothing any more
        said = 0
        with contextlib.suppress(PowerLossError):
            for value in range(1, 15):
                item = wire.ConfigItem(key=Config.THRESHOLD, length=4, value=value)
                device.post(FrameType.CONFIG_SET, item.pack())
                while not device.sent:
                    device.card.time_us += 100
                    lib.drip_device_step(device.device)
                    flash.check_power()
                assert wire.Response.unpack(device.answers()[0].body).code == 0
                said = value
        flash.cut_at, flash.busy_polls = None, 1
        restart(device)
        kept = settings(device)[Config.THRESHOLD]
        assert kept in (said, said + 1) or (said == 0 and kept == settings(board())[3])
        assert device.hello().class_count == 10


def test_a_healthy_device_without_a_model_reports_no_error():
    device = board(card=new_card(), flash=Flash(), model=None)
    status = device.status()
    assert (status.last_error, status.model_state) == (0, wire.SlotState.EMPTY)


def test_status_counts_why_frames_were_kept():
    device = board(card=new_card(), model=None)
    for token, frame in enumerate(FRAMES[:3]):
        device.feed(frame, token)
    status = device.status()
    assert (status.kept_no_model, status.kept_threshold) == (3, 0)
    device = board(card=new_card())
    assert device.config(policy_kind=wire.PolicyKind.EVERY_KTH, every_k=2) == 0
    for token, frame in enumerate(FRAMES[:10]):
        device.feed(frame, token)
    status = device.status()
    assert status.kept_schedule == status.frames_kept == 5
    assert status.frames_dropped_policy == 5


# ---------------------------------------------------------------- BAUD


def line(**options: object) -> tuple[SimDevice, LineEnd, Client]:
    device = SimDevice(baud=115_200, card_bytes=1 << 20, segment_bytes=32 << 10, **options)  # type: ignore[arg-type]
    device.run(0.5)
    end = LineEnd(device)
    return device, end, Client(end, clock=end.clock, sleep=end.sleep)


def test_both_ends_change_the_rate():
    device, _, client = line()
    assert client.device.capabilities & Capability.BAUD
    assert client.set_baud(921_600)
    assert (device.baud, device.host_baud, client.device.baud) == (921_600,) * 3
    device.run(8.0)
    assert client.status().card_state == wire.CardState.READY
    client.reset()
    assert device.baud == 115_200


def test_a_rate_that_does_not_work_falls_back_on_both_ends():
    device, end, client = line()
    real = end.set_baud
    end.set_baud = lambda baud: real(baud if baud == 115_200 else baud + 1)  # type: ignore[method-assign]
    assert not client.set_baud(921_600)
    assert (device.baud, device.host_baud) == (115_200, 115_200)
    assert client.status().card_state == wire.CardState.READY
    end.set_baud = real  # type: ignore[method-assign]
    assert not client.set_baud(9_000_000)
    assert device.baud == 115_200
    assert client.set_baud(230_400)


def test_a_host_that_knows_nothing_of_the_rate_gets_the_first_one_back():
    device, end, client = line()
    assert client.set_baud(921_600)
    device.host_baud = 115_200
    later = Client(end, timeout_s=12.0, clock=end.clock, sleep=end.sleep)
    assert later.hello().baud == 115_200
    assert device.baud == 115_200


@pytest.fixture
def opened(monkeypatch):
    """`connect` to a simulated board; its time is the simulation's."""

    def make(end: LineEnd, **options: object) -> Client:
        def client(transport: object, **given: object) -> Client:
            return Client(transport, clock=end.clock, sleep=end.sleep, **given)  # type: ignore[arg-type]

        monkeypatch.setattr(opening, "open_transport", lambda *_, **__: end)
        monkeypatch.setattr(opening, "Client", client)
        return opening.connect("simulated", **options)  # type: ignore[arg-type]

    return make


def test_connecting_raises_the_rate_and_closing_takes_it_back(opened):
    device, end, _ = line()
    with opened(end, max_baud=3_000_000) as client:
        assert (device.baud, device.host_baud, client.device.baud) == (3_000_000,) * 3
        assert client.status().card_state == wire.CardState.READY
    device.run(0.01)
    assert device.baud == 115_200
    device.host_baud = 115_200
    with opened(end, max_baud=500_000) as client:
        assert device.baud == 500_000
    device.run(0.01)
    device.host_baud = 115_200
    with opened(end) as client:
        assert client.device.baud == 115_200


def test_an_adapter_that_is_slower_than_the_board_gets_the_usual_rate(opened):
    device, end, _ = line()
    real = end.set_baud
    end.set_baud = lambda baud: real(min(baud, 921_600))  # type: ignore[method-assign]
    with opened(end, max_baud=3_000_000) as client:
        assert (device.baud, client.device.baud) == (921_600, 921_600)


def test_a_line_whose_rate_does_not_change_stays_as_it_is(opened):
    device, end, _ = line()
    end.set_baud = lambda baud: None  # type: ignore[method-assign]
    with opened(end, max_baud=3_000_000) as client:
        assert (device.baud, client.device.baud) == (115_200, 115_200)
        assert client.status().card_state == wire.CardState.READY

    def refuse(baud: int) -> None:
        if baud != 115_200:
            raise LinkError("no such rate")

    end.set_baud = refuse  # type: ignore[method-assign]
    with opened(end, max_baud=3_000_000) as client:
        assert (device.baud, client.device.baud) == (115_200, 115_200)


def test_a_transport_around_another_one_raises_the_rate_too(opened):
    device, end, _ = line()
    with opened(end, max_baud=921_600, stop=threading.Event()) as client:
        assert (device.baud, client.device.baud) == (921_600, 921_600)


def test_a_cancelled_client_still_takes_the_rate_back(opened):
    device, end, _ = line()
    stop = threading.Event()
    with pytest.raises(KeyboardInterrupt), opened(end, max_baud=921_600, stop=stop) as client:
        stop.set()
        client.status()
    device.run(0.01)
    assert device.baud == 115_200


def test_a_board_that_restarts_at_a_raised_rate_is_found_again(opened):
    device, end, _ = line()
    with opened(end, max_baud=921_600) as client:
        device.boot()
        device.to_host.clear()
        assert client.status().uptime_ms < 20_000
        assert (device.baud, device.host_baud, client.device.baud) == (921_600,) * 3


def test_a_board_that_restarts_at_every_request_is_not_asked_for_ever(opened):
    device, end, _ = line()
    with opened(end, max_baud=921_600) as client:
        write = end.write

        def crash(data: bytes) -> None:
            if len(data) > 3 and data[2] == FrameType.STATUS:
                device.boot()
                device.to_host.clear()
            else:
                write(data)

        end.write = crash  # type: ignore[method-assign]
        began = end.clock()
        with pytest.raises(LinkError, match="stopped answering"):
            client.status()
        assert end.clock() - began < 30.0


@pytest.mark.parametrize("after_s", [0.0, 2.0, 10.0])
def test_a_program_that_died_at_a_raised_rate_does_not_shut_out_the_next(opened, after_s):
    device, end, _ = line()
    opened(end, max_baud=921_600)  # never closed
    device.host_baud = 115_200
    device.run(after_s)
    with opened(end) as client:
        assert client.device.baud == device.baud == 115_200


@pytest.fixture
def recorded():
    """A board with frames on its card, more than one segment of them."""
    device, end, _ = line()
    rng = random.Random(3)
    frames = [rng.randbytes(rng.randrange(1, 1024)) for _ in range(120)]
    device.log_frames(frames, every_s=0.0)
    return device, end, frames


def frames_of(store: Store) -> list[bytes]:
    return sorted(x.tobytes() for group in store.frame_groups() for x in group.x)


@pytest.mark.parametrize("after", [300, 500, 700, 3000, 9000, 11000, 13000])
def test_one_sync_comes_through_when_the_board_restarts_at_a_raised_rate(
    opened, recorded, tmp_path, after
):
    """The board is then at its first rate, and does not know the newest acknowledgements."""
    device, end, frames = recorded
    looks = 0

    def power_fails() -> None:
        nonlocal looks
        looks += 1
        if looks == after:
            device.boot()
            device.to_host.clear()

    end.on_read = power_fails
    store = Store(tmp_path / "store")
    with opened(end, max_baud=921_600) as client:
        report = sync_device(client, store)
        assert (device.baud, device.host_baud, client.device.baud) == (921_600,) * 3
    assert looks > after
    assert frames_of(store) == sorted(frames)
    assert (report.store.new, report.store.duplicates) == (len(frames), 0)
    assert device.status().log_acked == device.status().log_durable


def test_a_sync_goes_on_at_the_first_rate_when_the_raised_one_stops_working(
    opened, recorded, tmp_path
):
    device, end, frames = recorded
    store = Store(tmp_path / "store")
    hear = device.hear
    with opened(end, max_baud=921_600) as client:
        worked_until = end.clock() + 0.3
        device.hear = lambda data: (  # type: ignore[method-assign]
            hear(data) if device.baud == 115_200 or end.clock() < worked_until else bytes(len(data))
        )
        report = sync_device(client, store)
        assert (device.baud, device.host_baud, client.device.baud) == (115_200,) * 3
    assert frames_of(store) == sorted(frames)
    assert (report.store.new, report.store.duplicates) == (len(frames), 0)


# ---------------------------------------------------------------- BOOT


def test_a_start_is_told_once_and_a_waiting_request_is_repeated_at_once():
    device, end, client = line()
    events: list[object] = []
    client = Client(end, on_event=events.append, clock=end.clock, sleep=end.sleep)
    client.hello()
    assert [(event.kind, event.state) for event in events] == [
        (wire.Event.BOOT, wire.BootReason.POWER)
    ]
    looks = 0

    def restart() -> None:
        nonlocal looks
        looks += 1
        if looks == 22:
            device.boot()

    end.on_read = restart
    before = end.clock()
    client.status()
    assert client.repetitions == 1
    assert end.clock() - before < 0.5, "not after the usual second"
    end.on_read = None
    client.reset()
    assert [event.state for event in events[1:]] == [
        wire.BootReason.POWER,
        wire.BootReason.REQUEST,
    ]


def test_a_board_with_a_fixed_rate_refuses():
    device = board(card=new_card())
    request = wire.BaudRequest(op=wire.BaudOp.SET, baud=921_600)
    assert device.code(FrameType.BAUD, request.pack()) == Err.UNSUPPORTED
