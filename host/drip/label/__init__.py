"""Labels: who says what a pulled frame shows, and writing it into the store."""

from __future__ import annotations

from drip.label.sources import (
    CsvLabels,
    LabelReport,
    LabelSource,
    TruthLabels,
    apply_labels,
    label_source,
)

__all__ = [
    "CsvLabels",
    "LabelReport",
    "LabelSource",
    "TruthLabels",
    "apply_labels",
    "label_source",
]
