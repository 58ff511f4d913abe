"""Boards and cards of older and newer schemas: what they recorded can always be pulled.

The boards are the firmware itself, generated and compiled from a changed schema.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from drip import cli, wire
from drip.card import format_image, inspect_image, read_segments
from drip.device import Client, connect, launch_native, native_binary
from drip.errors import MissingDependencyError, SchemaError
from drip.store import Store
from drip.sync import sync_device

ROOT = Path(__file__).resolve().parents[2]
FRAMES = [bytes([number]) * 64 for number in range(24)]

try:
    native_binary()
except MissingDependencyError as error:
    pytest.skip(f"{error.message}: {error.hint}", allow_module_level=True)


def change(file: Path, old: str, new: str) -> None:
    """Replace the only place where a pattern is found."""
    text, count = re.subn(old, lambda _: new, file.read_text())
    assert count == 1, f"{old} is {count} times in {file.name}"
    file.write_text(text)


def newer(root: Path) -> None:
    """Fields appended to what stays readable for ever, unknown states and settings."""
    schema = root / "tools/schema/wire.toml"
    change(
        schema,
        r'\["port", "u8\[16\]", "name of the port, zero-padded ASCII"\]',
        '["port", "u8[16]", "name"], ["radio", "u64", "new"], ["serial_number", "u8[32]", "new"]',
    )
    change(
        schema,
        r'\["histogram", "u32\[16\]", "percentiles seen"\]',
        '["histogram", "u32[16]", "percentiles seen"], ["supply_mv", "u64", "new"]',
    )
    change(schema, r'\["PROTECTED", -24, ', '["BATTERY", -99, "new"], ["PROTECTED", -24, ')
    # The values are there, so that a reader that counted on their absence would show.
    requests = root / "firmware/core/src/device_requests.c"
    change(
        requests,
        r"    memcpy\(hello->port, ",
        "    memset(hello->serial_number, 0xEE, sizeof(hello->serial_number));\n"
        "    hello->radio = ~0ull;\n    memcpy(hello->port, ",
    )


def older(root: Path) -> None:
    """Before the last fields came."""
    schema = root / "tools/schema/wire.toml"
    change(schema, r',\s*\["port", "u8\[16\]", "name of the port, zero-padded ASCII"\]', "")
    change(schema, r', \["histogram", "u32\[16\]", "percentiles seen"\]', "")
    change(root / "firmware/core/src/device_requests.c", r"    memcpy\(hello->port, .*\n", "")
    change(root / "firmware/core/src/device.c", r"    device->status\.histogram\[.*\n", "")


@pytest.fixture(scope="module", params=[older, newer], ids=["older", "newer"])
def firmware(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The native device compiled from a changed schema: which change, and the program."""
    root = tmp_path_factory.mktemp(request.param.__name__)
    for folder in ("firmware/core", "firmware/ports/native", "tools/schema", "tools/build"):
        shutil.copytree(ROOT / folder, root / folder)
    for file in ("host/drip/wire.py", "docs/SPEC.md"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, root / file)
    request.param(root)
    build = (
        "import pathlib, sys; sys.path.insert(0, 'tools/build'); import compile_core;"
        " compile_core.build_native(pathlib.Path('.'))"
    )
    for command in (["tools/schema/gen.py"], ["-c", build]):
        done = subprocess.run(
            [sys.executable, *command], cwd=root, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return request.param.__name__, root / "_bin" / "drip-native"


@contextmanager
def board(firmware: tuple[str, Path], card: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        # As an attribute of the package, launch is the function of that name.
        module = sys.modules["drip.device.launch"]
        patch.setattr(module, "native_binary", lambda: firmware[1])
        with launch_native(card=card) as device:
            yield device.url


def as_its_own_host(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    """Take part as a host of the board's schema would: FEED did not change in these."""
    schema = client.device.schema_hash
    monkeypatch.setattr(wire, "SCHEMA_HASH", schema)
    client.hello()


def record(port: str, frames: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch, connect(port) as client:
        as_its_own_host(patch, client)
        for frame in frames:
            assert client.feed(frame).keep == 1


@pytest.fixture
def card(tmp_path: Path) -> Path:
    image = tmp_path / "card.img"
    format_image(image, 2 << 20)
    return image


@pytest.mark.slow
def test_a_board_of_another_schema_is_pulled_and_freed(
    firmware: tuple[str, Path], card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    which, _ = firmware
    store = tmp_path / "store"
    with board(firmware, card) as port:
        record(port, FRAMES)
        with connect(port) as client:
            hello, status = client.device, client.status()
            assert hello.schema_hash != wire.SCHEMA_HASH
            assert (hello.size > wire.Hello.SIZE) == (which == "newer")
            assert (hello.size < wire.Hello.SIZE) == (which == "older")
            assert hello.port.rstrip(b"\0") == (b"native" if which == "newer" else b"")
            assert (status.frames_seen, status.frames_kept) == (24, 24)
            assert (status.size > wire.Status.SIZE) == (which == "newer")
        assert cli.main(["status", port]) == 0
        assert cli.main(["monitor", port, "--once"]) == 0
        assert cli.main(["time", port]) == 0
        assert cli.main(["sync", port, str(store)]) == 0
        with connect(port) as client:
            status = client.status()
            assert status.log_acked >= status.log_durable > 0
        # Recording goes on, another pull brings the rest.
        record(port, FRAMES[:3])
        assert cli.main(["sync", port, str(store)]) == 0
    assert "Traceback" not in capsys.readouterr().err
    stored = Store.open(store)
    assert stored.conflicts == 0
    frames = stored.frames()
    assert [x.tobytes() for x in frames.x] == FRAMES + FRAMES[:3]


@pytest.mark.slow
def test_only_what_another_schema_could_misread_is_refused(
    firmware: tuple[str, Path], card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = tmp_path / "frame.bin"
    frame.write_bytes(FRAMES[0])
    with board(firmware, card) as port:
        refused = SchemaError.exit_code
        assert cli.main(["config", port]) == refused == 9
        assert cli.main(["config", "events=on", port]) == refused
        assert cli.main(["score", str(frame), port]) == refused
        said = capsys.readouterr().err
        assert said.count("error: ") == said.count("status and sync work with every version") == 3
        with connect(port) as client:
            assert client.status().frames_seen == 0


@pytest.mark.slow
def test_a_card_goes_from_board_to_board(
    firmware: tuple[str, Path], card: Path, tmp_path: Path
) -> None:
    """Recorded by one version, continued by another, pulled by either, or read without a board."""
    with board(firmware, card) as port:
        record(port, FRAMES[:10])
    assert inspect_image(card).records >= 10
    with launch_native(card=card) as device, connect(device.url) as client:
        for frame in FRAMES[10:20]:
            assert client.feed(frame).keep == 1
    with board(firmware, card) as port:
        record(port, FRAMES[20:])
        with connect(port) as client:
            sync_device(client, Store.open(tmp_path / "store", create=True), keep=True)
    with launch_native(card=card) as device, connect(device.url) as client:
        report = sync_device(client, Store.open(tmp_path / "store"))
    assert report.damaged == ()
    assert report.store is not None
    assert (report.store.new, report.store.duplicates) == (0, 24)
    frames = Store.open(tmp_path / "store").frames()
    assert [x.tobytes() for x in frames.x] == FRAMES
    found = inspect_image(card)
    assert found.records >= 24
    assert list(found.damage) == []


# ---------------------------------------------------------------- longer record headers


def lengthen_records(card: Path, extra: bytes) -> None:
    """Rewrite the first segment of a card as later firmware may: longer record headers.

    What follows the known fields belongs to `payload_crc`, as docs/SPEC.md says.
    """
    report = inspect_image(card)
    data = bytearray(card.read_bytes())
    (segment,) = read_segments(card)
    base = data.find(wire.SEGMENT_MAGIC.to_bytes(4, "little"))
    header = wire.SegmentHeader.unpack(bytes(data), base)
    raw = bytearray(header.segment_bytes)
    raw[: header.header_bytes] = data[base : base + header.header_bytes]
    at = header.header_bytes
    seed = zlib.crc32(header.log_uuid + header.segment.to_bytes(4, "little"))
    for record in segment.parsed.records:
        longer = replace(
            record.header,
            version=wire.RECORD_VERSION + 1,
            header_bytes=wire.RecordHeader.SIZE + len(extra),
            payload_crc=zlib.crc32(extra + record.payload),
        )
        crc = zlib.crc32(longer.pack()[: wire.RecordHeader.OFFSETS["header_crc"]], seed)
        whole = replace(longer, header_crc=crc).pack() + extra + record.payload
        raw[at : at + len(whole)] = whole
        at += -(-len(whole) // wire.RECORD_ALIGN) * wire.RECORD_ALIGN
    # Marks begin beyond: none has to be written anew.
    assert at <= wire.MARK_BLOCKS * wire.BLOCK_BYTES
    data[base : base + len(raw)] = raw
    card.write_bytes(data)
    assert report.records == len(segment.parsed.records)


@pytest.mark.parametrize("extra", [b"\xd1" * 8, b"\x7c\xd1" * 32], ids=["8", "64"])
def test_longer_record_headers_are_read_by_older_hosts_and_boards(
    card: Path, tmp_path: Path, extra: bytes
) -> None:
    with launch_native(card=card) as device:
        record(device.url, FRAMES)
    lengthen_records(card, extra)
    found = inspect_image(card)
    assert (found.records, list(found.damage)) == (24, [])
    store = Store.open(tmp_path / "store", create=True)
    with launch_native(card=card) as device, connect(device.url) as client:
        # An older board mounts the card, goes on behind what it finds, and serves all of it.
        seq = client.feed(b"\xff" * 64).seq
        report = sync_device(client, store)
        assert client.status().log_acked >= client.status().log_durable
    assert report.damaged == ()
    frames = store.frames()
    assert [x.tobytes() for x in frames.x] == [*FRAMES, b"\xff" * 64]
    assert [key.seq for key in frames.keys] == sorted({key.seq for key in frames.keys})
    assert frames.keys[-1].seq == seq
