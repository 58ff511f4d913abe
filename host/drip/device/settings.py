"""The settings of a board by name, with values as people write them."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable

from drip import units, wire
from drip.errors import UsageError

__all__ = ["name_of", "parse", "parse_assignments", "show"]

_AS_CALIBRATED = wire.PERCENTILE_ONE + 1
_ENUMS: dict[int, type[enum.IntEnum]] = {
    wire.Config.SCORE_KIND: wire.ScoreKind,
    wire.Config.POLICY_KIND: wire.PolicyKind,
    wire.Config.FULL_MODE: wire.FullMode,
}
_SHARES = (
    wire.Config.THRESHOLD,
    wire.Config.RANDOM_SHARE,
    wire.Config.THRESHOLD_HIGH,
    wire.Config.FLOOR_SHARE,
    wire.Config.TARGET,
)
_CALIBRATED = {
    wire.Config.THRESHOLD: _AS_CALIBRATED,
    wire.Config.REDUNDANCY: _AS_CALIBRATED,
    wire.Config.SCORE_KIND: 0,
    wire.Config.TARGET: 0,
}
_SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1, "": 1}
_SWITCH = {"on": 1, "off": 0}
_MOST = 2**32 - 1


def name_of(key: int) -> str:
    """Name of a setting; a board with newer firmware may have some that this host does not know."""
    return wire.Config(key).name.lower() if key in list(wire.Config) else f"key_{key}"


def show(key: int, value: int) -> str:
    """A value as :func:`parse` takes it."""
    if key in _CALIBRATED and value == _CALIBRATED[wire.Config(key)]:
        return "calibrated"
    if key in _ENUMS and value in list(_ENUMS[key]):
        return _ENUMS[key](value).name.lower()
    if key in _SHARES:
        return f"{100 * value / _whole(key):.4g}%"
    if key == wire.Config.PACE_S:
        unit = next(u for u, s in _SECONDS.items() if value and value % s == 0) if value else "s"
        return f"{value // _SECONDS[unit]}{unit}" if value else "off"
    if key in (wire.Config.REDUNDANCY, wire.Config.BURST, wire.Config.DRIFT_LIMIT) and value == 0:
        return "off"
    if key == wire.Config.COMMIT_MS:
        return f"{value}ms"
    if key == wire.Config.EVENTS and value in _SWITCH.values():
        return "on" if value else "off"
    return str(value)


def parse_assignments(texts: Iterable[str]) -> dict[int, int]:
    """Read ``KEY=VALUE`` texts.

    Returns:
        Keys of ``wire.Config`` and their values on the wire.

    Raises:
        UsageError: A name is unknown or a value impossible.
    """
    settings: dict[int, int] = {}
    for text in texts:
        name, _, value = text.partition("=")
        names = {key.name.lower(): key for key in wire.Config}
        wanted = name.strip().lower().replace("-", "_")
        if wanted not in names:
            near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.0)
            raise UsageError(
                f"no setting is called {name}", f"did you mean {near[0]}? all: {', '.join(names)}"
            )
        settings[names[wanted]] = parse(names[wanted], value)
    return settings


def parse(key: wire.Config, text: str) -> int:
    """Read a value as people write it.

    Args:
        key: The setting.
        text: Names of choices, percentages (``30%``), durations (``200ms``, ``2s``), sizes
            (``64K``), ``on`` or ``off``, whole numbers.

    Raises:
        UsageError: It is none that the setting can have.
    """
    value = _parse(key, text.strip().lower())
    if value is None or not 0 <= value <= _MOST:
        raise UsageError(f"{key.name.lower()} cannot be {text!r}", f"it must be {_wanted(key)}")
    return value


def _parse(key: wire.Config, text: str) -> int | None:
    if text == "calibrated" and key in _CALIBRATED:
        return _CALIBRATED[key]
    if key in _ENUMS:
        names = {item.name.lower(): int(item) for item in _ENUMS[key]}
        return names.get(text.replace("-", "_"))
    if key in _SHARES:
        return _share(key, text)
    if key == wire.Config.PACE_S:
        return 0 if text == "off" else _duration(text)
    if (
        key in (wire.Config.REDUNDANCY, wire.Config.BURST, wire.Config.DRIFT_LIMIT)
        and text == "off"
    ):
        return 0
    if key == wire.Config.EVENTS:
        return _SWITCH.get(text)
    if key == wire.Config.COMMIT_MS:
        return _milliseconds(text)
    if key == wire.Config.COMMIT_BYTES:
        try:
            return units.parse_size(text)
        except ValueError:
            return None
    number = int(text) if text.isdigit() else None
    if key == wire.Config.CLASS_FLOOR and number is not None and number > wire.MAX_CLASS_FLOOR:
        return None
    return number


def _whole(key: int) -> int:
    """A share of 100 % on the wire."""
    return wire.PERCENTILE_ONE + (key == wire.Config.TARGET)


def _duration(text: str) -> int | None:
    for unit, seconds in _SECONDS.items():
        number = text.removesuffix(unit).strip()
        if text.endswith(unit) and number.isdigit():
            return int(number) * seconds
    return None


def _share(key: int, text: str) -> int | None:
    number = text.removesuffix("%").strip()
    try:
        share = float(number) if text.endswith("%") else -1.0
    except ValueError:
        return None
    if not 0 <= share <= 100 or (key == wire.Config.TARGET and share == 0):
        return None
    return round(share / 100 * _whole(key))


def _milliseconds(text: str) -> int | None:
    for unit, factor in (("ms", 1), ("s", 1000), ("", 1)):
        if text.endswith(unit) and text.removesuffix(unit).strip().isdigit():
            return int(text.removesuffix(unit).strip()) * factor
    return None


def _wanted(key: wire.Config) -> str:
    also = " or calibrated" if key in _CALIBRATED else ""
    if key in _ENUMS:
        return "one of " + ", ".join(item.name.lower() for item in _ENUMS[key]) + also
    if key in _SHARES:
        return f"a percentage from 0% to 100%{also}"
    if key == wire.Config.EVENTS:
        return "on or off"
    if key == wire.Config.COMMIT_MS:
        return "a duration such as 200ms or 2s"
    if key == wire.Config.COMMIT_BYTES:
        return "a size such as 4096 or 64K"
    if key == wire.Config.PACE_S:
        return "off or a duration such as 30d, 12h or 90min"
    if key == wire.Config.CLASS_FLOOR:
        return f"a whole number up to {wire.MAX_CLASS_FLOOR}"
    return "a whole number"
