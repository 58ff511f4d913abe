"""Starting a board in QEMU: the image that is flashed, with a card and flash from our plugin."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from drip.device import emulate
from drip.device.emulate import EmulatedDevice
from drip.errors import MissingDependencyError

__all__ = ["launch_qemu", "missing_for_qemu"]

_QEMU = "qemu-system-arm"
_PLUGIN = emulate.ROOT / "tools" / "qemu"
# Versions of QEMU that the plugin was tried with, and the plugin API of each. The plugin calls
# functions of QEMU that may change in any other.
_TESTED_QEMU = {"7.2": 1, "10.0": 4}


def missing_for_qemu() -> str | None:
    """Say what this computer lacks to emulate a board in QEMU; None: nothing."""
    if shutil.which(_QEMU) is None:
        return f"{_QEMU} is missing; install it with: sudo apt-get install qemu-system-arm"
    if not (_PLUGIN / "stm32sd.c").is_file():
        return "tools/qemu is not here; emulate boards in a checkout of DRIP"
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        return "a C compiler is missing; install gcc or clang"
    version = _qemu_version()
    if version not in _TESTED_QEMU:
        tested = ", ".join(_TESTED_QEMU)
        return f"the plugin was not tried with QEMU {version}; install one of: {tested}"
    return None


@contextlib.contextmanager
def launch_qemu(
    *,
    card: str | os.PathLike[str] | None = None,
    flash: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    link: str | os.PathLike[str] | None = None,
    firmware: str | os.PathLike[str] | None = None,
    device_id: str | None = None,
    faults: Mapping[str, int] | None = None,
) -> Iterator[EmulatedDevice]:
    """Run a board's image in QEMU while the block runs.

    Args:
        card: Image of its card, a multiple of 512 KiB; None: the socket is empty.
        flash: File with what the board wrote to its flash, made when missing; None: it is
            forgotten at the end.
        model: Pushed to the board over the link when it runs another one.
        link: Make this path a symbolic link to its pty.
        firmware: The image; None: of the Nucleo, from ``make firmware``.
        device_id: 24 hex digits of the chip's unique id; None: made from the path of the card.
        faults: Arguments of the plugin, see ``tools/qemu/stm32sd.c``: ``cut``, ``wrerr`` ...

    Raises:
        MissingDependencyError: QEMU, a C compiler or the image is missing, or QEMU was not tried.
        CardError: There is no such card image, or it has a size that no card has.
        ModelError: The image or the model cannot be used.
        LinkError: It did not start; the message says why.
    """
    missing = missing_for_qemu()
    if missing is not None:
        raise MissingDependencyError(f"cannot emulate a board: {missing}", "or use --kind native")
    image = Path(firmware) if firmware is not None else emulate.find_firmware()
    board = emulate.read_board(image)
    emulate.check_card(card)
    port, bit = board.card_select
    options: dict[str, object] = {"cs": f"{port}{bit}", "uid": device_id or _derive_id(card)}
    options |= {} if card is None else {"card": Path(card).resolve()}
    options |= {} if flash is None else {"flash": Path(flash).resolve()}
    options |= dict(faults or {})
    with tempfile.TemporaryDirectory(prefix="drip-qemu-") as scratch:
        control_file = Path(scratch) / "control"
        control_file.write_bytes(bytes(emulate.CONTROL.size))
        options["control"] = control_file
        plugin = ",".join([str(_build_plugin()), *(f"{k}={v}" for k, v in options.items())])
        serial = [word for _ in range(board.uart - 1) for word in ("-serial", "null")]
        command = [_QEMU, "-M", "netduinoplus2", "-display", "none", "-monitor", "none"]
        command += [*serial, "-serial", "pty", "-kernel", str(image), "-plugin", plugin]
        with (
            control_file.open("r+b") as handle,
            mmap.mmap(handle.fileno(), 0) as control,
            emulate.running(command) as (process, errors),
        ):
            url = _read_pty(process)
            if not url:
                raise emulate.did_not_start("QEMU", process, errors)
            with emulate.linked(link, url):
                device = EmulatedDevice(url, process.pid, board, process, control)
                emulate.push_model(device, model)
                yield device


def _qemu_version() -> str:
    said = subprocess.run([_QEMU, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+\.\d+)", said)
    return found.group(1) if found else "unknown"


def _build_plugin() -> Path:
    """Compile the plugin unless that was done before; return the file."""
    sources = sorted(_PLUGIN.glob("s*.c"))
    headers = sorted(_PLUGIN.glob("*.h"))
    api = _TESTED_QEMU[_qemu_version()]
    digest = hashlib.sha256(str(api).encode())
    for path in (*sources, *headers):
        digest.update(path.read_bytes())
    folder = emulate.ROOT / "build" / "qemu"
    target = folder / f"stm32sd-{digest.hexdigest()[:16]}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False) as handle:
        made = Path(handle.name)
    compiler = os.environ.get("CC", "cc").split()
    flags = ["-shared", "-fPIC", "-fvisibility=hidden", "-O2", "-std=gnu11", f"-DPLUGIN_API={api}"]
    command = [*compiler, *flags, "-o", str(made), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        made.unlink()
        said = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise MissingDependencyError(
            f"the QEMU plugin does not compile: {said}", "check the compiler"
        )
    made.replace(target)
    return target


def _read_pty(process: subprocess.Popen[bytes]) -> str:
    """The pty that QEMU names on its output; empty when it ended or names none."""
    if process.stdout is None:
        return ""
    said = b""
    deadline = time.monotonic() + emulate.START_S
    while True:
        found = re.search(rb"redirected to (\S+) \(", said)
        if found:
            return found.group(1).decode()
        left = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([process.stdout], [], [], left)
        piece = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not piece:
            return ""
        said += piece


def _derive_id(card: str | os.PathLike[str] | None) -> str:
    text = "" if card is None else str(Path(card).resolve())
    return hashlib.sha256(text.encode()).hexdigest()[:24]
