"""What the launchers of emulated boards share: images, boards, processes, ptys."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drip.device.launch import read_blob
from drip.errors import CardError, LinkError, MissingDependencyError, ModelError

__all__ = [
    "Board",
    "Counters",
    "EmulatedDevice",
    "find_firmware",
    "read_board",
]

ROOT = Path(__file__).resolve().parents[3]
_PORT = ROOT / "firmware" / "ports" / "stm32f4"
_IMAGES = ROOT / "build" / "firmware"
_DEFAULT_BOARD = "nucleo_f446re"
START_S = 30.0
_STOP_S = 5.0
# struct control of tools/qemu/stm32sd.c
CONTROL = struct.Struct("<IIQQQQ")
_MIN_CARD = 512 * 1024


@dataclass(frozen=True)
class Board:
    """What an emulator must know of a board; read from its ``board_NAME.h``.

    Attributes:
        name: Such as ``nucleo_f446re``.
        uart: Number of the USART that is the link.
        card_select: Port and bit of the pin that selects the card, such as ``("A", 4)``.
    """

    name: str
    uart: int
    card_select: tuple[str, int]


@dataclass(frozen=True)
class Counters:
    """What an emulated board has done.

    Attributes:
        resets: Starts, the first included.
        spi_bytes: Bytes exchanged with the card.
        flash_operations: Erases and programmings of flash.
        blocks_written: Blocks that were sent to the card.
        blocks_read: Blocks that were read from it.
    """

    resets: int
    spi_bytes: int
    flash_operations: int
    blocks_written: int
    blocks_read: int


@dataclass(frozen=True)
class EmulatedDevice:
    """A board in an emulator.

    Attributes:
        url: What :func:`drip.device.connect` takes: the path of its pty.
        pid: Process of the emulator.
        board: Which board it is.
    """

    url: str
    pid: int
    board: Board
    _process: subprocess.Popen[bytes] = field(repr=False, compare=False)
    _control: mmap.mmap | None = field(default=None, repr=False, compare=False)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the emulator ends; return its exit status.

        Raises:
            LinkError: It still runs after ``timeout_s``.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise LinkError(
                f"the emulator still runs after {timeout_s} s", "wait longer"
            ) from error

    def cut_power(self) -> None:
        """Stop it as a power loss does: what was not durable is gone."""
        self._process.kill()
        self._process.wait()

    def set_card(self, present: bool) -> None:
        """Pull the card or put it in; QEMU only.

        Raises:
            LinkError: The emulator has no such switch.
        """
        control = self._shared()
        control[0:4] = struct.pack("<I", present)

    @property
    def counters(self) -> Counters:
        """What the board has done so far; QEMU only."""
        return Counters(*CONTROL.unpack_from(self._shared())[1:])

    def _shared(self) -> mmap.mmap:
        if self._control is None:
            raise LinkError("this emulator cannot pull cards or count", "use QEMU")
        return self._control


def find_firmware(board: str = _DEFAULT_BOARD) -> Path:
    """Return the image that `make firmware` built for a board.

    Raises:
        MissingDependencyError: It was not built.
    """
    image = _IMAGES / board / "firmware.elf"
    if not image.is_file():
        raise MissingDependencyError(
            f"there is no firmware for {board}",
            f"run: make firmware BOARDS={board}, or name an image with --firmware",
        )
    return image


def read_board(firmware: Path) -> Board:
    """Say which board an image was built for.

    Raises:
        ModelError: It cannot be read, or is no firmware of DRIP.
    """
    try:
        content = firmware.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read {firmware}: {error.strerror}", "see: make firmware"
        ) from error
    found = re.search(rb"DRIP on ([a-z0-9_]+)\r\n", content)
    header = _PORT / f"board_{found.group(1).decode()}.h" if found else _PORT / "board_.h"
    if found is None or not content.startswith(b"\x7fELF") or not header.is_file():
        raise ModelError(
            f"{firmware} is no image of a board", "pass the firmware.elf of make firmware"
        )
    text = header.read_text()
    uart = re.search(r"#define BOARD_UART\s+(\d)", text)
    select_pin = re.search(r"#define BOARD_SD_CS\s+PIN\((\w), (\d+)\)", text)
    if uart is None or select_pin is None:
        raise ModelError(f"{header} names no UART or card pin", "compare it with another board's")
    return Board(
        name=found.group(1).decode(),
        uart=int(uart.group(1)),
        card_select=(select_pin.group(1), int(select_pin.group(2))),
    )


def check_card(card: str | os.PathLike[str] | None) -> None:
    if card is None:
        return
    path = Path(card)
    if not path.is_file():
        raise CardError(f"no such card image: {path}", "make one with: drip card format")
    if path.stat().st_size == 0 or path.stat().st_size % _MIN_CARD != 0:
        raise CardError(
            f"{path} is not a multiple of 512 KiB, as cards are", "make one with: drip card format"
        )


@contextlib.contextmanager
def running(
    command: list[str], *, read_output: bool = True
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run an emulator while the block runs; give its process and a file with what it complains of.

    Args:
        command: Program and arguments.
        read_output: The caller reads its output; otherwise that goes to the file, too.
    """
    with tempfile.NamedTemporaryFile(prefix="drip-emulator-") as errors:
        # A session of its own: Ctrl-C in the terminal is for the host, which then stops it.
        process = subprocess.Popen(
            command,
            # Left open: a monitor on its input would end with it.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if read_output else errors,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield process, Path(errors.name)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def did_not_start(name: str, process: subprocess.Popen[bytes], errors: Path) -> LinkError:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    lines = errors.read_text(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit status {process.returncode}"
    return LinkError(f"{name} did not start the board: {reason}", "check the image and the card")


@contextlib.contextmanager
def linked(link: str | os.PathLike[str] | None, url: str) -> Iterator[None]:
    """A symbolic link to the pty while the block runs."""
    if link is None:
        yield
        return
    path = Path(link)
    if path.is_symlink():
        path.unlink()
    try:
        path.symlink_to(url)
    except OSError as error:
        raise LinkError(f"cannot make {path}: {error.strerror}", "name another --link") from error
    try:
        yield
    finally:
        if path.is_symlink() and str(path.readlink()) == url:
            path.unlink()


def push_model(device: EmulatedDevice, model: str | os.PathLike[str] | None) -> None:
    """Make the board run a model, as a user does it."""
    if model is None:
        return
    from drip.deploy import deploy
    from drip.device import connect

    content = read_blob(model)
    with connect(device.url) as client:
        deploy(client, content)
