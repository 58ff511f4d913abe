"""Accepting the model's own guess where it has proved to be right.

What boards keep is what their model finds hard, so its precision elsewhere says little here. It is
measured on kept frames that somebody has labelled, as a function of the margin between the two
largest logits, and a guess is accepted only where a lower confidence bound of that precision
reaches what the user asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drip.errors import DataError
from drip.store import RecordKey, Store

__all__ = ["Proposal", "accept", "propose", "wilson_lower"]

_STEPS = 10
"""Margins that are tried: few, because every try is a chance to be lucky."""


@dataclass(frozen=True)
class Proposal:
    """What would be accepted, and on what grounds.

    Attributes:
        margin: Least difference of the two largest logits, in steps of the model's output.
        judged: Labelled frames of that margin or more.
        right: Those of them that the model had right.
        bound: One-sided 95 % lower bound of the precision (Wilson).
        labels: What the unlabelled frames of that margin would be called.
        left: Unlabelled frames that stay so.
    """

    margin: int
    judged: int
    right: int
    bound: float
    labels: dict[RecordKey, str]
    left: int

    def per_class(self) -> dict[str, int]:
        """How many frames each class would get."""
        return dict(sorted(Counter(self.labels.values()).items()))


def propose(
    store: Store, classes: Sequence[str], precision: float, model_id: str | None = None
) -> Proposal:
    """Find which of the model's guesses are as precise as asked for.

    Args:
        store: The store; its labelled frames are the judges. A rejected frame counts as wrong.
        classes: Class names; the model's class ``n`` is the n-th.
        precision: Least share of right labels among those accepted, 0 to 1.
        model_id: Only guesses of this model (hex, from its start); None: of the newest model.

    Raises:
        DataError: No such precision can be shown with the labels there are.
        StoreError: The store is empty or damaged.
    """
    if not 0.5 <= precision < 1.0:
        raise DataError(f"a precision of {precision} cannot be shown", "from 0.5 to below 1")
    table = store.query(
        "SELECT log_uuid, seq, class_1, CAST(logit_1 AS INTEGER) - logit_2 AS margin, label,"
        " coalesce(starts_with(label_source, 'model:'), false) AS own, model_id"
        " FROM frames ORDER BY ingested_at, log_uuid, seq"
    )
    rows = [row for row in table.to_pylist() if row["class_1"] < len(classes)]
    if model_id is None and rows:
        model_id = rows[-1]["model_id"]
    rows = [row for row in rows if row["model_id"].startswith(model_id or "")]
    # No model is judged by labels that a model gave.
    judged = [row for row in rows if row["label"] is not None and not row["own"]]
    margins = np.array([row["margin"] for row in judged], np.int64)
    right = np.array([classes[row["class_1"]] == row["label"] for row in judged], np.bool_)
    found = _threshold(margins, right, precision)
    if found is None:
        raise DataError(
            f"{len(judged)} labelled frames of this model do not show a precision of {precision:g}",
            "label more frames, or ask for less",
        )
    open_rows = [row for row in rows if row["label"] is None]
    labels = {
        RecordKey(row["log_uuid"], row["seq"]): classes[row["class_1"]]
        for row in open_rows
        if row["margin"] >= found
    }
    above = margins >= found
    count, hits = int(above.sum()), int(right[above].sum())
    bound = wilson_lower(hits, count)
    return Proposal(found, count, hits, bound, labels, len(open_rows) - len(labels))


def accept(store: Store, proposal: Proposal) -> int:
    """Write the labels of a proposal, with their confidence; returns how many are new."""
    confidence = dict.fromkeys(proposal.labels, proposal.bound)
    return store.append_labels(
        proposal.labels, f"model:margin>={proposal.margin}", confidence=confidence
    )


def wilson_lower(right: int, count: int, z: float = 1.6448536269514722) -> float:
    """Lower end of Wilson's score interval for a share.

    Args:
        right: Successes.
        count: Tries.
        z: Normal quantile; the default is one-sided 95 %.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.
    """
    if count == 0:
        return 0.0
    p, z2 = right / count, z * z
    centre = p + z2 / (2 * count)
    spread = z * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + z2 / count))


def _threshold(
    margins: NDArray[np.int64], right: NDArray[np.bool_], precision: float
) -> int | None:
    """The smallest tried margin whose bound reaches ``precision``."""
    if not len(margins):
        return None
    tried = np.unique(np.sort(margins)[np.arange(_STEPS) * len(margins) // _STEPS])
    for margin in tried.tolist():
        above = margins >= margin
        if wilson_lower(int(right[above].sum()), int(above.sum())) >= precision:
            return int(margin)
    return None
