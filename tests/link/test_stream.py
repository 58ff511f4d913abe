"""READ as a stream: what the device sends for a range, and what the client makes of it."""

from __future__ import annotations

import random
import struct

import pytest
from device_board import DeviceBoard, board, ffi, lib, new_card

from drip import wire
from drip.device import Client
from drip.device.framing import encode_frame
from drip.errors import DeviceError
from drip.records import parse_segment
from drip.wire import Err, FrameType

SEGMENT = 64 * 512


def filled(frames: int = 30, sizes: tuple[int, ...] = (2000,)) -> DeviceBoard:
    device = board(card=new_card(), model=None)
    rng = random.Random(5)
    for token in range(frames):
        size = sizes[token % len(sizes)]
        body = rng.randbytes(size)
        for offset in range(0, size, 1024):
            head = wire.Feed(frame_bytes=size, offset=offset, token=token)
            device.ask(FrameType.FEED, head.pack() + body[offset : offset + 1024])
    assert device.code(FrameType.SYNC) == 0
    return device


def stream_request(position: int, size: int, chunk: int = 1024, fresh: bool = False) -> bytes:
    return wire.ReadRequest(position=position, size=size, chunk=chunk, flags=int(fresh)).pack()


def chunk_bytes(body: bytes) -> bytes:
    """What a chunk stands for; blocks may come without the zeros at their ends."""
    if not wire.ReadChunk.unpack(body).number & wire.CHUNK_TRIMMED:
        return body[4:]
    first, second = struct.unpack_from("<HH", body, 4)
    out = body[8 : 8 + first].ljust(512, b"\0")
    if second == 0xFFFF:
        assert len(body) == 8 + first
        return out
    assert len(body) == 8 + first + second
    return out + body[8 + first :].ljust(512, b"\0")


def whole_log(device: DeviceBoard) -> bytes:
    """The log by single requests, as every host has always been able to read it."""
    status = device.status()
    position, out = status.log_tail, b""
    while position < status.log_durable:
        body = device.ask(FrameType.READ, wire.ReadRequest(position=position, size=1024).pack())
        answer = wire.ReadResponse.unpack(body)
        assert (answer.code, answer.position) == (0, position)
        out += body[16:]
        position += answer.size
    return out


@pytest.mark.parametrize("chunk", [512, 1024])
def test_a_stream_brings_what_single_requests_bring(chunk):
    device = filled()
    log = whole_log(device)
    number = device.post(FrameType.READ, stream_request(0, 1 << 20, chunk))
    device.run()
    got = bytearray()
    for frame in device.answers():
        assert (frame.type, frame.id) == (FrameType.READ | wire.RESPONSE, number)
        code, position = struct.unpack_from("<hH", frame.body)
        assert position & 0x7FFF == len(got) // chunk
        if len(frame.body) == 16 and not position & wire.CHUNK_TRIMMED:
            notice = wire.ReadNotice.unpack(frame.body)
            assert code == 0 or notice.position == len(log)
            got += bytes(notice.position - len(got))
        else:
            assert code == 0 and len(frame.body) - 4 <= chunk
            got += chunk_bytes(frame.body)
    assert bytes(got) == log
    # A short chunk ends the stream; else a notice says where the durable end is.
    if len(log) % chunk == 0:
        notice = wire.ReadNotice.unpack(frame.body)
        assert (notice.code, notice.position) == (Err.RANGE, len(log))


def test_ranges_wait_in_order_and_one_too_many_is_refused():
    device = filled()
    log = whole_log(device)
    ids = [
        device.post(FrameType.READ, stream_request(start * 1024, 2048))
        for start in range(20, 0, -2)
    ]
    device.run()
    answers = device.answers()
    refused = [frame for frame in answers if struct.unpack_from("<h", frame.body)[0] < 0]
    served = [frame for frame in answers if frame not in refused]
    assert refused and {frame.id for frame in refused} < set(ids[wire.READ_QUEUE :])
    for notice in refused:
        assert wire.ReadNotice.unpack(notice.body).code == Err.BUSY
    order = list(dict.fromkeys(frame.id for frame in served))
    assert order == [number for number in ids if number in order]
    for frame in served:
        number = wire.ReadChunk.unpack(frame.body).number & 0x7FFF
        at = (20 - 2 * ids.index(frame.id)) * 1024 + number * 1024
        assert chunk_bytes(frame.body) == log[at : at + 1024]


def test_other_answers_go_between_two_chunks():
    device = filled()
    device.line_free = 3000
    device.post(FrameType.READ, stream_request(0, 40 * 1024))
    device.run()
    asked = device.post(FrameType.STATUS)
    device.line_free = 1 << 30
    device.run()
    kinds = [(frame.type & 0x7F, frame.id) for frame in device.answers()]
    assert (FrameType.STATUS, asked) in kinds[:5]
    assert len([kind for kind, _ in kinds if kind == FrameType.READ]) == 40


@pytest.mark.parametrize("how", ["fresh", "hello", "reset"])
def test_streams_end_when_nobody_wants_them(how):
    device = filled()
    device.line_free = 3000
    device.post(FrameType.READ, stream_request(0, 40 * 1024))
    device.run()
    device.line_free = 1 << 30
    if how == "fresh":
        last = device.post(FrameType.READ, stream_request(4096, 1024, fresh=True))
    elif how == "hello":
        request = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=wire.SCHEMA_HASH)
        last = device.post(FrameType.HELLO, request.pack())
    else:
        last = device.post(FrameType.RESET)
    device.run()
    device.wait(0.1)  # a reset waits until the card has the device's state
    answers = device.answers()
    assert answers[-1].id == last
    assert len(answers) <= 6
    assert device.resets == (how == "reset")


def test_what_is_wrong_with_a_range_is_said_at_once():
    device = filled()
    durable = device.status().log_durable

    def refusal(position: int, size: int, chunk: int) -> wire.ReadNotice:
        return wire.ReadNotice.unpack(
            device.ask(FrameType.READ, stream_request(position, size, chunk))
        )

    for position, size, chunk in [(0, 4096, 100), (512, 4096, 1024), (3, 512, 512), (0, 100, 512)]:
        assert refusal(position, size, chunk).code == Err.ARGUMENT
    beyond = refusal(-(-durable // 1024) * 1024 + 1024, 4096, 1024)
    assert beyond.code == Err.RANGE


def acknowledge(device: DeviceBoard, segment: int) -> int:
    from drip.records import parse_segment

    log = whole_log(device)
    tail = device.status().log_tail
    parsed = parse_segment(log[segment * SEGMENT - tail :][:SEGMENT])
    ack = wire.Ack(segment=segment, records=parsed.count, digest=parsed.digest)
    return device.code(FrameType.ACK, ack.pack())


def test_the_unused_end_of_a_segment_is_one_notice():
    device = filled(frames=8)
    used = device.status().log_durable
    assert acknowledge(device, 0) == 0
    device.feed(b"x" * 100, token=99)
    assert device.code(FrameType.SYNC) == 0
    device.post(FrameType.READ, stream_request(0, SEGMENT + 1024))
    device.run()
    answers = device.answers()
    notices = [wire.ReadNotice.unpack(frame.body) for frame in answers if len(frame.body) == 16]
    assert [(item.code, item.position) for item in notices] == [(Err.OK, SEGMENT)]
    assert notices[0].number == -(-used // 1024)
    assert len(answers) == notices[0].number + 2
    last = answers[-1].body
    assert wire.ReadChunk.unpack(last).number & 0x7FFF == SEGMENT // 1024
    assert chunk_bytes(last)[:4] == struct.pack("<I", wire.SEGMENT_MAGIC)
    assert len(last) < 1024


def test_a_card_that_goes_ends_the_stream_with_its_error():
    device = filled()
    device.line_free = 3000
    device.post(FrameType.READ, stream_request(0, 40 * 1024))
    device.run()
    device.card.absent = True
    device.line_free = 1 << 30
    device.run()
    assert wire.ReadNotice.unpack(device.answers()[-1].body).code == Err.NO_CARD
    device.card.absent = False
    device.wait(2.0)
    assert device.hello().card_state == wire.CardState.READY


def test_a_stream_and_frames_share_the_device_within_bounds():
    """What a frame waits for the link: bytes moved per step, and steps per frame, have a bound."""
    plain = board(card=new_card(8192), sensor=True, model=None)
    busy = board(card=new_card(8192), sensor=True, model=None)
    frames = [bytes([n]) * 500 for n in range(60)]
    spent: dict[bool, list[int]] = {}
    most = 0
    for device, streaming in ((plain, False), (busy, True)):
        device.sensor += frames[:20]
        device.run()
        assert device.code(FrameType.SYNC) == 0
        steps = spent[streaming] = []
        for frame in frames[20:]:
            device.sensor.append(frame)
            if streaming:
                device.post(FrameType.READ, stream_request(0, 8192, fresh=True))
            kept = device.device.status.frames_kept
            count = 0
            while device.device.status.frames_kept == kept:
                before = len(device.sent)
                device.card.time_us += 100
                lib.drip_device_step(device.device)
                most = max(most, len(device.sent) - before)
                count += 1
            steps.append(count)
            device.run()
            device.answers()
    # Four rounds a step, each at most one frame sent.
    assert 0 < most <= 4 * (wire.MAX_BODY_BYTES + 16)
    # The log serves reads and appends in turn: a stream doubles the card's work at worst.
    assert max(spent[True]) <= 2 * max(spent[False]) + 2
    assert busy.status().frames_kept == plain.status().frames_kept == 60


def test_the_link_needs_little_memory():
    from drip.bench.line import RX_RING_BYTES, TX_RING_BYTES

    core = ffi.sizeof("drip_link_t") + ffi.sizeof("drip_reader_t")
    assert core + RX_RING_BYTES + TX_RING_BYTES <= 2560


# ---------------------------------------------------------------- the client


class BoardLine:
    """A transport to a board: every read lets it work for a while."""

    name = "board"

    def __init__(self, device: DeviceBoard) -> None:
        self.device = device
        self.change = lambda data: data

    def read(self, size: int, timeout_s: float) -> bytes:
        self.device.card.time_us += 200
        lib.drip_device_step(self.device.device)
        if not self.device.sent:
            self.device.card.time_us += int(max(0.0, timeout_s) * 1e6) // 4
        data = self.change(bytes(self.device.sent))
        self.device.sent.clear()
        return data

    def write(self, data: bytes) -> None:
        self.device._to_device += data

    def close(self) -> None:
        pass

    def client(self) -> Client:
        def clock() -> float:
            return self.device.card.time_us / 1e6

        return Client(self, clock=clock, sleep=lambda s: self.device.wait(s))


def read_all(client: Client, start: int, end: int) -> bytes:
    stream = client.read_ahead(end)
    out = b""
    while start + len(out) < end:
        chunk = stream.read(start + len(out), 5000)
        assert chunk.position == start + len(out) and chunk.data
        out += chunk.data
    stream.close()
    return out


def test_the_client_streams_a_range_and_asks_meanwhile():
    device = filled()
    log = whole_log(device)
    client = BoardLine(device).client()
    assert client.can_stream
    assert read_all(client, 0, len(log)) == log
    assert read_all(client, 1536, len(log)) == log[1536:]
    stream = client.read_ahead(len(log))
    assert stream.read(0, 512).data == log[:512]
    assert client.status().log_durable == len(log)
    assert client.read(4096, 512).data == log[4096:4608]
    assert stream.read(512, 1024).data == log[512:1536]
    # Forward over what is not wanted, and back again.
    assert stream.read(20480, 512).data == log[20480:20992]
    assert stream.read(512, 1024).data[:512] == log[512:1024]
    assert stream.chunks_lost == 0


def test_only_lost_chunks_are_asked_for_again():
    device = filled()
    log = whole_log(device)
    line = BoardLine(device)
    client = line.client()
    client.hello()
    frames = 0

    def lose_some(data: bytes) -> bytes:
        nonlocal frames
        out = []
        for frame in device.reader.feed(data):
            frames += 1
            if frames in (3, 4, 11, 30):
                continue
            out.append(encode_frame(frame.type, frame.id, frame.body))
        return b"".join(out)

    line.change = lose_some
    stream = client.read_ahead(len(log))
    got = b""
    while len(got) < len(log):
        got += stream.read(len(got), 1 << 16).data
    assert got == log
    assert stream.chunks_lost == 4
    assert client.repetitions == 0


def test_an_error_of_the_card_reaches_the_reader_where_it_is():
    device = filled()
    log = whole_log(device)
    client = BoardLine(device).client()
    client.hello()
    first = device.device.log.super.data_block
    device.card.read_errors = {first + 20}
    stream = client.read_ahead(len(log))
    got = b""
    with pytest.raises(DeviceError) as caught:
        while True:
            got += stream.read(len(got), 1 << 16).data
    assert caught.value.code == Err.IO
    assert got == log[: 20 * 512]
    device.card.read_errors = set()
    assert stream.read(20 * 512, 512).data == log[20 * 512 : 21 * 512]


def test_an_evicted_range_says_where_the_log_goes_on():
    device = board(card=new_card(512), model=None)
    rng = random.Random(9)
    client = BoardLine(device).client()
    token = 10
    while device.status().log_tail == 0:
        device.feed(rng.randbytes(900), token=token)
        token += 1
        segment = device.status().log_acked // SEGMENT
        if device.status().log_durable >= (segment + 1) * SEGMENT:
            assert acknowledge(device, segment) == 0
    assert device.code(FrameType.SYNC) == 0
    status = device.status()
    stream = client.read_ahead(status.log_durable)
    chunk = stream.read(0, 1024)
    assert chunk.gone and chunk.position == status.log_tail
    after = stream.read(chunk.position, 512)
    assert after.data[:4] == struct.pack("<I", wire.SEGMENT_MAGIC)


@pytest.mark.parametrize("polls_busy", [0, 1, 3])
@pytest.mark.parametrize("ahead", [1, 2])
def test_an_acknowledgement_and_a_stream_of_other_segments_do_not_disturb_each_other(
    polls_busy, ahead
):
    """Each asks the log where its own segment ends, and the ends differ."""
    device = filled(80, sizes=(2300, 1700, 2900, 1100, 2000, 2700, 1300))
    reference = whole_log(device)
    segments = [parse_segment(reference[at:][:SEGMENT]) for at in range(0, len(reference), SEGMENT)]
    assert len(segments) >= 4 and len({parsed.end for parsed in segments[:-1]}) > 1
    device.card.polls_busy = polls_busy
    for number, parsed in enumerate(segments[: -1 - ahead]):
        start = (number + ahead) * SEGMENT
        size = min(SEGMENT, len(reference) - start)
        device.post(FrameType.READ, stream_request(start, size))
        ack = wire.Ack(segment=number, records=parsed.count, digest=parsed.digest)
        number = device.post(FrameType.ACK, ack.pack())
        device.run()
        got = bytearray()
        codes = []
        for frame in device.answers():
            if frame.id == number:
                codes.append(wire.AckResponse.unpack(frame.body).code)
            elif len(frame.body) == 16 and not (
                wire.ReadChunk.unpack(frame.body).number & wire.CHUNK_TRIMMED
            ):
                got += bytes(wire.ReadNotice.unpack(frame.body).position - start - len(got))
            else:
                got += chunk_bytes(frame.body)
        assert codes == [0]
        assert bytes(got) == reference[start : start + size]
