"""Starting a board in Renode: the image that is flashed, by the scripts of firmware/emulation."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from drip.device import emulate
from drip.device.emulate import Board, EmulatedDevice
from drip.errors import MissingDependencyError

__all__ = ["launch_renode", "missing_for_renode"]

_RENODE = "renode"
_SCRIPTS = emulate.ROOT / "firmware" / "emulation"


def missing_for_renode() -> str | None:
    """Say what this computer lacks to emulate a board in Renode; None: nothing."""
    if shutil.which(_RENODE) is None:
        return "renode is missing; install 1.16.1 or newer from https://renode.io"
    if not (_SCRIPTS / "drip.resc").is_file():
        return "firmware/emulation is not here; emulate boards in a checkout of DRIP"
    return None


@contextlib.contextmanager
def launch_renode(
    *,
    card: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    link: str | os.PathLike[str] | None = None,
    firmware: str | os.PathLike[str] | None = None,
) -> Iterator[EmulatedDevice]:
    """Run a board's image in Renode while the block runs.

    Args:
        card: Image of its card; None: the socket is empty.
        model: Pushed to the board over the link when it runs another one.
        link: Make this path a symbolic link to its pty.
        firmware: The image; None: of the Nucleo, from ``make firmware``.

    Raises:
        MissingDependencyError: Renode or the image is missing.
        CardError: There is no such card image.
        ModelError: The image or the model cannot be used.
        LinkError: It did not start; the message says why.
    """
    missing = missing_for_renode()
    if missing is not None:
        raise MissingDependencyError(f"cannot emulate a board: {missing}", "or use --kind native")
    image = Path(firmware) if firmware is not None else emulate.find_firmware()
    board = emulate.read_board(image)
    emulate.check_card(card)
    with tempfile.TemporaryDirectory(prefix="drip-renode-") as scratch:
        pty = Path(scratch) / "pty"
        platform = None
        if card is not None:
            platform = Path(scratch) / "card.repl"
            platform.write_text(card_platform(Path(card).resolve(), board))
        script = start_script(image.resolve(), board, pty, platform)
        command = [_RENODE, "--disable-xwt", "--console", "--plain", "-e", script]
        with emulate.running(command, read_output=False) as (process, errors):
            if not _appears(pty, process):
                raise emulate.did_not_start("Renode", process, errors)
            with emulate.linked(link, str(pty)):
                device = EmulatedDevice(str(pty), process.pid, board, process)
                emulate.push_model(device, model)
                yield device


def card_platform(card: Path, board: Board) -> str:
    """Return ``card.repl`` with another image and pin in it."""
    port, bit = board.card_select
    text = (_SCRIPTS / "card.repl").read_text()
    for pattern, value in (
        (r'(?<=imageFile: )".*"', f'"{card}"'),
        (r"(?<=capacity: )\d+", str(card.stat().st_size)),
        (r"gpioPort\w:\n    \d+", f"gpioPort{port}:\n    {bit}"),
    ):
        text = re.sub(pattern, value, text)
    return text


def start_script(image: Path, board: Board, pty: Path, platform: Path | None) -> str:
    """Return what Renode's monitor is told."""
    commands = [f"$bin=@{image}", f"include @{_SCRIPTS / 'drip.resc'}"]
    if platform is not None:
        commands.append(f"machine LoadPlatformDescription @{platform}")
    commands += [
        f'emulation CreateUartPtyTerminal "link" "{pty}" true',
        f"connector Connect sysbus.usart{board.uart} link",
        "start",
    ]
    return "; ".join(commands)


def _appears(pty: Path, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + emulate.START_S
    while time.monotonic() < deadline and process.poll() is None:
        if pty.exists():
            return True
        time.sleep(0.05)
    return False
