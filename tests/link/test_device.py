"""The device, request by request, over a line in memory."""

from __future__ import annotations

import random
import zlib

import pytest
from device_board import (
    FRAMES,
    DeviceBoard,
    board,
    digits_model,
    feed_body,
    ffi,
    lib,
    model_id,
    new_card,
    new_flash,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from drip import wire
from drip.wire import Config, Err, FrameType


def test_hello_says_who_it_is():
    hello = board(card=new_card()).hello()
    assert hello.schema_hash == wire.SCHEMA_HASH
    assert hello.device_id == bytes(range(16))
    assert hello.port.rstrip(b"\0") == b"memory"
    assert hello.model_id == model_id(digits_model())
    assert hello.log_uuid == bytes(range(16))
    assert (hello.class_count, hello.frame_bytes, hello.max_body) == (10, 4096, 1088)
    assert hello.card_state == wire.CardState.READY
    can = wire.Capability
    assert hello.capabilities == can.FEED | can.CARD | can.STREAM
    assert hello.boot_id == 1


def test_longer_bodies_are_accepted_and_shorter_ones_refused():
    device = board(card=new_card())
    request = wire.HelloRequest(size=24, version=2, protocol=1, schema_hash=wire.SCHEMA_HASH)
    assert device.code(FrameType.HELLO, request.pack() + bytes(8)) == 0
    assert device.code(FrameType.HELLO, request.pack()[:-1]) == Err.SHORT
    assert device.code(FrameType.STATUS, bytes(30)) == 0
    for kind, size in [
        (FrameType.TIME, 8),
        (FrameType.FEED, 16),
        (FrameType.SCORE, 16),
        (FrameType.READ, 16),
        (FrameType.ACK, 16),
        (FrameType.MODEL, 48),
        (FrameType.CONFIG_SET, 8),
    ]:
        assert device.code(kind, bytes(size - 1)) == Err.SHORT
    read = wire.ReadRequest(position=0, size=512).pack()
    assert device.code(FrameType.READ, read + bytes(10)) == Err.RANGE


def test_another_schema_may_look_and_read_but_not_change():
    device = board(card=new_card())
    kept = device.feed(FRAMES[0])
    device.boot()
    device.run()
    for _ in range(2):
        assert device.code(FrameType.CONFIG_SET, bytes(8)) == Err.SCHEMA
        assert device.code(FrameType.FEED, feed_body(FRAMES[1])) == Err.SCHEMA
        assert device.code(FrameType.SCORE, feed_body(FRAMES[1])) == Err.SCHEMA
        assert device.code(FrameType.MODEL, bytes(48)) == Err.SCHEMA
        assert device.hello(schema_hash=12345).schema_hash == wire.SCHEMA_HASH
    assert device.status().frames_seen == 0
    assert device.code(FrameType.SYNC) == 0
    assert device.code(FrameType.TIME, bytes(8)) == 0
    read = wire.ReadRequest(position=device.status().log_tail, size=512).pack()
    assert device.code(FrameType.READ, read) in (0, Err.RANGE)
    device.hello()
    assert device.feed(FRAMES[1]).keep == kept.keep == 1


def test_unknown_requests_are_refused_and_answers_ignored():
    device = board()
    assert device.code(FrameType.BAUD, bytes(4)) == Err.UNSUPPORTED
    assert device.code(77) == Err.UNSUPPORTED
    device.post(FrameType.HELLO | wire.RESPONSE, bytes(16))
    device.post(FrameType.EVENT, bytes(8))
    device.run()
    assert device.answers() == []


def test_a_frame_is_fed_scored_logged_and_read_back():
    device = board(card=new_card())
    assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
    results = [device.feed(frame, token=100 + n) for n, frame in enumerate(FRAMES)]
    assert [result.token for result in results] == list(range(100, 140))
    assert {result.keep for result in results} == {1}
    assert {result.model_id for result in results} == {model_id(digits_model())[:8]}
    seqs = [result.seq for result in results]
    assert seqs == list(range(seqs[0], seqs[0] + 40))
    assert device.code(FrameType.SYNC) == 0
    status = device.status()
    assert (status.frames_seen, status.frames_kept, status.records_pending) == (40, 40, 0)
    assert sum(status.histogram) == 40
    position = status.log_acked
    data = b""
    while position < status.log_durable:
        body = device.ask(FrameType.READ, wire.ReadRequest(position=position, size=1024).pack())
        answer = wire.ReadResponse.unpack(body)
        assert (answer.code, answer.position, answer.size) == (0, position, len(body) - 16)
        data += body[16:]
        position += answer.size
    assert answer.flags == wire.LogFlag.END
    at = data.index(FRAMES[0])
    record = wire.RecordHeader.unpack(data, at - wire.RecordHeader.SIZE)
    assert record.payload_crc == zlib.crc32(FRAMES[0])
    assert (record.seq, record.raw_score) == (results[0].seq, results[0].raw_score)
    assert record.flags == results[0].reason == wire.Reason.SCHEDULE
    assert all(frame in data for frame in FRAMES)


def test_reading_where_nothing_is():
    device = board(card=new_card())
    device.feed(FRAMES[0])
    assert device.code(FrameType.SYNC) == 0
    status = device.status()
    beyond = wire.ReadRequest(position=status.log_durable + (1 << 20), size=512)
    answer = wire.ReadResponse.unpack(device.ask(FrameType.READ, beyond.pack()))
    assert (answer.code, answer.flags, answer.size) == (Err.RANGE, wire.LogFlag.END, 0)
    assert device.code(FrameType.READ, wire.ReadRequest(position=0, size=0).pack()) < 0


def test_chunks_come_in_order_and_repeated_ones_are_harmless():
    device = board(model=None, card=new_card())
    frame = random.Random(1).randbytes(3000)
    assert device.code(FrameType.FEED, feed_body(frame, offset=1024)) == Err.RANGE
    assert device.code(FrameType.FEED, feed_body(frame)) == 0
    body = device.ask(FrameType.FEED, feed_body(frame, offset=2048))
    assert wire.Response.unpack(body) == wire.Response(code=Err.RANGE, detail=1024)
    body = device.ask(FrameType.FEED, feed_body(frame, offset=1024))
    assert wire.Response.unpack(body) == wire.Response(code=0, detail=2048)
    body = device.ask(FrameType.FEED, feed_body(frame, offset=1024))
    assert wire.Response.unpack(body) == wire.Response(code=0, detail=2048)
    last = feed_body(frame, offset=2048)
    first = device.ask(FrameType.FEED, last, request_id=900)
    assert device.ask(FrameType.FEED, last, request_id=900) == first
    assert device.status().frames_seen == 1
    result = wire.Result.unpack(first, 4)
    assert (result.keep, result.reason) == (1, wire.Reason.NO_MODEL)
    # Another request is another frame, though its bytes are the same.
    assert device.code(FrameType.FEED, last, request_id=901) == Err.RANGE
    device.feed(frame[:900], token=5)
    device.feed(frame[:900], token=5)
    assert device.status().frames_seen == 3
    assert device.code(FrameType.SYNC) == 0
    assert device.status().frames_kept == 3


def test_an_unfinished_frame_is_forgotten_after_a_while():
    device = board(model=None)
    frame = bytes(2000)
    assert device.code(FrameType.FEED, feed_body(frame)) == 0
    device.wait(2.5)
    assert device.code(FrameType.FEED, feed_body(frame, offset=1024)) == Err.RANGE


def test_frames_that_do_not_fit_are_refused():
    device = board()
    assert device.code(FrameType.FEED, feed_body(bytes(63))) == Err.ARGUMENT
    assert device.code(FrameType.FEED, feed_body(bytes(4097))) == Err.MEMORY
    assert device.code(FrameType.FEED, wire.Feed(frame_bytes=64).pack()) == Err.ARGUMENT
    long = wire.Feed(frame_bytes=64, offset=60).pack() + bytes(5)
    assert device.code(FrameType.FEED, long) == Err.ARGUMENT
    huge = wire.Feed(frame_bytes=64, offset=0xFFFFFFFF).pack() + bytes(5)
    assert device.code(FrameType.FEED, huge) == Err.ARGUMENT
    assert DeviceBoard().status().frames_seen == 0
    bare = board(model=None)
    assert bare.code(FrameType.SCORE, feed_body(FRAMES[0])) == Err.NO_MODEL


def test_score_answers_like_feed_but_leaves_no_trace():
    kinds = [wire.ScoreKind.CAM_EVIDENCE, wire.ScoreKind.MARGIN, wire.ScoreKind.RANDOM]
    for kind in kinds:
        plain, asked = board(card=new_card()), board(card=new_card())
        for device in (plain, asked):
            assert device.config(score_kind=kind, random_share=20_000, threshold=50_000) == 0
        for number, frame in enumerate(FRAMES):
            before = asked.status()
            scored = asked.feed(frame, number, FrameType.SCORE)
            asked.feed(FRAMES[-number], number, FrameType.SCORE)
            after = asked.status()
            assert after.frames_seen == before.frames_seen
            assert after.histogram == before.histogram
            fed, reference = asked.feed(frame, number), plain.feed(frame, number)
            assert fed == reference
            assert scored.raw_score == fed.raw_score
            assert (scored.class_1, scored.logit_1) == (fed.class_1, fed.logit_1)
            assert (scored.keep, scored.reason, scored.seq) == (0, 0, 0)


def test_requests_in_a_row_are_answered_in_order_over_a_slow_line():
    device = board(card=new_card())
    device.feed(FRAMES[0])
    assert device.code(FrameType.SYNC) == 0
    position = device.status().log_acked
    wanted = [
        device.post(FrameType.READ, wire.ReadRequest(position=position, size=512).pack())
        for _ in range(8)
    ]
    wanted.append(device.post(FrameType.STATUS))
    wanted.append(device.post(FrameType.FEED, feed_body(FRAMES[1])))
    wanted.append(device.post(FrameType.SYNC))
    device.line_free = 0
    got: list[int] = []
    for _ in range(20_000):
        device.line_free = 3
        device.card.time_us += 100
        lib.drip_device_step(device.device)
        got += [frame.id for frame in device.answers()]
    device.line_free = 1 << 30
    assert got == wanted


def test_settings_are_read_back_checked_and_applied_all_or_nothing():
    device = board()

    def get() -> dict[int, int]:
        body = device.ask(FrameType.CONFIG_GET)[4:]
        items = [wire.ConfigItem.unpack(body, at) for at in range(0, len(body), 8)]
        return {item.key: item.value for item in items}

    assert set(get()) == {int(key) for key in Config}
    wanted = {
        "score_kind": wire.ScoreKind.MARGIN,
        "policy_kind": wire.PolicyKind.EVERY_KTH,
        "threshold": 1234,
        "random_share": 99,
        "seed": 77,
        "every_k": 3,
        "commit_ms": 5,
        "commit_bytes": 600,
        "events": 1,
        "full_mode": 0,
        "threshold_high": 60000,
        "target": 6554,
        "pace_s": 86400,
        "burst": 64,
        "floor_share": 3277,
        "floor_count": 5,
        "redundancy": 20,
        "drift_limit": 300,
        "class_floor": 62,
    }
    assert device.config(**wanted) == 0
    before = get()
    assert before == {int(Config[name.upper()]): value for name, value in wanted.items()}
    for bad in [
        {"policy_kind": 9},
        {"policy_kind": 257},
        {"threshold": 65537},
        {"random_share": 65536},
        {"every_k": 0},
        {"events": 2},
        {"full_mode": 3},
        {"score_kind": max(wire.ScoreKind) + 1},
        {"target": 65537},
        {"burst": 16384},
        {"floor_count": 31},
        {"redundancy": 65537},
        {"class_floor": 63},
    ]:
        assert device.config(commit_ms=9, **bad) < 0
        assert get() == before
    unknown = wire.ConfigItem(key=99, length=4, value=1).pack()
    body = device.ask(FrameType.CONFIG_SET, unknown)
    assert wire.Response.unpack(body) == wire.Response(code=Err.ARGUMENT, detail=99)


def test_time_is_taken_and_given():
    device = board(card=new_card())
    body = device.ask(FrameType.TIME, wire.TimeRequest(unix_us=10**15).pack())
    answer = wire.TimeResponse.unpack(body)
    assert (answer.code, answer.boot_id) == (0, 1)
    assert abs(answer.time_us - device.card.time_us) < 10_000
    device.card.time_us = 123_456_789_000
    assert device.status().uptime_ms - 123_456_789 < 100


def test_reset_answers_makes_the_log_durable_and_restarts():
    device = board(card=new_card())
    assert device.config(policy_kind=wire.PolicyKind.ALL, commit_ms=1_000_000) == 0
    seq = device.feed(FRAMES[0]).seq
    assert device.status().records_pending == 1
    start = device.status().log_acked
    device.post(FrameType.RESET)
    device.wait(0.1)
    assert [frame.type for frame in device.answers()] == [FrameType.RESET | wire.RESPONSE]
    assert device.resets == 1
    device.boot()
    device.run()
    assert device.hello().boot_id == 2
    assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
    assert device.feed(FRAMES[1]).seq > seq
    body = device.ask(FrameType.READ, wire.ReadRequest(position=start, size=1024).pack())
    assert FRAMES[0] in body


def test_events_come_when_asked_for():
    device = board(card=new_card())
    assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
    device.feed(FRAMES[0])
    assert device.answers() == []
    assert device.config(events=1) == 0
    number = device.post(FrameType.FEED, feed_body(FRAMES[1]))
    device.run()
    device.wait(0.01)
    frames = device.answers()
    assert [frame.type for frame in frames if frame.id == number] == [
        FrameType.FEED | wire.RESPONSE
    ]
    result = wire.Result.unpack(next(f.body for f in frames if f.id == number), 4)
    events = [frame for frame in frames if frame.type == FrameType.EVENT]
    kept = [wire.EventKept.unpack(frame.body) for frame in events if frame.body[0] == 1]
    assert [(event.seq, event.class_1, event.size) for event in kept] == [
        (result.seq, result.class_1, 16)
    ]


def test_the_sensor_is_read_while_the_host_pulls():
    device = board(card=new_card(), sensor=True)
    assert device.config(policy_kind=wire.PolicyKind.ALL) == 0
    device.sensor = [*FRAMES, bytes(10)]
    for _ in range(30):
        device.post(FrameType.STATUS)
        device.wait(0.002)
    device.run()
    assert len(device.answers()) == 30
    status = device.status()
    assert (status.frames_seen, status.frames_kept) == (41, 41)
    assert device.hello().capabilities & wire.Capability.SENSOR


def test_a_frame_can_be_offered_directly():
    device = board(card=new_card())
    data = ffi.new("uint8_t[]", FRAMES[3])
    frame = ffi.new("drip_frame_t *", {"data": data, "size": 64, "token": 9})
    assert lib.drip_device_offer(device.device, frame) == 0
    assert lib.drip_device_offer(device.device, frame) == Err.BUSY
    device.run()
    result = ffi.new("drip_result_t *")
    assert lib.drip_device_idle(device.device, result) == 1
    assert (result.token, result.class_1) == (9, device.feed(FRAMES[3]).class_1)
    lib.drip_device_lost(device.device, 4)
    assert device.status().frames_dropped_queue == 4


def test_init_refuses_missing_or_misaligned_memory():
    device = board()
    for name, value in [
        ("arena", ffi.NULL),
        ("arena", device.memory.arena + 8),
        ("capture", device.memory.capture + 4),
        ("scratch", device.memory.scratch + 2),
    ]:
        memory = ffi.new("drip_device_memory_t *", device.memory[0])
        setattr(memory, name, value)
        assert lib.drip_device_init(device.device, device.card.port, memory) == Err.ARGUMENT


@given(
    data=st.lists(
        st.one_of(
            st.tuples(st.integers(0, 255), st.binary(max_size=100)),
            st.tuples(st.integers(1, 14), st.binary(max_size=60)),
        ),
        max_size=12,
    ),
    noise=st.binary(max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_any_request_is_survived_and_answered_once(data, noise):
    device = board(card=new_card(256), flash=new_flash())
    device._to_device += noise + b"\0"
    reset_at = len(data)
    wanted = []
    for at, (kind, body) in enumerate(data):
        number = device.post(kind, body)
        if not kind & wire.RESPONSE and kind != FrameType.EVENT:
            if kind == FrameType.RESET:
                reset_at = min(reset_at, at)
            if at <= reset_at:
                wanted.append(number)
    device.wait(0.05)
    got = [frame.id for frame in device.answers() if frame.type != FrameType.EVENT]
    assert sorted(got[: len(wanted)]) == wanted
    device.boot()
    device.run()
    assert device.hello().schema_hash == wire.SCHEMA_HASH


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_the_line_is_served_while_a_model_computes(size):
    """A status answer takes at most one step of the engine, whatever the frame."""
    device = board(card=new_card())
    for frame in FRAMES[:5]:
        fed = device.post(FrameType.FEED, feed_body(frame))
        asked = device.post(FrameType.STATUS, bytes(size))
        lib.drip_device_step(device.device)
        early = [frame.id for frame in device.answers()]
        assert early == [asked]
        device.run()
        assert [frame.id for frame in device.answers()] == [fed]
