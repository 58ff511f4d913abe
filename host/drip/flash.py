"""Building a board's image with PlatformIO, uploading it, and seeing the board answer."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drip import wire
from drip.device.opening import connect
from drip.errors import BuildError, LinkError, MissingDependencyError, ModelError, UsageError
from drip.sync.ports import find_ports

__all__ = ["FlashReport", "Project", "find_project", "flash", "only_port"]

_SETTINGS = "platformio.ini"
# Where `make firmware` puts a PlatformIO of its own, and its packages.
_OWN_PIO = Path("build/platformio/venv/bin/pio")
_OWN_CORE = Path("build/platformio/core")
_BOARD_PREFIX = "env:"
_RETRY_S = 0.5


@dataclass(frozen=True)
class Project:
    """A folder with DRIP's ``platformio.ini``.

    Attributes:
        root: The folder.
        boards: Environments that build an image for a board.
    """

    root: Path
    boards: tuple[str, ...]


@dataclass(frozen=True)
class FlashReport:
    """What is on the board now.

    Attributes:
        environment: That was built.
        port: Where the board answered.
        board: Its name for itself.
        device_id: 16 bytes.
        model_id: Of the model that answers, 16 bytes; zeros: none.
        is_slot_model: The board answers with a model that was pushed before, not with the image's:
            models in slots go first.
        seconds: From the start of the build to the answer.
    """

    environment: str
    port: str
    board: str
    device_id: bytes
    model_id: bytes
    is_slot_model: bool
    seconds: float


def find_project(start: Path) -> Project:
    """The project that a folder lies in, or else the checkout that this package runs from.

    Raises:
        UsageError: There is no ``platformio.ini`` of DRIP.
    """
    for folder in (start, *start.parents, Path(__file__).resolve().parents[2]):
        path = folder / _SETTINGS
        if not path.is_file():
            continue
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        boards = tuple(
            name[len(_BOARD_PREFIX) :]
            for name in parser.sections()
            if name.startswith(_BOARD_PREFIX) and _has_board(parser, name)
        )
        if boards and (folder / "firmware" / "ports").is_dir():
            return Project(folder, boards)
    raise UsageError(
        "there is no platformio.ini of DRIP here or in a folder above",
        "run this in a checkout of DRIP: boards are built from its sources",
    )


def _has_board(parser: configparser.ConfigParser, name: str) -> bool:
    while name in parser:
        if "board" in parser[name]:
            return True
        name = parser[name].get("extends", "")
    return False


def only_port() -> str:
    """The port of the one board that hangs on this computer.

    Raises:
        UsageError: There is none, or more than one.
    """
    found = [port.port for port in find_ports() if port.known]
    if len(found) == 1:
        return found[0]
    what = f"several ports may be the board: {', '.join(found)}" if found else "no board is found"
    raise UsageError(what, "name its port: drip flash --env ENV PORT")


def _pio(project: Project) -> tuple[list[str], dict[str, str]]:
    """The command for PlatformIO, and its environment."""
    variables = dict(os.environ)
    own = project.root / _OWN_PIO
    if own.is_file():
        if (project.root / _OWN_CORE).is_dir():
            variables.setdefault("PLATFORMIO_CORE_DIR", str(project.root / _OWN_CORE))
        return [str(own)], variables
    for name in ("pio", "platformio"):
        path = shutil.which(name)
        if path is not None:
            return [path], variables
    raise MissingDependencyError(
        "PlatformIO is not installed", "pip install platformio, or: make firmware"
    )


def _model_id(model: Path) -> bytes:
    try:
        data = model.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {model}: {error.strerror}", "pass a .drip file") from error
    if len(data) < wire.BlobHeader.SIZE:
        raise ModelError(f"{model} is no compiled model", "make one with: drip compile")
    header = wire.BlobHeader.unpack(data)
    if header.magic != wire.BLOB_MAGIC or header.total_bytes != len(data):
        raise ModelError(f"{model} is no compiled model", "make one with: drip compile")
    return header.model_id


def flash(
    project: Project,
    environment: str,
    port: str,
    *,
    model: Path | None = None,
    baud: int = wire.LINK_BAUD_DEFAULT,
    wait_s: float = 20.0,
    arguments: Sequence[str] = (),
    on_stage: Callable[[str], None] | None = None,
) -> FlashReport:
    """Build an image, upload it, and wait until the board answers.

    Args:
        project: Where to build.
        environment: Of ``platformio.ini``.
        port: Where the board answers afterwards.
        model: Compiled model to put into the image; None: what ``platformio.ini`` names.
        baud: Of the port.
        wait_s: How long the board may take to answer after the upload.
        arguments: Further ones for ``pio run``, such as ``--upload-port``.
        on_stage: Called with a few words when something long begins.

    Raises:
        UsageError: There is no such board.
        ModelError: The model is none.
        MissingDependencyError: PlatformIO is not installed.
        BuildError: PlatformIO could not build or upload; its own output says why.
        LinkError: The board does not answer, or runs without the model.
    """
    if environment not in project.boards:
        raise UsageError(
            f"{project.root / _SETTINGS} has no board {environment!r}",
            f"it has {', '.join(project.boards)}",
        )
    say = on_stage or (lambda text: None)
    command, variables = _pio(project)
    wanted = None
    if model is not None:
        wanted = _model_id(model)
        variables["DRIP_MODEL"] = str(model.resolve())
    start = time.monotonic()
    say(f"building and uploading {environment}")
    command += ["run", "-e", environment, "-t", "upload", *arguments]
    done = subprocess.run(command, cwd=project.root, env=variables, check=False)
    if done.returncode != 0:
        raise BuildError(
            f"PlatformIO could not build or upload {environment}", "its output above says why"
        )
    say(f"waiting for the board on {port}")
    hello = _wait(port, baud, wait_s)
    return FlashReport(
        environment=environment,
        port=port,
        board=hello.port.rstrip(b"\0").decode("ascii", "replace"),
        device_id=hello.device_id,
        model_id=hello.model_id,
        is_slot_model=wanted is not None and hello.model_id not in (wanted, bytes(16)),
        seconds=time.monotonic() - start,
    )


def _wait(port: str, baud: int, wait_s: float) -> wire.Hello:
    """HELLO of the board; ports vanish for a moment while a board is flashed."""
    until = time.monotonic() + wait_s
    while True:
        try:
            with connect(port, baud=baud, timeout_s=2.0) as client:
                return client.device
        except LinkError:
            if time.monotonic() >= until:
                raise
        time.sleep(_RETRY_S)
