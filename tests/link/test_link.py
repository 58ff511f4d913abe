"""Two ends of the C link over a channel that garbles, drops and chops."""

from __future__ import annotations

import random

from ends import End, Received, ffi, lib, reference_encoding
from hypothesis import given, settings
from hypothesis import strategies as st

BODIES = st.one_of(
    st.binary(max_size=1088),
    st.integers(0, 1088).map(bytes),
    st.tuples(st.integers(0, 1088), st.integers(1, 255)).map(lambda c: bytes([c[1]]) * c[0]),
    st.lists(st.tuples(st.integers(0, 260), st.integers(0, 255)), max_size=12).map(
        lambda runs: b"".join(bytes([value]) * count for count, value in runs)[:1088]
    ),
)


@given(body=BODIES, frame_type=st.integers(0, 255), frame_id=st.integers(0, 65535))
@settings(max_examples=300, deadline=None)
def test_every_body_travels_and_equals_the_reference(body, frame_type, frame_id):
    sender, receiver = End(), End()
    assert sender.send(frame_type, frame_id, body) == 0
    wire = sender.pump()
    assert wire == reference_encoding(frame_type, frame_id, body)
    assert receiver.receive(wire) == [Received(frame_type, frame_id, body)]
    assert receiver.link.errors == 0


def test_every_length_travels():
    sender, receiver = End(), End()
    noise = random.Random(5)
    for size in range(lib.DRIP_MAX_BODY_BYTES + 1):
        body = noise.randbytes(size)
        assert sender.send(7, size, body) == 0
        wire = sender.pump()
        assert wire == reference_encoding(7, size, body)
        assert receiver.receive(wire) == [Received(7, size, body)]
    assert receiver.link.errors == 0


def test_a_body_too_long_is_refused_and_a_frame_too_long_is_dropped():
    end = End()
    assert end.send(7, 1, bytes(1089)) == lib.DRIP_ERR_ARGUMENT
    assert not lib.drip_link_busy(end.link)
    good = reference_encoding(2, 3, b"after")
    for extra in (1089, 1500, 70_000):
        before = end.link.errors
        assert end.receive(reference_encoding(7, 1, b"\x55" * extra) + good) == [
            Received(2, 3, b"after")
        ]
        assert end.link.errors == before + 1


def test_only_one_frame_is_under_way_and_its_body_is_kept():
    end = End(takes=0)
    assert end.send(1, 1, b"first") == 0
    assert lib.drip_link_body(end.link) == ffi.NULL
    assert end.send(1, 2, b"second") == lib.DRIP_ERR_BUSY
    end.takes = 1
    assert end.pump() == reference_encoding(1, 1, b"first")
    assert end.send(1, 2, b"second") == 0


@given(
    bodies=st.lists(BODIES, min_size=1, max_size=5),
    takes=st.integers(1, 300),
    chunks=st.lists(st.integers(1, 200), min_size=1, max_size=20),
    gives=st.integers(1, 64),
)
@settings(max_examples=100, deadline=None)
def test_any_chunking_gives_the_same_frames(bodies, takes, chunks, gives):
    sender, receiver = End(takes=takes), End()
    receiver.gives = gives
    wire = b""
    for number, body in enumerate(bodies):
        assert sender.send(9, number, body) == 0
        wire += sender.pump()
    got = []
    at = 0
    turn = 0
    while at < len(wire):
        size = chunks[turn % len(chunks)]
        got += receiver.receive(wire[at : at + size])
        at += size
        turn += 1
    assert got == [Received(9, number, body) for number, body in enumerate(bodies)]


@given(garbage=st.binary(max_size=3000), body=BODIES)
@settings(max_examples=200, deadline=None)
def test_a_frame_behind_any_garbage_arrives(garbage, body):
    receiver = End()
    frame = reference_encoding(8, 77, body)
    assert receiver.receive(garbage + frame)[-1] == Received(8, 77, body)


def test_boot_text_counts_once_per_piece():
    receiver = End()
    frame = reference_encoding(1, 5, b"\1\2\3")
    boot = b"rst:0x1 (POWERON_RESET),boot:0x13\r\nload:0x3fff0030,len:1184\r\n"
    assert receiver.receive(boot + frame + b">>> " + frame) == [Received(1, 5, b"\1\2\3")] * 2
    assert receiver.link.errors == 2


@given(
    bodies=st.lists(BODIES, min_size=2, max_size=8),
    seed=st.integers(0, 1 << 32),
    rate=st.sampled_from([0.0005, 0.002, 0.01]),
)
@settings(max_examples=150, deadline=None)
def test_a_faulty_line_never_makes_a_frame_up(bodies, seed, rate):
    noise = random.Random(seed)
    sender, receiver = End(), End()
    sent = [Received(3, number, body) for number, body in enumerate(bodies)]
    wire = bytearray()
    for frame in sent:
        assert sender.send(frame.type, frame.id, frame.body) == 0
        for byte in sender.pump():
            draw = noise.random()
            if draw < rate:
                continue
            if draw < 2 * rate:
                byte ^= 1 << noise.randrange(8)
            wire.append(byte)
            if draw > 1 - rate:
                wire += noise.randbytes(noise.randrange(1, 6))
    clean = Received(4, 9, b"clean again")
    # Its leading delimiter may complete a frame whose own last one was lost.
    got = receiver.receive(bytes(wire) + reference_encoding(4, 9, clean.body))
    assert got[-1] == clean
    assert all(frame in sent for frame in got[:-1])


def test_a_cut_frame_costs_itself_only():
    receiver = End()
    frames = [reference_encoding(5, n, bytes([n]) * 300) for n in range(4)]
    for cut in range(1, len(frames[1]) - 1):
        got = receiver.receive(frames[0] + frames[1][:cut] + frames[2])
        assert [frame.id for frame in got] == [0, 2]


def test_the_link_needs_at_most_2500_bytes():
    assert ffi.sizeof("drip_link_t") <= 2500
