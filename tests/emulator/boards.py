"""Simulated boards for tests: the native process, and the board's image in QEMU and Renode."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drip import wire
from drip.card import format_image, read_segments
from drip.device import Client, Kind, connect, launch, native_binary
from drip.device.qemu import launch_qemu, missing_for_qemu
from drip.device.renode import missing_for_renode
from drip.errors import DripError, MissingDependencyError
from drip.records import is_frame

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "digits" / "model.drip"
BOARD = "nucleo_f446re"
CARD_BYTES = 4 << 20


def _missing(kind: Kind) -> str | None:
    if kind is Kind.NATIVE:
        try:
            native_binary()
        except MissingDependencyError as error:
            return f"{error.message}: {error.hint}"
        return None
    return missing_for_qemu() if kind is Kind.QEMU else missing_for_renode()


def needs(kind: Kind) -> None:
    """Skip the test, and say what is missing, unless this kind of board can be started here."""
    missing = _missing(kind)
    if missing is not None:
        pytest.skip(missing)
    if kind is not Kind.NATIVE:
        firmware()


@functools.cache
def firmware(board: str = BOARD) -> Path:
    """The image of a board, built from the sources as they are."""
    named = os.environ.get("DRIP_FIRMWARE")
    if named is not None and board == BOARD:
        return Path(named)
    if not (ROOT / "build" / "platformio" / "venv" / "bin" / "pio").is_file():
        pytest.skip(f"PlatformIO is not set up here; run: make firmware BOARDS={board}")
    build = ROOT / "tools" / "platformio" / "build.sh"
    done = subprocess.run([build, board], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ROOT / "build" / "firmware" / board / "firmware.elf"


@contextlib.contextmanager
def running(kind: Kind, **options: Any) -> Iterator[Any]:
    """A board with the digits model."""
    if kind is Kind.NATIVE:
        options.setdefault("model", MODEL)
    else:
        options["firmware"] = firmware()
    with launch(kind, **options) as board:
        yield board


@contextlib.contextmanager
def in_qemu(faults: Mapping[str, int] | None = None, **options: Any) -> Iterator[Any]:
    """A board in QEMU, with faults."""
    options.setdefault("firmware", firmware())
    with launch_qemu(faults=faults, **options) as board:
        yield board


def new_card(path: Path) -> Path:
    """A card with an empty log."""
    format_image(path, CARD_BYTES)
    return path


def payloads(card: Path) -> list[bytes]:
    """The frames on a card, oldest first; what is damaged fails the test."""
    found = []
    numbers = []
    for segment in read_segments(card):
        assert segment.parsed.damage == (), segment.parsed.damage
        for record in segment.parsed.records:
            numbers.append(record.header.seq)
            if is_frame(record.header):
                found.append(record.payload)
    assert numbers == sorted(set(numbers))
    return found


def keep_all(client: Client) -> None:
    """Keep every frame, whatever its score."""
    client.config_set({int(wire.Config.POLICY_KIND): int(wire.PolicyKind.ALL)})


def feed_until_it_ends(url: str, frames: list[bytes], sync_every: int) -> int:
    """Feed frames until the board is gone. Returns how many of them it has called durable."""
    durable = 0
    with contextlib.suppress(DripError), connect(url, timeout_s=2.0) as client:
        keep_all(client)
        for number, frame in enumerate(frames, 1):
            if client.feed(frame).keep and number % sync_every == 0:
                client.sync_log()
                durable = number
    return durable
