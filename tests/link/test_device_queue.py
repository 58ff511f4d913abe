"""Frames of the sensor that wait for the device: order, requests in between, restarts."""

from __future__ import annotations

import pytest
from cardsim import SimCard
from device_board import DeviceBoard, digits_model, feed_body, ffi, lib, new_card

from drip import wire
from drip.wire import Err, FrameType

PLACES, BYTES = 4, 100
KEEP = {"policy_kind": wire.PolicyKind.ALL, "commit_ms": 0}


class QueueBoard(DeviceBoard):
    """A board that lends its device several places for frames."""

    def _lend(self, arena_bytes: int, capture_bytes: int) -> None:
        super()._lend(arena_bytes, PLACES * ((capture_bytes + 7) // 8 * 8))
        self._captured = ffi.new("drip_frame_t[]", PLACES)
        self.memory.captured = self._captured
        self.memory.capture_frames = PLACES
        self.memory.capture_bytes = capture_bytes


def board(card: SimCard | None = None, **options: object) -> QueueBoard:
    made = QueueBoard(
        card=card or new_card(),
        capture_bytes=BYTES,
        sensor=True,
        **options,  # type: ignore[arg-type]
    )
    made.run()
    made.hello()
    assert made.config(**KEEP) == 0
    return made


def frame(number: int, size: int = 64) -> bytes:
    return bytes([number % 16]) * size


def stored(device: DeviceBoard) -> list[bytes]:
    """Frames on the card, in order."""
    from drip.records import is_frame, parse_segment

    assert device.code(FrameType.SYNC) == 0
    status = device.status()
    data = b""
    while len(data) < status.log_durable:
        asked = wire.ReadRequest(position=len(data), size=512).pack()
        data += device.ask(FrameType.READ, asked)[16:]
    return [found.payload for found in parse_segment(data).records if is_frame(found.header)]


def test_frames_leave_the_queue_in_the_order_they_came():
    device = board()
    wanted = [frame(number, 1 + 13 * number % BYTES) for number in range(30)]
    device.card.polls_busy = 30
    for number in range(0, 30, PLACES):
        device.sensor += wanted[number : number + PLACES]
        device.wait(0.5)
    device.card.polls_busy = 0
    device.run()
    assert stored(device) == wanted
    status = device.status()
    assert (status.frames_seen, status.frames_kept) == (30, 30)
    assert 2 <= status.queue_high_water <= PLACES


def test_no_more_frames_are_asked_for_than_there_are_places():
    device = board()
    device.card.polls_busy = 1000
    device.sensor += [frame(number) for number in range(20)]
    device.wait(0.05)
    assert len(device.sensor) == 20 - PLACES
    assert device.device.queue.count == PLACES
    assert device.device.status.queue_high_water == PLACES
    device.card.polls_busy = 0
    device.wait(5)
    assert device.sensor == []
    assert stored(device) == [frame(number) for number in range(20)]


def test_a_feed_waits_until_the_queue_is_empty_and_then_is_not_disturbed():
    device = board(model=digits_model())
    device.card.polls_busy = 1000
    device.sensor += [frame(number) for number in range(3)]
    device.wait(0.05)
    device.post(FrameType.FEED, feed_body(frame(9)))
    device.wait(0.05)
    assert [wire.Response.unpack(found.body).code for found in device.answers()] == [Err.BUSY]
    device.card.polls_busy = 0
    device.wait(1)
    first = device.feed(frame(9), token=1)
    device.sensor += [frame(4)]
    assert first.keep == 1
    device.wait(1)
    assert stored(device) == [frame(0), frame(1), frame(2), frame(9), frame(4)]


def test_the_sensor_goes_on_while_a_fed_frame_is_being_decided():
    device = board(model=digits_model())
    device.sensor += [frame(number) for number in range(PLACES - 1)]
    device.post(FrameType.FEED, feed_body(frame(9)))
    device.wait(2)
    answer = next(a for a in device.answers() if a.type == FrameType.FEED | wire.RESPONSE)
    code = wire.Response.unpack(answer.body).code
    assert code in (Err.OK, Err.BUSY)
    expected = [frame(number) for number in range(PLACES - 1)]
    found = stored(device)
    assert sorted(found) == sorted(expected + ([frame(9)] if code == Err.OK else []))


def test_a_restart_first_takes_what_waits():
    device = board()
    device.card.polls_busy = 200
    device.sensor += [frame(number) for number in range(PLACES)]
    device.wait(0.005)
    device.post(FrameType.RESET)
    device.wait(0.001)
    device.sensor += [frame(9)]
    while not device.resets:
        device.wait(0.001)
    assert device.sensor == [frame(9)]
    device.sensor.clear()
    device.card.polls_busy = 0
    device.boot()
    device.run()
    device.hello()
    assert stored(device) == [frame(number) for number in range(PLACES)]


def test_memory_for_the_queue_is_checked():
    device = board()
    device.memory.captured = ffi.NULL
    made = lib.drip_device_init(device.device, device.card.port, device.memory)
    assert made == Err.ARGUMENT
    device.memory.capture_frames = 1
    assert lib.drip_device_init(device.device, device.card.port, device.memory) == 0


@pytest.mark.parametrize("trouble", ["absent", "protected"])
def test_the_queue_goes_on_without_a_card_and_all_is_counted(trouble):
    device = board()
    setattr(device.card, trouble, True)
    for number in range(12):
        device.sensor += [frame(number)]
        device.wait(0.3)
    status = device.status()
    state = {"absent": wire.CardState.ABSENT, "protected": wire.CardState.PROTECTED}[trouble]
    assert status.card_state == state
    assert (status.frames_seen, status.frames_kept + status.frames_dropped_card) == (12, 12)
    assert status.frames_dropped_card >= 11
    setattr(device.card, trouble, False)
    device.wait(2)
    device.sensor += [frame(12)]
    device.wait(1)
    assert device.status().card_state == wire.CardState.READY
    assert stored(device)[-1] == frame(12)


def test_a_reset_leaves_the_powered_on_time_on_the_card():
    device = board()
    device.wait(7.5)
    assert device.status().powered_s == 0, "the first state is written after 10 s"
    device.post(FrameType.RESET)
    while not device.resets:
        device.wait(0.001)
    device.boot()
    device.run()
    device.hello()
    assert device.status().powered_s == 7
