"""``drip.toml``: the settings of one user project, checked strictly.

The dataclasses below are the only place that names a setting: parsing, the messages about mistakes
and the commented file that ``drip init`` writes all come from them. Options of the command line
win over the file, the file over the defaults here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from drip.data.files import write_atomic
from drip.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "BoardConfig",
    "Config",
    "DataConfig",
    "LabelsConfig",
    "ModelConfig",
    "PolicyConfig",
    "PreprocessingConfig",
    "StoreConfig",
    "load",
    "override",
    "template",
    "write_template",
]

FILE_NAME = "drip.toml"

_Section = TypeVar("_Section")


def _setting(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    least: float = -math.inf,
    most: float = math.inf,
    example: Any = None,
    is_path: bool = False,
) -> Any:
    """A dataclass field with what a reader and the checker need to know about it."""
    metadata = {
        "text": text,
        "choices": choices,
        "least": least,
        "most": most,
        "example": example,
        "is_path": is_path,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """The labelled frames that exist before a board runs."""

    path: str = _setting(
        "data.npz", "frames as captured and their labels (x, y, classes)", is_path=True
    )
    fit: float = _setting(0.6, "share that trains the model", least=0.01, most=0.97)
    calibration: float = _setting(0.1, "share that sets the threshold", least=0.01, most=0.97)
    stream: float = _setting(0.2, "share that can be fed to a board", least=0.01, most=0.97)
    test: float = _setting(0.1, "share that only measures", least=0.01, most=0.97)
    seed: int = _setting(1, "of the split and of everything random", least=0, most=2**31 - 1)


@dataclass(frozen=True)
class LabelsConfig:
    """Where the labels of pulled frames come from."""

    path: str | None = _setting(
        None, "CSV with the columns key,label", example="labels.csv", is_path=True
    )


@dataclass(frozen=True)
class PreprocessingConfig:
    """From a captured value, or its features, to the model's input: raw * scale + offset."""

    scale: float | tuple[float, ...] | None = _setting(
        None, "one factor, or one per channel; unset: chosen from the data", example=1 / 255
    )
    offset: float | tuple[float, ...] = _setting(0.0, "one offset, or one per channel")
    frontend: str | None = _setting(
        None,
        "what the board makes of int16 sound before the model",
        choices=("log-mel",),
        example="log-mel",
    )
    sample_rate: int = _setting(16000, "of the sound, hertz", least=1000, most=48000)
    mels: int = _setting(40, "bands of log-mel", least=1, most=64)


@dataclass(frozen=True)
class ModelConfig:
    """What is trained."""

    builder: str = _setting("cnn", "name of a recipe, or my.py:function")
    steps: int = _setting(1500, "optimiser steps", least=1)
    batch: int = _setting(32, "frames per step", least=1)
    learning_rate: float = _setting(3e-3, "peak of the schedule", least=1e-8, most=10.0)


@dataclass(frozen=True)
class PolicyConfig:
    """What the board keeps."""

    target_ratio: float = _setting(0.3, "share of frames to keep", least=0.001, most=0.999)
    random_share: float = _setting(
        0.05, "share kept whatever the score, as a fair sample", least=0.0, most=1.0
    )


@dataclass(frozen=True)
class BoardConfig:
    """Where the board is."""

    port: str | None = _setting(None, "serial port, pty or tcp:HOST:PORT", example="/dev/ttyACM0")
    baud: int = _setting(115200, "bits per second of a serial port", least=1200, most=12_000_000)
    max_baud: int = _setting(
        3_000_000, "raise the rate up to this where the board offers it; 0: never", least=0
    )
    timeout_s: float = _setting(5.0, "how long an answer may take", least=0.1, most=600.0)


@dataclass(frozen=True)
class StoreConfig:
    """Where pulled frames are kept on this computer."""

    path: str = _setting("store", "folder or URL", is_path=True)


@dataclass(frozen=True)
class Config:
    """All settings of a project.

    Attributes:
        file: The file they came from, None for defaults alone.
    """

    data: DataConfig = field(default_factory=DataConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    board: BoardConfig = field(default_factory=BoardConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    file: Path | None = None


_SECTIONS: dict[str, type[Any]] = {
    "data": DataConfig,
    "labels": LabelsConfig,
    "preprocessing": PreprocessingConfig,
    "model": ModelConfig,
    "policy": PolicyConfig,
    "board": BoardConfig,
    "store": StoreConfig,
}


def load(path: Path | None = None) -> Config:
    """Read the settings of a project.

    Args:
        path: A ``drip.toml``; None reads the one in the working directory if there is one.

    Returns:
        The settings; paths in the file are relative to the file.

    Raises:
        ConfigError: The file is missing, not TOML, or has an unknown key or an impossible value.
    """
    if path is None:
        path = Path(FILE_NAME)
        if not path.exists():
            return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}", "write one with: drip init") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not TOML: {error}", "compare with: drip init --print"
        ) from error
    _refuse_unknown(path, "section", document, _SECTIONS)
    sections = {}
    for name, kind in _SECTIONS.items():
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} is not a section", f"write it as [{name}]")
        sections[name] = _section(path, name, kind, table)
    config = Config(file=path, **sections)
    shares = config.data.fit + config.data.calibration + config.data.stream + config.data.test
    if shares > 1.0 + 1e-9:
        raise ConfigError(
            f"{path}: [data] fit, calibration, stream and test add up to {shares:g}",
            "make them at most 1 together",
        )
    return config


def override(section: _Section, **options: Any) -> _Section:
    """Return a section with the options that were given on the command line (None: not given)."""
    given = {key: value for key, value in options.items() if value is not None}
    by_name = {item.name: item for item in dataclasses.fields(section)}  # type: ignore[arg-type]
    for key, value in given.items():
        _check_range(f"--{key.replace('_', '-')}", by_name[key], value)
    return dataclasses.replace(section, **given)  # type: ignore[type-var]


def template() -> str:
    """Return a commented ``drip.toml`` that says what every setting does and its default."""
    lines = ["# Settings of this project; `drip --help` lists the commands that read them.", ""]
    for name, kind in _SECTIONS.items():
        lines += [f"[{name}]", f"# {(kind.__doc__ or '').splitlines()[0]}"]
        for item in dataclasses.fields(kind):
            meta = item.metadata
            note = meta["text"]
            if meta["choices"]:
                note += f" ({', '.join(meta['choices'])})"
            elif _bounds(meta):
                note += f" ({_bounds(meta)})"
            unset = item.default is None
            value = _toml(meta["example"] if unset else item.default)
            lines.append(f"{'# ' if unset else ''}{item.name} = {value}  # {note}")
        lines.append("")
    return "\n".join(lines)


def write_template(path: Path, *, force: bool = False) -> None:
    """Write a commented ``drip.toml``.

    Args:
        path: The file; its folder must exist.
        force: Replace a file that is there.

    Raises:
        ConfigError: The file exists and ``force`` is not set, or it cannot be written.
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", "replace it with: drip init --force")
    try:
        write_atomic(path, lambda stream: stream.write(template().encode()))
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}",
            "check that the folder exists, is writable and has space",
        ) from error


def _section(path: Path, name: str, kind: type[Any], table: Mapping[str, Any]) -> Any:
    by_name = {item.name: item for item in dataclasses.fields(kind)}
    _refuse_unknown(path, f"key in [{name}]", table, by_name)
    hints = typing.get_type_hints(kind)
    values = {}
    for key, item in by_name.items():
        if key in table:
            where = f"{path}: [{name}] {key}"
            values[key] = _convert(where, hints[key], table[key])
            _check_range(where, item, values[key])
        value = values.get(key, item.default)
        if item.metadata["is_path"] and value is not None and not _URL.match(value):
            values[key] = str(path.parent / value)
    return kind(**values)


def _refuse_unknown(
    path: Path, what: str, found: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"{path}: unknown {what}: {key}",
                f"did you mean {near[0]}? known: {', '.join(known)}",
            )


_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_NAMES = {str: "a string", int: "a whole number", float: "a number"}


def _convert(where: str, hint: Any, raw: Any) -> Any:
    """Check a TOML value against a field's type and return it as that type."""
    options = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(raw, list) and raw:
            element = typing.get_args(option)[0]
            return tuple(_convert(where, element, item) for item in raw)
        if option is float and isinstance(raw, (int, float)) and not isinstance(raw, bool):
            return float(raw)
        if option in (str, int) and type(raw) is option:
            return raw
    wanted = [
        _NAMES.get(option, "a list of numbers") for option in options if option is not type(None)
    ]
    raise ConfigError(f"{where} is {raw!r}", f"it must be {' or '.join(wanted)}")


def _check_range(where: str, item: dataclasses.Field[Any], value: Any) -> None:
    meta = item.metadata
    if meta["choices"] and value is not None and value not in meta["choices"]:
        raise ConfigError(f"{where} is {value!r}", f"use one of {', '.join(meta['choices'])}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not (
            math.isfinite(number) and meta["least"] <= number <= meta["most"]
        ):
            raise ConfigError(
                f"{where} is {number:g}", f"it must be {_bounds(meta) or 'a finite number'}"
            )


def _bounds(meta: Mapping[str, Any]) -> str:
    least, most = (
        f"{int(limit)}" if math.isfinite(limit) and limit == int(limit) else f"{limit:g}"
        for limit in (meta["least"], meta["most"])
    )
    if math.isfinite(meta["most"]):
        return f"{least} to {most}"
    return f"at least {least}" if math.isfinite(meta["least"]) else ""


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # The defaults here hold nothing that TOML would want escaped.
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) and value != int(value) else repr(value)
