"""Starting simulated devices: the firmware as a process of this computer, or in an emulator."""

from __future__ import annotations

import contextlib
import enum
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from drip.errors import CardError, LinkError, MissingDependencyError, UsageError
from drip.model_file import read_model

__all__ = ["Kind", "NativeDevice", "SimulatedDevice", "launch", "launch_native", "native_binary"]

_SAYS = "drip-native: error: "
_START_S = 20.0
_STOP_S = 5.0


class Kind(str, enum.Enum):
    """How a device is simulated."""

    NATIVE = "native"
    QEMU = "qemu"
    RENODE = "renode"


class SimulatedDevice(Protocol):
    """A device of any kind.

    Attributes:
        url: What :func:`drip.device.connect` takes.
        pid: Its process.
    """

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def wait(self) -> int:
        """Wait until the process ends; return its exit status."""
        ...

    def cut_power(self) -> None:
        """Stop it as a power loss does: what was not durable is gone."""
        ...


@contextlib.contextmanager
def launch(
    kind: Kind,
    *,
    card: str | os.PathLike[str] | None = None,
    flash: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    link: str | os.PathLike[str] | None = None,
    tcp: int | None = None,
    firmware: str | os.PathLike[str] | None = None,
) -> Iterator[SimulatedDevice]:
    """Run a device of any kind while the block runs.

    Args:
        kind: ``NATIVE``: the firmware as a process; the others: a board's image in an emulator.
        card: Image file of its card; None: no card.
        flash: File with its model slots; not in Renode.
        model: Compiled model that it runs.
        link: Make this path a symbolic link to its pty.
        tcp: Native only: serve this port instead of a pty.
        firmware: Emulators only: the image; None: the one of ``make firmware``.

    Raises:
        UsageError: An option that this kind does not have.
        DripError: See the launchers of each kind.
    """
    if kind is Kind.NATIVE:
        _refuse(kind, firmware=firmware)
        with launch_native(card=card, flash=flash, model=model, link=link, tcp=tcp) as native:
            yield native
    elif kind is Kind.QEMU:
        from drip.device.qemu import launch_qemu

        _refuse(kind, tcp=tcp)
        with launch_qemu(
            card=card, flash=flash, model=model, link=link, firmware=firmware
        ) as board:
            yield board
    else:
        from drip.device.renode import launch_renode

        _refuse(kind, tcp=tcp, flash=flash)
        with launch_renode(card=card, model=model, link=link, firmware=firmware) as board:
            yield board


def _refuse(kind: Kind, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} does not go with --kind {kind.value}", "leave it out")


@dataclass(frozen=True)
class NativeDevice:
    """A device that runs as a process.

    Attributes:
        url: What :func:`drip.device.connect` takes: the path of its pty, or ``tcp:HOST:PORT``.
        pid: Its process.
    """

    url: str
    pid: int
    _process: subprocess.Popen[bytes] = field(repr=False, compare=False)

    def wait(self) -> int:
        """Wait until the process ends; return its exit status."""
        return self._process.wait()

    def cut_power(self) -> None:
        """Stop it as a power loss does: what was not durable is gone."""
        self._process.kill()
        self._process.wait()


def native_binary() -> Path:
    """Return the firmware compiled for this computer.

    Raises:
        MissingDependencyError: It was not built, or this system has no POSIX terminals.
    """
    if sys.platform == "win32":
        raise MissingDependencyError(
            "the native device needs POSIX terminals", "run it on Linux or macOS, or under WSL"
        )
    binary = Path(__file__).resolve().parents[1] / "_bin" / "drip-native"
    if not binary.is_file():
        raise MissingDependencyError(
            "the native device is not built", "run: python tools/build/compile_core.py"
        )
    return binary


@contextlib.contextmanager
def launch_native(
    *,
    card: str | os.PathLike[str] | None = None,
    flash: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    link: str | os.PathLike[str] | None = None,
    tcp: int | None = None,
    device_id: str | None = None,
) -> Iterator[NativeDevice]:
    """Run the native device while the block runs; what it logged is durable afterwards.

    Args:
        card: Image file of its card; None: no card.
        flash: File with its model slots, made when missing; None: no slots.
        model: Compiled model: goes into ``flash`` when that holds none, or runs as it is.
        link: Make this path a symbolic link to its pty.
        tcp: Serve 127.0.0.1 at this port instead of a pty; 0: any free port.
        device_id: 32 hex digits; None: made from the path of the card.

    Raises:
        MissingDependencyError: It was not built.
        CardError: There is no such card image.
        ModelError: The model cannot be read or is damaged.
        LinkError: It did not start; the message says why.
    """
    command = [str(native_binary())]
    _check_files(card, model)
    options = {"card": card, "flash": flash, "model": model, "link": link, "id": device_id}
    for name, value in options.items():
        if value is not None:
            command += [f"--{name}", os.fspath(value)]
    if tcp is not None:
        command += ["--tcp", str(tcp)]
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C in the terminal is for the host, which then stops the device.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            url = _first_line(process)
            if not url:
                process.wait(_STOP_S)
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                reason = said[-1] if said else f"exit status {process.returncode}"
                raise LinkError(
                    f"the native device did not start: {reason.removeprefix(_SAYS)}",
                    "check the card image, the flash file and the model that it was given",
                )
            yield NativeDevice(url, process.pid, process)
        finally:
            _stop(process)


def _check_files(card: str | os.PathLike[str] | None, model: str | os.PathLike[str] | None) -> None:
    """Refuse what is missing or damaged with the error that it is, before a process starts."""
    if card is not None and not Path(card).is_file():
        raise CardError(f"no such card image: {os.fspath(card)}", "make one with: drip card format")
    if model is not None:
        read_blob(model)


def read_blob(path: str | os.PathLike[str]) -> bytes:
    """The content of a model file that is whole.

    Raises:
        ModelError: It cannot be read, or is damaged.
    """
    return read_model(Path(path), ".drip")


def _first_line(process: subprocess.Popen[bytes]) -> str:
    """Where the device says that it listens; empty when it ended or says nothing."""
    if process.stdout is None:
        return ""
    said = b""
    deadline = time.monotonic() + _START_S
    while not said.endswith(b"\n"):
        left = deadline - time.monotonic()
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, left))
        piece = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not piece:
            process.kill()
            return ""
        said += piece
    return said.decode(errors="replace").strip()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
