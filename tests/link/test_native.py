"""The firmware as a process: real ptys, sockets, files and signals."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from device_board import digits_model, feed_body, model_id, new_card

from drip import cli, wire
from drip.deploy import deploy
from drip.device import connect
from drip.device.framing import FrameReader, encode_frame
from drip.device.launch import launch_native, native_binary
from drip.errors import DripError, LinkError
from drip.wire import Config, FrameType

try:
    BINARY = native_binary()
except DripError as error:
    pytest.skip(f"{error}: {error.hint}", allow_module_level=True)

FRAMES = [bytes(byte % 17 for byte in random.Random(n).randbytes(64)) for n in range(30)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A formatted card and a model; the flash file does not exist yet."""
    card, model = tmp_path / "card.img", tmp_path / "model.drip"
    card.write_bytes(bytes(new_card(4096).data))
    model.write_bytes(digits_model())
    return {"card": card, "model": model, "flash": tmp_path / "flash.bin"}


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def exchange(fd: int, frame_type: int, body: bytes, request_id: int) -> bytes:
    """Send a request over a bare descriptor and return the body of its answer."""
    os.write(fd, encode_frame(frame_type, request_id, body))
    reader = FrameReader()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            for frame in reader.feed(os.read(fd, 4096)):
                if (frame.type, frame.id) == (frame_type | wire.RESPONSE, request_id):
                    return frame.body
    raise AssertionError("no answer")


HELLO = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=wire.SCHEMA_HASH).pack()


def test_hello_feed_and_garbage_over_a_bare_pty(files):
    with launch_native(**files) as device:
        fd = os.open(device.url, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(fd, b"AT\r\n>>> print(1)\r\n" + bytes([7, 1, 0, 2]))
            hello = wire.Hello.unpack(exchange(fd, FrameType.HELLO, HELLO, 1), 4)
            assert hello.port.rstrip(b"\0") == b"native"
            assert hello.model_id == model_id(digits_model())
            answer = exchange(fd, FrameType.FEED, feed_body(FRAMES[0], token=6), 2)
            assert wire.Result.unpack(answer, 4).token == 6
            status = wire.Status.unpack(exchange(fd, FrameType.STATUS, b"", 3), 4)
            assert (status.frames_seen, status.link_errors) == (1, 2)
        finally:
            os.close(fd)


def test_tcp_serves_one_host_after_the_other(files):
    with launch_native(**files, tcp=0) as device:
        kind, host, port = device.url.split(":")
        assert (kind, host) == ("tcp", "127.0.0.1")
        for number in range(3):
            with socket.create_connection((host, int(port))) as connection:
                # Broken off in the middle of a frame: the next host is not affected.
                connection.sendall(encode_frame(FrameType.STATUS, 9)[:5] if number == 1 else b"")
                if number != 1:
                    answer = exchange(connection.fileno(), FrameType.HELLO, HELLO, number)
                    assert wire.Hello.unpack(answer, 4).boot_id == 1


def test_what_was_logged_survives_a_restart_and_a_power_cut(files):
    with launch_native(**files) as device, connect(device.url) as client:
        client.config_set({Config.POLICY_KIND: wire.PolicyKind.ALL, Config.COMMIT_MS: 60_000})
        seqs = [client.feed(frame).seq for frame in FRAMES]
        # Full blocks are durable at once; the last one waits.
        assert 0 < client.status().records_pending < 30
        hello = client.reset()
        assert hello.boot_id == 2
        status = client.status()
        assert (status.frames_seen, status.records_pending) == (0, 0)
        client.config_set({Config.POLICY_KIND: wire.PolicyKind.ALL, Config.COMMIT_MS: 60_000})
        client.feed(FRAMES[0])
        client.sync_log()
        assert client.feed(FRAMES[1]).seq > max(seqs)
        device.cut_power()
    data = files["card"].read_bytes()
    assert all(frame in data for frame in FRAMES)
    with launch_native(**files) as device, connect(device.url) as client:
        assert client.device.boot_id == 3


def test_what_is_pending_becomes_durable_when_it_is_stopped(files):
    with launch_native(**files) as device, connect(device.url) as client:
        client.config_set({Config.POLICY_KIND: wire.PolicyKind.ALL, Config.COMMIT_MS: 60_000})
        client.feed(FRAMES[5])
        os.kill(device.pid, signal.SIGTERM)
        assert device.wait() == 0
    assert FRAMES[5] in files["card"].read_bytes()


def test_a_model_is_deployed_and_boots_from_then_on(files):
    second = digits_model("dd" * 16)
    with launch_native(**files) as device, connect(device.url) as client:
        assert client.device.model_id == model_id(digits_model())
        report = deploy(client, second)
        assert report.before_id == model_id(digits_model())
        assert report.after_id == model_id(second)
        assert client.feed(FRAMES[0]).model_id == model_id(second)[:8]
        device.cut_power()
    # The model on the command line is for an empty flash only.
    with launch_native(**files) as device, connect(device.url) as client:
        assert client.device.model_id == model_id(second)


def test_a_power_cut_on_trial_boots_the_old_model(files):
    from device_board import begin_fields

    second = digits_model("ee" * 16)
    with launch_native(**files) as device, connect(device.url) as client:
        offset = client.model_begin(**begin_fields(second)).offset
        while offset < len(second):
            offset = client.model_data(offset, second[offset : offset + 1024]).offset
        assert client.model_trial().active_id == model_id(second)
        device.cut_power()
    with launch_native(**files) as device, connect(device.url) as client:
        assert client.device.model_id == model_id(digits_model())
        assert client.model_info().state == wire.SlotState.READY


def test_without_flash_the_model_is_fixed(files):
    with launch_native(model=files["model"]) as device, connect(device.url) as client:
        assert client.device.model_id == model_id(digits_model())
        assert client.device.slot_bytes == 0
        assert client.device.card_state == wire.CardState.ABSENT


def test_the_link_follows_the_pty_and_goes_with_it(files, tmp_path):
    link = tmp_path / "tty"
    link.symlink_to("/nowhere")
    with launch_native(**files, link=link) as device:
        assert str(link.readlink()) == device.url
        with connect(str(link)) as client:
            assert client.device.boot_id == 1
    assert not link.is_symlink()


def test_the_id_is_given_or_made_from_the_card(files, tmp_path):
    def id_of(**options: object) -> bytes:
        with launch_native(**options) as device, connect(device.url) as client:
            return client.device.device_id

    derived = id_of(**files)
    assert derived == id_of(**files)
    assert id_of(**files, device_id="00112233445566778899AABBCCDDEEFF") == bytes.fromhex(
        "00112233445566778899aabbccddeeff"
    )
    other = tmp_path / "other.img"
    other.write_bytes(bytes(new_card().data))
    assert id_of(card=other) != derived


def test_it_sleeps_when_there_is_nothing_to_do(files):
    with launch_native(**files) as device, connect(device.url) as client:
        client.config_set({Config.POLICY_KIND: wire.PolicyKind.ALL, Config.COMMIT_MS: 60_000})
        client.feed(FRAMES[0])
        before = cpu_ticks(device.pid)
        time.sleep(1.0)
        # Spinning would cost about 100 ticks.
        assert cpu_ticks(device.pid) - before < 30
        # Nor does it spin while the host reads nothing and its answers pile up.
        fd = os.open(device.url, os.O_RDWR | os.O_NOCTTY)
        os.set_blocking(fd, False)
        for number in range(500):
            try:
                os.write(fd, encode_frame(FrameType.STATUS, number))
            except BlockingIOError:
                break
        time.sleep(0.3)
        before = cpu_ticks(device.pid)
        time.sleep(1.0)
        assert cpu_ticks(device.pid) - before < 30
        os.close(fd)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--card", "/nowhere/card.img"], 1, "cannot open the card image"),
        (["--card", "{tmp}"], 1, "cannot open the card image"),
        (["--card", "{empty}"], 1, "is not a card image"),
        (["--model", "/nowhere/m.drip"], 1, "cannot open the model"),
        (["--model", "{empty}"], 1, "is not a compiled model"),
        (["--model", "{junk}"], 1, "is not a model that this firmware can run"),
        (["--model", "{model}", "--arena", "64"], 1, "needs an arena of"),
        (["--flash", "{junk}"], 1, "no flash file"),
        (["--link", "{junk}"], 1, "is not a symbolic link"),
        (["--id", "12"], 1, "--id wants 32 hex digits"),
        (["--tcp", "70000"], 1, "--tcp wants a number up to 65535"),
        (["--arena", "-1"], 1, "--arena wants a number"),
        (["--tcp", "0", "--link", "x"], 1, "exclude each other"),
        (["--nonsense"], 2, "drip-native --help"),
        (["something"], 2, "unexpected argument 'something'"),
    ],
)
def test_bad_input_ends_in_one_clear_line(files, tmp_path, options, status, says):
    names = {"tmp": tmp_path, "model": files["model"]}
    for name, content in [("empty", b""), ("junk", random.Random(1).randbytes(3000))]:
        names[name] = tmp_path / name
        names[name].write_bytes(content)
    command = [str(BINARY), *(option.format(**names) for option in options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == (2 if options == ["--nonsense"] else 1)


def test_two_devices_cannot_share_a_card(files):
    with (
        launch_native(**files),
        pytest.raises(LinkError, match="in use by another process"),
        launch_native(card=files["card"]),
    ):
        pass


def test_status_as_figures_for_scripts(files, capsys):
    with launch_native(**files) as device:
        with connect(device.url) as client:
            for frame in FRAMES:
                client.feed(frame)
        assert cli.main(["status", device.url, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames_seen"], found["card_state"], found["model_state"]) == (
        len(FRAMES),
        "ready",
        "confirmed",
    )
    assert len(found["class_share"]) == len(found["class_kept"]) == 10
    assert max(found["class_share"]) > 0


def test_sigterm_leaves_what_was_learnt_and_the_powered_on_time_on_the_card(files):
    """The first state is written after ten seconds by itself."""
    with launch_native(card=files["card"], model=files["model"]) as device:
        with connect(device.url) as client:
            client.config_set({Config.POLICY_KIND: wire.PolicyKind.TARGET, Config.BURST: 100})
            for frame in FRAMES:
                client.feed(frame)
            time.sleep(max(0.0, 2.2 - client.status().uptime_ms / 1000))
            assert client.status().powered_s == 0
        os.kill(device.pid, signal.SIGTERM)
        assert device.wait() == 0
    blocks = files["card"].read_bytes()
    supers = [wire.Superblock.unpack(blocks), wire.Superblock.unpack(blocks, len(blocks) - 512)]
    newest = max(supers, key=lambda block: block.generation)
    state = wire.DeviceState.unpack(newest.checkpoint)
    assert newest.checkpoint_bytes == wire.DeviceState.SIZE
    assert 2 <= state.powered_s <= 30
    assert state.policy_bytes > 0
    again = launch_native(card=files["card"], model=files["model"])
    with again as device, connect(device.url) as client:
        assert client.status().powered_s >= state.powered_s
