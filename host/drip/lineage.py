"""Model cards beside models, and the line of models that a model comes from.

Needs neither TensorFlow nor the compiled core.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drip.compile.blob import unpack_blob
from drip.data.files import write_atomic
from drip.errors import DripError, ModelError
from drip.model_file import read_model

__all__ = ["Ancestor", "card_path", "history", "read_card", "summary", "write_card"]


@dataclass(frozen=True)
class Ancestor:
    """One model of a line, newest first.

    Attributes:
        model_id: Hex.
        path: File it was found in; None: only its id is known.
        parent: Id of the model that it replaced; empty: the first.
        data_digest: Of what it was trained on; empty: not recorded.
        seed: Of its training; None: not recorded.
        card: Its model card; None: there is none.
    """

    model_id: str
    path: Path | None
    parent: str
    data_digest: str
    seed: int | None
    card: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "model_id": self.model_id,
            "file": None if self.path is None else str(self.path),
            "parent": self.parent,
            "data_digest": self.data_digest,
            "seed": self.seed,
            "card": self.card,
        }


def card_path(model: Path) -> Path:
    """Where the card of a model file is."""
    return model.with_suffix(".card.json")


def write_card(model: Path, card: dict[str, Any]) -> None:
    """Write the card of a model file."""
    text = json.dumps(card, indent=2, sort_keys=True) + "\n"
    write_atomic(card_path(model), lambda stream: stream.write(text.encode()))


def read_card(model: Path, model_id: str) -> dict[str, Any] | None:
    """The card of a model file; None where there is none, or it is that of another model.

    Args:
        model: The ``.drip``.
        model_id: Hex id of what is in it.

    Raises:
        ModelError: The card is damaged.
    """
    path = card_path(model)
    if not path.exists():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ModelError(f"cannot read {path}: {reason}", "remove it, or retrain") from error
    # A model that was calibrated anew is another one, and what the card says of it may not hold.
    return card if isinstance(card, dict) and card.get("model_id") == model_id else None


def summary(card: dict[str, Any]) -> list[str]:
    """What somebody should know before this model replaces another, in a few lines."""
    measured, data, training = card["measured"], card["data"], card["training"]
    new, old = measured["candidate"], measured["deployed"]
    worst = min(
        ((new["per_class"][c] - old["per_class"].get(c, 0.0), c) for c in new["per_class"]),
        default=(0.0, ""),
    )
    loss = f"class {worst[1]} lost most, {-100 * worst[0]:.1f} points"
    lines = [
        f"accuracy {100 * new['accuracy']:.1f} % ({100 * measured['gain']:+.1f} points),"
        f" balanced {100 * new['balanced_accuracy']:.1f} %"
        f" ({100 * measured['balanced_gain']:+.1f}) on {new['n']} held-out frames",
        f"{loss if worst[0] < 0 else 'no class is worse'};"
        f" calibration error {new['calibration_error']:.3f} (was {old['calibration_error']:.3f})",
        f"int8 says what float says on {100 * measured['agreement']:.1f} %; {card['bit_exact']}",
        f"trained on {data['frames']} frames, {data['kept']} of them kept by boards;"
        f" {training['recipe']['pruning']}, seed {training['seed']}",
    ]
    if card.get("forced"):
        lines.append("FORCED: worse than the model it replaces by more than the margin")
    return lines


def history(model: Path, folders: Iterable[Path] = ()) -> list[Ancestor]:
    """A model and those it comes from, newest first.

    Args:
        model: A ``.drip``.
        folders: Where else than beside it older models may be.

    Raises:
        ModelError: The model cannot be read.
    """
    known = _models_in([model.parent, *folders])
    line = [_ancestor(model)]
    while line[-1].parent and line[-1].parent not in {a.model_id for a in line}:
        parent = line[-1].parent
        if parent in known:
            line.append(_ancestor(known[parent]))
        else:
            line.append(Ancestor(parent, None, "", "", None, None))
    return line


def _ancestor(path: Path) -> Ancestor:
    blob = unpack_blob(read_model(path, ".drip"))
    meta, model_id = blob.meta(), blob.header.model_id.hex()
    origin = meta.get("provenance", {})
    return Ancestor(
        model_id,
        path,
        str(meta.get("parent", "")),
        str(origin.get("data_digest", "")),
        origin.get("seed"),
        read_card(path, model_id),
    )


def _models_in(folders: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.drip")):
            try:
                found.setdefault(unpack_blob(path.read_bytes()).header.model_id.hex(), path)
            except (DripError, OSError):
                continue
    return found
