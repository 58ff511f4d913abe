"""Cards: the log on them, the volumes around it, pulling from them without a board."""

from __future__ import annotations

from drip.card.layout import default_unit, format_image, log_superblocks
from drip.card.log import (
    SegmentReport,
    damage_of,
    inspect_image,
    log_paths,
    open_log,
    read_segments,
)

__all__ = [
    "SegmentReport",
    "damage_of",
    "default_unit",
    "format_image",
    "inspect_image",
    "log_paths",
    "log_superblocks",
    "open_log",
    "read_segments",
]
