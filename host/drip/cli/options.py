"""Options and arguments that several commands share, so that they read the same everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drip import config
from drip.cli import console
from drip.errors import UsageError
from drip.model_file import read_model

__all__ = [
    "Json", "Port", "Seed", "Settings", "Where", "board", "board_settings", "port_of", "read_model",
    "splits",
]  # fmt: skip

if TYPE_CHECKING:
    from drip.data import Splits
    from drip.device import Client
    from drip.device.exchange import Event


def _json_target(given: str | None) -> str | None:
    """Hours of work must not end in figures that cannot be written."""
    if given is not None and given != "-":
        console.check_writable(Path(given))
    return given


Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the figures here; - for stdout.",
        callback=_json_target,
    ),
]
Settings = Annotated[
    Path | None, typer.Option("--config", help="drip.toml to use instead of the one here.")
]
Port = Annotated[
    str | None, typer.Argument(help="Serial port, pty or tcp:HOST:PORT; default: of drip.toml.")
]
Where = Annotated[
    str | None, typer.Argument(metavar="[STORE]", help="Folder or URL; default: of drip.toml.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of everything random.")]


def splits(chosen: config.Config, path: Path | None, seed: int | None) -> Splits:
    """The four parts of a data set: of `path`, or of what drip.toml names."""
    from drip.data import load_npz, split

    options = chosen.data
    return split(
        load_npz(options.path if path is None else path),
        seed=options.seed if seed is None else seed,
        fit=options.fit,
        calibration=options.calibration,
        stream=options.stream,
        test=options.test,
    )


@contextlib.contextmanager
def board(
    port: str | None,
    chosen: config.Config,
    *,
    fast: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[Client]:
    """A client of the board at a port, or of the one that drip.toml names.

    Args:
        port: None: as drip.toml says.
        chosen: The settings.
        fast: Much will go over the line: raise its rate where both ends can.
        on_event: Called with what the board reports of its own accord.

    Raises:
        UsageError: Neither names one.
    """
    from drip.device import connect

    settings = board_settings(port, chosen)
    with connect(
        port_of(settings),
        baud=settings.baud,
        timeout_s=settings.timeout_s,
        max_baud=settings.max_baud if fast else 0,
        on_event=on_event,
    ) as client:
        yield client


def board_settings(port: str | None, chosen: config.Config) -> config.BoardConfig:
    """The section [board] of drip.toml, with the port of the command line if there is one."""
    return config.override(chosen.board, port=port)


def port_of(settings: config.BoardConfig) -> str:
    """The port that is meant.

    Raises:
        UsageError: None is named anywhere.
    """
    if settings.port is None:
        raise UsageError("no port given", "name one, or set [board] port in drip.toml")
    return settings.port
