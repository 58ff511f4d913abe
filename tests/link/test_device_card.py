"""The device while its card is missing, slow, failing or changed."""

from __future__ import annotations

from device_board import FRAMES, board, feed_body, lib, new_card

from drip import wire
from drip.wire import Err, FrameType


def test_without_a_card_it_keeps_answering_and_counts_what_it_could_not_store():
    device = board()
    assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
    body = device.ask(FrameType.FEED, feed_body(FRAMES[0]))
    assert wire.Response.unpack(body) == wire.Response(code=0, detail=-Err.NO_CARD)
    result = wire.Result.unpack(body, 4)
    assert (result.keep, result.reason) == (0, wire.Reason.SCHEDULE)
    assert device.config(policy_kind=wire.PolicyKind.NONE) == 0
    device.feed(FRAMES[1])
    status = device.status()
    assert status.frames_seen == 2
    assert (status.frames_kept, status.frames_dropped_card) == (0, 1)
    assert status.frames_dropped_policy == 1
    assert status.card_state == wire.CardState.ABSENT
    for kind, size in [(FrameType.READ, 16), (FrameType.ACK, 16), (FrameType.SYNC, 0)]:
        assert device.code(kind, bytes(size)) == Err.NO_CARD


def test_a_card_that_comes_later_is_mounted():
    card = new_card()
    card.absent = True
    device = board(card=card)
    assert device.hello().card_state == wire.CardState.ABSENT
    card.absent = False
    device.wait(1.5)
    assert device.hello().card_state == wire.CardState.READY


def test_a_card_that_fails_loses_only_what_was_not_durable_and_says_so():
    card = new_card()
    device = board(card=card)
    assert device.config(policy_kind=wire.PolicyKind.ALL, commit_ms=1_000_000) == 0
    for frame in FRAMES[:3]:
        device.feed(frame)
    assert device.code(FrameType.SYNC) == 0
    for frame in FRAMES[3:5]:
        device.feed(frame)
    assert device.status().records_pending == 2
    card.write_errors = set(range(card.blocks))
    assert device.code(FrameType.SYNC) == Err.IO
    assert device.feed(FRAMES[5]).keep == 0
    status = device.status()
    assert status.card_state == wire.CardState.ERROR
    assert (status.last_error, status.card_errors > 0) == (Err.IO, True)
    card.write_errors = set()
    device.wait(1.5)
    status = device.status()
    assert status.card_state == wire.CardState.READY
    assert (status.frames_seen, status.frames_kept, status.frames_dropped_card) == (6, 3, 3)
    assert device.feed(FRAMES[6]).keep == 1


def test_feed_is_busy_while_the_log_still_reads_the_frame():
    card = new_card()
    device = board(model=None, card=card)
    card.polls_busy = 100_000
    first = device.post(FrameType.FEED, feed_body(bytes(2048), size=1024))
    second = device.post(FrameType.FEED, feed_body(bytes(2048), offset=1024))
    third = device.post(FrameType.FEED, feed_body(bytes(700), token=2))
    device.wait(0.2)
    answers = {frame.id: wire.Response.unpack(frame.body).code for frame in device.answers()}
    assert answers == {first: 0, second: 0, third: Err.BUSY}
    # The rest of the line is as quick as ever.
    assert device.post(FrameType.STATUS)
    device.wait(0.002)
    assert [frame.type for frame in device.answers()] == [FrameType.STATUS | wire.RESPONSE]
    card.polls_busy = 0
    card._busy = 0
    device.run()
    assert device.code(FrameType.FEED, feed_body(bytes(700), token=2)) == 0


def test_a_sync_waits_for_the_record_that_is_being_written():
    """The answer to FEED comes before its record is on the card, the answer to SYNC after."""
    for busy in (0, 1, 5, 40):
        device = board(card=new_card())
        assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
        device.card.polls_busy = busy
        fed = device.post(FrameType.FEED, feed_body(FRAMES[0]))
        synced = device.post(FrameType.SYNC)
        answers = {}
        on_card = b""
        while synced not in answers:
            device.card.time_us += 100
            lib.drip_device_step(device.device)
            answers |= {answer.id: answer for answer in device.answers()}
            on_card = bytes(device.card.data)
        assert wire.Result.unpack(answers[fed].body, 4).keep == 1
        assert wire.Response.unpack(answers[synced].body).code == 0
        assert FRAMES[0] in on_card, f"busy for {busy} polls"


def test_a_sync_of_a_card_that_was_changed_meanwhile_fails():
    device = board(card=new_card())
    assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
    device.feed(FRAMES[0])
    device.card.polls_busy = 1000
    number = device.post(FrameType.SYNC)
    device.wait(0.01)
    device.line_free = 0
    device.card.absent = True
    device.wait(2)
    device.card.absent = False
    device.card.polls_busy = 0
    device.wait(5)
    device.line_free = 1 << 30
    device.run()
    codes = [wire.Response.unpack(got.body).code for got in device.answers() if got.id == number]
    assert codes == [Err.NO_CARD]
