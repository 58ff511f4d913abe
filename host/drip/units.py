"""Numbers as people read and write them: sizes, durations, percentages, sparklines."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["duration", "parse_size", "percent", "size", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_STEPS = {"": 0, "K": 10, "M": 20, "G": 30}


def size(count: float) -> str:
    """Bytes in binary units: ``1536`` is ``1.5 KiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """The two largest units: ``3 h 12 min``; below a minute ``4.2 s``, ``12 ms`` or ``30 us``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def percent(part: float, whole: float = 1.0) -> str:
    """A share: ``12.5 %``; a dash when there is nothing to share."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def parse_size(text: str) -> int:
    """Read bytes such as ``4096``, ``512K``, ``64M`` or ``8G``; the units are powers of 1024.

    Raises:
        ValueError: It is something else.
    """
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdigit() or unit not in _STEPS:
        raise ValueError(f"{text} is not a size such as 512K, 64M or 8G")
    return int(number) << _STEPS[unit]


def sparkline(counts: Sequence[int]) -> str:
    """One bar per count, the largest at full height; nothing at all is a space."""
    most = max(counts, default=0)
    return "".join(
        _BARS[min(len(_BARS) - 1, count * len(_BARS) // (most + 1))] if count else " "
        for count in counts
    )
