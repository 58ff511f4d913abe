"""The client: every request, and every fault that a line can have."""

from __future__ import annotations

import os
import random
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from cobs import cobs
from fake_device import MODEL, FakeDevice
from hypothesis import given
from hypothesis import strategies as st

from drip import wire
from drip.deploy import deploy
from drip.device import Client, FrameReader, connect, encode_frame, memory_pair
from drip.errors import DataError, DeviceError, LinkError, ModelError, SchemaError, UsageError


def blob(size: int = 5000, seed: int = 1) -> bytes:
    """A blob with a valid header and meaningless content."""
    content = random.Random(seed).randbytes(size - wire.BlobHeader.SIZE)
    header = wire.BlobHeader(
        magic=wire.BLOB_MAGIC,
        version=wire.BLOB_VERSION,
        header_bytes=wire.BlobHeader.SIZE,
        total_bytes=size,
        op_bitmap=6,
        arena_bytes=1024,
        model_id=random.Random(seed).randbytes(16),
    )
    after = wire.BlobHeader.OFFSETS["crc"] + 4
    crc = zlib.crc32((header.pack() + content)[after:])
    return replace(header, crc=crc).pack() + content


def model_id(data: bytes) -> bytes:
    return wire.BlobHeader.unpack(data).model_id


# ---------------------------------------------------------------- frames


def test_frame_is_cobs_of_header_body_and_crc() -> None:
    data = encode_frame(wire.FrameType.READ, 0x1234, b"a\0b")
    content = bytes([8, 0, 0x34, 0x12]) + b"a\0b"
    content += zlib.crc32(content).to_bytes(4, "little")
    assert data == b"\0" + cobs.encode(content) + b"\0"


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=300))),
    st.binary(max_size=40).map(lambda noise: noise.replace(b"\0", b"?")),
    st.integers(1, 64),
)
def test_reader_finds_all_frames_among_noise(
    frames: list[tuple[int, int, bytes]], noise: bytes, step: int
) -> None:
    line = b"".join(noise + encode_frame(*frame) for frame in frames)
    reader = FrameReader()
    found = []
    for at in range(0, len(line), step):
        found += reader.feed(line[at : at + step])
    assert [(frame.type, frame.id, frame.body) for frame in found] == frames
    assert reader.errors == (len(frames) if noise else 0)


@given(st.binary(max_size=3000))
def test_reader_takes_any_bytes(line: bytes) -> None:
    reader = FrameReader()
    for frame in reader.feed(line):
        assert len(frame.body) <= wire.MAX_BODY_BYTES
    assert len(reader.pending()) <= 1120


@given(st.binary(max_size=200), st.data())
def test_reader_refuses_a_flipped_bit(body: bytes, data: st.DataObject) -> None:
    line = bytearray(encode_frame(7, 1, body))
    at = data.draw(st.integers(1, len(line) - 2))
    line[at] ^= 1 << data.draw(st.integers(0, 7))
    frames = FrameReader().feed(bytes(line))
    assert frames == []


def test_reader_recovers_from_an_endless_run() -> None:
    reader = FrameReader()
    assert reader.feed(b"x" * 100_000) == []
    (frame,) = reader.feed(encode_frame(1, 2, b"ok"))
    assert frame.body == b"ok"
    assert reader.errors == 1


# ---------------------------------------------------------------- requests


def test_hello_tells_who_answers() -> None:
    device = FakeDevice()
    client = device.client()
    assert client.device.device_id == b"D" * 16
    assert client.device.model_id == MODEL
    assert device.seen == [wire.FrameType.HELLO]


def test_hello_comes_before_anything_else() -> None:
    device = FakeDevice()
    device.client().status()
    assert device.seen == [wire.FrameType.HELLO, wire.FrameType.STATUS]


@pytest.mark.parametrize("size", [48, 68, wire.Hello.SIZE, wire.Hello.SIZE + 40])
def test_hello_of_older_and_newer_schemas(size: int) -> None:
    device = FakeDevice()
    device.hello_bytes = size
    hello = device.client().hello()
    assert hello.device_id == b"D" * 16
    assert hello.log_uuid == (device.log.uuid if size >= 64 else bytes(16))
    assert hello.boot_id == (7 if size >= wire.Hello.SIZE else 0)


def test_config_round_trip_skips_unknown_lengths() -> None:
    device = FakeDevice()
    client = device.client()
    client.config_set({wire.Config.THRESHOLD: 65536, wire.Config.SEED: 0xFFFFFFFF})
    assert client.config_get() == {wire.Config.SEED: 0xFFFFFFFF, wire.Config.THRESHOLD: 65536}
    with pytest.raises(DeviceError, match="refused CONFIG_SET: argument") as caught:
        client.config_set({999: 1})
    assert caught.value.code == wire.Err.ARGUMENT


@pytest.mark.parametrize("size", [1, 64, 1023, 1024, 1025, 2048, 65536])
def test_feed_in_chunks(size: int) -> None:
    device = FakeDevice()
    frame = random.Random(size).randbytes(size)
    device.log.segment_bytes = 1 << 18
    result = device.client().feed(frame, token=77)
    assert device.fed == [frame]
    assert (result.token, result.keep, result.seq) == (77, 1, 0)


def test_feed_sends_arrays_little_endian() -> None:
    device = FakeDevice()
    device.client().feed(np.array([[1, -2], [300, 4]], dtype=">i2"))
    assert device.fed == [b"\x01\x00\xfe\xff\x2c\x01\x04\x00"]


@pytest.mark.parametrize("size", [0, 65537])
def test_feed_refuses_impossible_sizes(size: int) -> None:
    device = FakeDevice()
    with pytest.raises(DataError):
        device.client().feed(bytes(size))
    assert wire.FrameType.FEED not in device.seen


def test_time_relates_the_clocks() -> None:
    reading = FakeDevice().client().time()
    assert reading.boot_id == 7
    assert reading.device_us == 5_000_000
    assert reading.offset_us == reading.host_us - 5_000_000


def test_reset_waits_for_the_next_boot() -> None:
    device = FakeDevice()
    assert device.client().reset().boot_id == 8


# ---------------------------------------------------------------- a bad line


def test_lost_requests_and_answers_are_repeated() -> None:
    device = FakeDevice()
    lost = {1, 2, 4}
    device.on_answer = lambda index, data: b"" if index in lost else data
    client = device.client()
    assert client.status().boot_id == 7
    assert client.repetitions == 2
    client.feed(b"frame")
    assert client.repetitions == 3
    assert device.fed == [b"frame"], "a frame whose answer was lost must not count twice"


def test_garbled_answer_is_asked_for_again_at_once() -> None:
    device = FakeDevice()

    def garble(index: int, data: bytes) -> bytes:
        return data[:6] + bytes([data[6] ^ 0x55 or 1]) + data[7:] if index == 1 else data

    device.on_answer = garble
    client = device.client(timeout_s=5.0, attempt_s=1.0)
    client.hello()
    before = device.now
    assert client.status().boot_id == 7
    assert client.garbled == 1
    assert device.now - before < 0.2


def test_busy_device_is_asked_again() -> None:
    device = FakeDevice()
    client = device.client()
    client.hello()
    device.busy = 20
    assert client.status().boot_id == 7
    assert client.repetitions == 20


def test_device_that_stays_busy() -> None:
    device = FakeDevice()
    client = device.client(busy_s=2.0)
    client.hello()
    device.busy = 10**9
    with pytest.raises(DeviceError, match="busy") as caught:
        client.status()
    assert caught.value.code == wire.Err.BUSY
    assert device.now < 3.0


def test_boot_text_and_events_do_not_confuse() -> None:
    device = FakeDevice()
    events: list[object] = []
    client = Client(device, on_event=events.append, clock=lambda: device.now)
    device.say(b"ets Jun  8 2016 00:22:57\r\nrst:0x1 (POWERON_RESET)\r\n")
    kept = wire.EventKept(wire.Event.KEPT, wire.EventKept.SIZE, 3, 60000, 42)
    device.say(encode_frame(wire.FrameType.EVENT, 0, kept.pack()))
    boot = wire.EventState(wire.Event.BOOT, wire.EventState.SIZE, 0, 0)
    device.say(encode_frame(wire.FrameType.EVENT, 0, boot.pack()))
    assert client.hello().device_id == b"D" * 16
    assert events == [kept, boot]


def test_answers_to_other_requests_are_ignored() -> None:
    device = FakeDevice()
    client = device.client()
    client.hello()
    for request_id in range(0, 65536, 257):
        stale = wire.Response(code=wire.Err.IO).pack()
        device.say(encode_frame(wire.FrameType.SYNC | wire.RESPONSE, request_id, stale))
    assert client.status().boot_id == 7


def test_silent_device_in_the_middle() -> None:
    device = FakeDevice()
    device.on_answer = lambda index, data: data if index < 1 else b""
    client = device.client(timeout_s=3.0)
    with pytest.raises(LinkError, match=r"fake stopped answering \(STATUS\)"):
        client.status()
    assert 3.0 <= device.now < 4.5


def test_device_that_restarts_inside_a_frame() -> None:
    device = FakeDevice()
    device.log.segment_bytes = 1 << 16

    def restart(index: int, frame: object) -> None:
        if index == 3:
            device.restart()

    device.on_request = restart
    frame = random.Random(3).randbytes(4000)
    assert device.client().feed(frame).keep == 1
    assert device.fed == [frame]


# ---------------------------------------------------------------- strangers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "nothing answers on memory:left"),
        (b"\r\nERROR\r\n", "is not a DRIP device: it said 'ERROR"),
        (b"\r\n>>> ", "is not a DRIP device: it said '>>>"),
        (b"\xff\xfe\x80" * 30, "is not a DRIP device: it sends something else"),
        (b"\0" * 50, "nothing answers"),
    ],
)
def test_strangers_get_hello_only(answer: bytes, text: str) -> None:
    ours, theirs = memory_pair()
    received = FrameReader()
    seen: list[int] = []
    stop = threading.Event()

    def stranger() -> None:
        while not stop.is_set():
            data = theirs.read(4096, 0.02)
            seen.extend(frame.type for frame in received.feed(data))
            if data:
                theirs.write(answer)

    thread = threading.Thread(target=stranger)
    thread.start()
    try:
        client = Client(ours, timeout_s=0.3, attempt_s=0.1)
        with pytest.raises(LinkError, match="memory:left") as caught:
            client.status()
    finally:
        stop.set()
        thread.join()
    assert text in caught.value.message
    assert caught.value.exit_code == 8
    assert set(seen) == {wire.FrameType.HELLO}
    assert received.errors == 0


def test_port_that_echoes() -> None:
    ours, theirs = memory_pair()
    theirs.write(encode_frame(wire.FrameType.HELLO, 5))
    with pytest.raises(LinkError, match="it only echoes"):
        Client(ours, timeout_s=0.1).hello()


@pytest.mark.parametrize("act", ["config_get", "config_set", "feed", "score", "model"])
def test_other_schema_refuses_what_it_could_misread(act: str) -> None:
    device = FakeDevice()
    device.schema_hash ^= 1
    client = device.client()
    actions = {
        "config_get": client.config_get,
        "config_set": lambda: client.config_set({1: 1}),
        "feed": lambda: client.feed(b"x"),
        "score": lambda: client.score(b"x"),
        "model": lambda: deploy(client, blob()),
    }
    with pytest.raises(SchemaError, match="schema") as caught:
        actions[act]()
    assert caught.value.exit_code == 9
    assert device.seen.count(wire.FrameType.HELLO) == len(device.seen), "nothing else was sent"


# ---------------------------------------------------------------- ports


def test_missing_port(tmp_path: object) -> None:
    with pytest.raises(LinkError, match="no such port"):
        connect(f"{tmp_path}/ttyNONE")


def test_file_is_no_port(tmp_path: object) -> None:
    path = f"{tmp_path}/file"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"keep me")
    with pytest.raises(LinkError, match="as a serial port"):
        connect(path)
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read() == b"keep me"


@pytest.mark.parametrize("url", ["tcp:", "tcp:host", "tcp:host:0", "tcp:host:99999", "tcp://x:y"])
def test_malformed_address(url: str) -> None:
    with pytest.raises(UsageError):
        connect(url)


def test_nobody_listens() -> None:
    with pytest.raises(LinkError, match="cannot connect to tcp"):
        connect("tcp:127.0.0.1:1")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_pty_is_exclusive_and_reports_its_end() -> None:
    import pty

    controller, port = pty.openpty()
    name = os.ttyname(port)
    from drip.device import SerialTransport

    first = SerialTransport(name)
    with pytest.raises(LinkError, match=r"in use|no permission"):
        SerialTransport(name)
    first.write(b"\0ab\0")
    assert os.read(controller, 100) == b"\0ab\0", "bytes must pass unchanged"
    os.write(controller, b"\r\n\x03\x04\x11\x13\0")
    assert first.read(100, 1.0) == b"\r\n\x03\x04\x11\x13\0"
    assert first.read(100, 0.0) == b""
    os.close(port)
    os.close(controller)
    with pytest.raises(LinkError, match="has gone"):
        first.read(100, 1.0)
    first.close()
    first.close()


# ---------------------------------------------------------------- deployment


def test_deploy_switches_and_confirms() -> None:
    device = FakeDevice()
    steps: list[tuple[int, int]] = []
    data = blob(5000)
    report = deploy(device.client(), data, on_progress=lambda *step: steps.append(step))
    assert device.active == device.confirmed == model_id(data) == report.after_id
    assert (report.before_id, report.bytes_sent, report.resumed_at) == (MODEL, 5000, 0)
    assert steps[-1] == (5000, 5000)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_deploy_of_the_running_model_sends_nothing() -> None:
    device = FakeDevice()
    data = blob()
    deploy(device.client(), data)
    report = deploy(device.client(), data)
    assert (report.bytes_sent, report.before_id) == (0, model_id(data))


def test_deploy_resumes_after_the_cable_was_pulled() -> None:
    device = FakeDevice()
    data = blob(20_000)

    def pull(index: int, frame: object) -> None:
        if index == 12:
            raise LinkError("pulled")

    device.on_request = pull
    with pytest.raises(LinkError, match="pulled"):
        deploy(device.client(), data)
    assert device.active == device.confirmed == MODEL
    report = deploy(device.client(), data)
    assert report.resumed_at == 256 + 512 + 7 * 1024
    assert report.resumed_at + report.bytes_sent == 20_000
    assert device.confirmed == model_id(data)


@pytest.mark.parametrize("at", range(1, 15))
def test_deploy_survives_a_restart_or_leaves_the_old_model(at: int) -> None:
    device = FakeDevice()
    data = blob(5000)

    def restart(index: int, frame: object) -> None:
        if index == at:
            device.restart()

    device.on_request = restart
    try:
        deploy(device.client(), data)
    except DeviceError:
        assert device.active == device.confirmed == MODEL
        deploy(device.client(), data)
    assert device.active == device.confirmed == model_id(data)


@pytest.mark.parametrize("at", range(1, 15))
def test_deploy_with_one_lost_answer(at: int) -> None:
    device = FakeDevice()
    data = blob(5000)
    device.on_answer = lambda index, answer: b"" if index == at else answer
    assert deploy(device.client(), data).after_id == model_id(data)
    assert device.confirmed == model_id(data)


def test_deploy_rolls_back_when_the_self_test_fails() -> None:
    device = FakeDevice()
    device.selftest_passes = False
    with pytest.raises(DeviceError, match="refused MODEL TRIAL: selftest") as caught:
        deploy(device.client(), blob())
    assert caught.value.code == wire.Err.SELFTEST
    assert device.active == device.confirmed == MODEL
    assert device.upload == b""


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: data[:100], "too short"),
        (lambda data: b"TFL3" + data[4:], "not a .drip file"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged"),
        (lambda data: data[:4] + b"\x09\x00" + data[6:], "blob version 9"),
        (lambda data: blob(70_000), "has 70000 bytes, fake takes 65536"),
    ],
)
def test_deploy_refuses_before_it_sends(damage: object, text: str) -> None:
    device = FakeDevice()
    with pytest.raises(ModelError, match=text):
        deploy(device.client(), damage(blob()))  # type: ignore[operator]
    assert device.begun is None


def test_deploy_names_missing_operators() -> None:
    device = FakeDevice()
    data = bytearray(blob())
    at = wire.BlobHeader.OFFSETS["op_bitmap"]
    data[at : at + 8] = (1 << 40 | 6).to_bytes(8, "little")
    crc_at = wire.BlobHeader.OFFSETS["crc"]
    data[crc_at : crc_at + 4] = zlib.crc32(data[crc_at + 4 :]).to_bytes(4, "little")
    with pytest.raises(ModelError, match="lacks operators"):
        deploy(device.client(), bytes(data))
