"""The whole way on every kind of simulated board: the same tests for a process and for the image.

Natively and in QEMU a few frames are fast; the rest is slow.
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import boards
import numpy as np
import pytest

from drip import wire
from drip.compile import compile_model
from drip.compile.blob import unpack_blob
from drip.data import digits
from drip.deploy import deploy
from drip.device import Kind, connect, open_transport
from drip.device.parity import compare, score_frames
from drip.errors import DeviceError, DripError, ModelError
from drip.store import Store
from drip.sync import sync_device

sys.path.insert(0, str(boards.ROOT / "tests" / "core"))
from nets import fix_crc, head_net

SLOW = pytest.mark.slow


@pytest.fixture(
    params=[
        Kind.NATIVE,
        pytest.param(Kind.QEMU, marks=SLOW),
        pytest.param(Kind.RENODE, marks=SLOW),
    ],
    ids=lambda kind: kind.value,
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    boards.needs(request.param)
    yield request.param


def check_frames(kind: Kind, folder: Path, count: int) -> None:
    """Boot, hello, feed, scores like the core's, sync, verify, restart, go on."""
    card = boards.new_card(folder / "card.img")
    frames = digits().x[:count]
    store = Store.open(folder / "store", create=True)
    with boards.running(kind, card=card) as board:
        with connect(board.url) as client:
            assert client.device.class_count == 10
            assert client.status().card_state == wire.CardState.READY
            boards.keep_all(client)
            for frame in frames:
                assert client.feed(frame).keep == 1
            scored = frames[: min(count, 100)]
            results = score_frames(client, list(scored))
            assert compare(client, list(scored), results, boards.MODEL.read_bytes()) == []
            report = sync_device(client, store)
            assert (report.damaged, report.repetitions) == ((), 0)
            assert store.frames().x.tobytes() == frames.tobytes()
            before = client.device.boot_id
            assert client.reset().boot_id == before + 1
        with connect(board.url) as client:
            boards.keep_all(client)
            assert client.feed(frames[0]).keep == 1
            assert sync_device(client, store).store.new == 1
            status = client.status()
            assert (status.card_errors, status.frames_dropped_card) == (0, 0)


def test_a_few_frames_in_qemu(tmp_path: Path) -> None:
    boards.needs(Kind.QEMU)
    check_frames(Kind.QEMU, tmp_path, 20)


@SLOW
@pytest.mark.parametrize("name", ["disco_f407vg", "black_f407ve"])
def test_the_other_boards(name: str, tmp_path: Path) -> None:
    """Other pins and UARTs; the rest is the same image."""
    boards.needs(Kind.QEMU)
    card = boards.new_card(tmp_path / "card.img")
    frames = digits().x[:5]
    image = boards.firmware(name)
    with boards.in_qemu(card=card, firmware=image) as board, connect(board.url) as client:
        assert board.board.name == client.device.port.rstrip(b"\0").decode() == name
        boards.keep_all(client)
        for frame in frames:
            assert client.feed(frame).keep == 1
        results = score_frames(client, list(frames))
        assert compare(client, list(frames), results, boards.MODEL.read_bytes()) == []
        client.sync_log()
    assert boards.payloads(card) == [frame.tobytes() for frame in frames]


@SLOW
def test_the_image_with_a_motion_sensor_runs_without_one(tmp_path: Path) -> None:
    """QEMU has no I2C: registers that never answer cost the rest of the firmware nothing."""
    boards.needs(Kind.QEMU)
    card = boards.new_card(tmp_path / "card.img")
    image = boards.firmware(f"{boards.BOARD}_imu")
    # No microphone, no model that hears: no front-end among the symbols.
    assert b"drip_frontend_open" not in image.read_bytes()
    frames = digits().x[:5]
    with boards.in_qemu(card=card, firmware=image) as board, connect(board.url) as client:
        assert client.device.model_id == bytes(16)
        boards.keep_all(client)
        for frame in frames:
            assert client.feed(frame).keep == 1
        client.sync_log()
        status = client.status()
        assert (status.faults, status.frames_seen) == (0, 5)
    assert boards.payloads(card) == [frame.tobytes() for frame in frames]


@SLOW
def test_the_image_for_its_own_model_alone(tmp_path: Path) -> None:
    """It scores as the core does, and refuses models that need what was left out."""
    boards.needs(Kind.QEMU)
    frames = digits().x[:20]
    image = boards.firmware(f"{boards.BOARD}_own")
    # Each needs one thing that the image lacks, and nothing else.
    _, hidden = head_net(np.random.default_rng(0), hidden=7, packed=True)
    with boards.in_qemu(firmware=image) as board, connect(board.url) as client:
        before = client.device
        assert before.op_bitmap == wire.BlobHeader.unpack(boards.MODEL.read_bytes()).op_bitmap
        results = score_frames(client, list(frames))
        assert compare(client, list(frames), results, boards.MODEL.read_bytes()) == []
        assert wire.BlobHeader.unpack(hidden).op_bitmap & ~before.op_bitmap == 0
        _, plain = head_net(np.random.default_rng(0))
        for blob in (hidden, plain):
            with pytest.raises(DeviceError) as refused:
                deploy(client, blob)
            assert refused.value.code == wire.Err.UNSUPPORTED
        other = bytearray(hidden)
        struct.pack_into("<Q", other, wire.BlobHeader.OFFSETS["op_bitmap"], 1 << wire.Op.SOFTMAX)
        with pytest.raises(ModelError, match="SOFTMAX"):
            deploy(client, fix_crc(other))
        assert client.hello().model_id == before.model_id
        assert compare(client, list(frames), results, boards.MODEL.read_bytes()) == []


def test_500_frames(kind: Kind, tmp_path: Path) -> None:
    check_frames(kind, tmp_path, 500)


def test_push_of_a_model(kind: Kind, tmp_path: Path) -> None:
    tflite = (boards.ROOT / "models" / "digits" / "model.tflite").read_bytes()
    new = compile_model(tflite, parent="02")
    new_id = wire.BlobHeader.unpack(new).model_id
    options = {} if kind is Kind.RENODE else {"flash": tmp_path / "flash.bin"}
    with boards.running(kind, **options) as board, connect(board.url) as client:
        assert client.device.model_id != new_id
        report = deploy(client, new)
        assert report.after_id == new_id
        results = score_frames(client, list(digits().x[:5]))
        assert compare(client, list(digits().x[:5]), results, new) == []
        assert client.reset().model_id == new_id
    if options:
        with boards.running(kind, **options) as board, connect(board.url) as client:
            assert client.device.model_id == new_id
    assert unpack_blob(new).header.model_id == new_id


@SLOW
def test_dfu_makes_the_board_forget_and_nothing_worse(tmp_path: Path) -> None:
    """It writes one flat file: zeros over the journal, which no program of ours would leave."""
    boards.needs(Kind.QEMU)
    flat = boards.firmware().with_suffix(".bin").read_bytes()
    script = boards.ROOT / "firmware" / "ports" / "stm32f4" / "f446re.ld"
    assert "ORIGIN = 0x08004000, LENGTH = 32K" in script.read_text()
    assert not any(flat[0x4000:0xC000])
    tflite = (boards.ROOT / "models" / "digits" / "model.tflite").read_bytes()
    pushed = compile_model(tflite, parent="04")
    pushed_id = wire.BlobHeader.unpack(pushed).model_id
    image_id = wire.BlobHeader.unpack(boards.MODEL.read_bytes()).model_id
    flash = tmp_path / "flash.bin"
    for _ in range(2):
        with boards.in_qemu(flash=flash) as board, connect(board.url) as client:
            assert client.device.model_id == image_id
            deploy(client, pushed)
        with boards.in_qemu(flash=flash) as board, connect(board.url) as client:
            assert client.device.model_id == pushed_id
        flash.write_bytes(flat + flash.read_bytes()[len(flat) :])


def test_garbage_on_the_line(kind: Kind, tmp_path: Path) -> None:
    card = boards.new_card(tmp_path / "card.img")
    rng = random.Random(1)
    with boards.running(kind, card=card) as board:
        line = open_transport(board.url)
        for _ in range(30):
            line.write(rng.randbytes(rng.randrange(1, 400)))
        line.write(b"\0" * 300 + b"\xff" * 5000)
        line.close()
        with connect(board.url, timeout_s=10) as client:
            assert client.status().link_errors > 0
            boards.keep_all(client)
            for frame in digits().x[:5]:
                assert client.feed(frame).keep == 1
            client.sync_log()
    assert boards.payloads(card) == [frame.tobytes() for frame in digits().x[:5]]


def test_no_card(kind: Kind) -> None:
    with boards.running(kind) as board, connect(board.url) as client:
        assert client.status().card_state == wire.CardState.ABSENT
        result = client.feed(digits().x[0])
        assert result.keep == 0
        with pytest.raises(DripError):
            client.sync_log()


def test_a_model_that_the_board_is_started_with(kind: Kind, tmp_path: Path) -> None:
    tflite = (boards.ROOT / "models" / "digits" / "model.tflite").read_bytes()
    model = tmp_path / "model.drip"
    model.write_bytes(compile_model(tflite, parent="03"))
    with boards.running(kind, model=model, link=tmp_path / "port") as board:
        with connect(str(tmp_path / "port")) as client:
            assert client.device.model_id == wire.BlobHeader.unpack(model.read_bytes()).model_id
        assert (tmp_path / "port").resolve() == Path(board.url).resolve()
    assert not (tmp_path / "port").is_symlink()
