"""Deployment to the firmware itself, and its scores beside those of the core on this computer."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip import wire
from drip.card import format_image
from drip.deploy import deploy
from drip.device import Client, connect, launch_native, native_binary, open_transport
from drip.errors import DeviceError, LinkError, MissingDependencyError, ModelError

try:
    native_binary()
except MissingDependencyError as error:
    pytest.skip(f"{error.message}: {error.hint}", allow_module_level=True)
pytest.importorskip("drip._core", reason="needs the compiled core: run make setup")

from drip.compile import compile_model
from drip.core import Model

TFLITE = Path(__file__).resolve().parents[2] / "models" / "digits" / "model.tflite"
FRAMES = np.random.default_rng(1).integers(0, 17, (20, 8, 8, 1), np.uint8)


def blob(parent: str) -> bytes:
    """The digits model; every parent gives it another id."""
    return compile_model(TFLITE.read_bytes(), parent=parent)


OLD, NEW = blob("01"), blob("02")


def model_id(data: bytes) -> bytes:
    return wire.BlobHeader.unpack(data).model_id


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "old.drip").write_bytes(OLD)
    format_image(tmp_path / "card.img", 4 << 20)
    return {
        "card": tmp_path / "card.img",
        "flash": tmp_path / "flash.bin",
        "model": tmp_path / "old.drip",
    }


def running(files: dict[str, Path]) -> bytes:
    with launch_native(**files) as device, connect(device.url) as client:
        return client.device.model_id


def cut_after(client: Client, requests: int) -> None:
    left = [requests]
    transport: Any = client.transport
    write = transport.write

    def cut(data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise LinkError("cable pulled")
        write(data)

    transport.write = cut


def test_two_blobs_differ_in_id_only() -> None:
    assert model_id(OLD) != model_id(NEW)


def test_new_model_answers_and_boots(files: dict[str, Path]) -> None:
    steps: list[tuple[int, int]] = []
    with launch_native(**files) as device, connect(device.url) as client:
        assert client.device.model_id == model_id(OLD)
        report = deploy(client, NEW, on_progress=lambda *step: steps.append(step))
        assert (report.before_id, report.after_id) == (model_id(OLD), model_id(NEW))
        assert report.bytes_sent == len(NEW)
        assert steps[-1] == (len(NEW), len(NEW))
        assert client.score(FRAMES[0]).model_id == model_id(NEW)[:8]
        info = client.model_info()
        assert info.active_id == info.confirmed_id == model_id(NEW)
        assert deploy(client, NEW).bytes_sent == 0
    assert running(files) == model_id(NEW)


def test_there_and_back(files: dict[str, Path]) -> None:
    with launch_native(**files) as device, connect(device.url) as client:
        for data in (NEW, OLD, NEW, OLD, NEW):
            assert deploy(client, data).after_id == model_id(data)
    assert running(files) == model_id(NEW)


def test_scores_equal_those_of_the_core_here(files: dict[str, Path]) -> None:
    host = Model(OLD)
    with launch_native(**files) as device, connect(device.url) as client:
        for frame in FRAMES:
            answer, expected = client.score(frame), host.score(frame)
            assert answer.class_1 == expected.class_1
            assert answer.logit_1 == expected.logit_1
            assert answer.raw_score == expected.raw
        assert client.status().frames_kept == 0


def test_frame_of_another_size(files: dict[str, Path]) -> None:
    with launch_native(**files) as device, connect(device.url) as client:
        with pytest.raises(DeviceError) as caught:
            client.feed(b"too short")
        assert caught.value.code == wire.Err.ARGUMENT


@pytest.mark.parametrize("power", [False, True], ids=["cable", "power"])
def test_cut_at_every_request_leaves_a_model_that_boots(
    tmp_path: Path, files: dict[str, Path], power: bool
) -> None:
    at = 0
    while True:
        files["flash"] = tmp_path / f"flash{at}.bin"
        with launch_native(**files) as device:
            with connect(device.url) as client:
                cut_after(client, at)
                try:
                    deploy(client, NEW)
                    finished = True
                except LinkError:
                    finished = False
            if power:
                device.cut_power()
            else:
                with connect(device.url) as client:
                    assert client.device.model_id in (model_id(OLD), model_id(NEW))
                    assert client.score(FRAMES[0]).model_id in (
                        model_id(OLD)[:8],
                        model_id(NEW)[:8],
                    )
                    deploy(client, NEW)
                    assert client.hello().model_id == model_id(NEW)
        if power:
            assert running(files) in (model_id(OLD), model_id(NEW))
            with launch_native(**files) as device, connect(device.url) as client:
                assert deploy(client, NEW).after_id == model_id(NEW)
        assert running(files) == model_id(NEW)
        if finished:
            break
        at += 3 if power else 2
    assert at >= len(NEW) // 1024


def test_model_that_fails_its_self_test(files: dict[str, Path]) -> None:
    """Intact, but not what it was compiled to: the golden outputs do not come out."""
    bad = bytearray(NEW)
    count = wire.BlobHeader.unpack(NEW).section_count
    for entry in range(count):
        at = wire.BlobHeader.SIZE + entry * wire.BlobSection.SIZE
        section = wire.BlobSection.unpack(NEW, at)
        if section.kind == wire.Section.GOLDEN:
            bad[section.offset + wire.BlobGolden.SIZE] ^= 1
    after = wire.BlobHeader.OFFSETS["crc"] + 4
    bad[after - 4 : after] = zlib.crc32(bytes(bad[after:])).to_bytes(4, "little")
    with launch_native(**files) as device, connect(device.url) as client:
        with pytest.raises(DeviceError) as caught:
            deploy(client, bytes(bad))
        assert caught.value.code == wire.Err.SELFTEST
        assert client.hello().model_id == model_id(OLD)
        assert client.score(FRAMES[0]).model_id == model_id(OLD)[:8]
        assert deploy(client, NEW).after_id == model_id(NEW)


def test_damaged_chunk_is_caught_before_the_trial(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Client.model_data

    def garble(self: Client, offset: int, chunk: bytes) -> wire.ModelResponse:
        return original(self, offset, chunk[:-1] + bytes([chunk[-1] ^ 1]))

    with launch_native(**files) as device, connect(device.url) as client:
        with monkeypatch.context() as patch:
            patch.setattr(Client, "model_data", garble)
            with pytest.raises(DeviceError) as caught:
                deploy(client, NEW)
        assert caught.value.code == wire.Err.CRC
        assert client.hello().model_id == model_id(OLD)
        assert deploy(client, NEW).after_id == model_id(NEW)


def test_device_without_slots(files: dict[str, Path]) -> None:
    del files["flash"]
    with launch_native(**files) as device, connect(device.url) as client:
        with pytest.raises(ModelError, match="does not accept pushed models") as caught:
            deploy(client, NEW)
        assert "--flash" in caught.value.hint
        assert client.hello().model_id == model_id(OLD)


def test_noisy_line(files: dict[str, Path]) -> None:
    rng = random.Random(2)
    with (
        launch_native(**files) as device,
        Client(open_transport(device.url), attempt_s=0.1) as client,
    ):
        client.hello()
        transport: Any = client.transport
        write = transport.write

        def noisy(data: bytes) -> None:
            if rng.random() < 0.3:
                at = rng.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            write(data)

        transport.write = noisy
        assert deploy(client, NEW).after_id == model_id(NEW)
        assert client.repetitions > 0
    assert running(files) == model_id(NEW)
