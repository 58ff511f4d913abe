"""Turn measurements of the engine into tables, and hold them against committed ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from drip.bench.engine import EngineCost
from drip.errors import DataError, ModelError, VerifyError

COLUMNS: tuple[str, ...] = (
    "model", "kernels", "MACs", "instructions", "least", "per MAC", "cycles", "scoring",
    "+ redundancy", "text", "linked", "data", "least", "arena", "least", "stack",
)  # fmt: skip
# Columns of two tables that fit a terminal.
SPEED, SIZE = (0, 1, 2, 3, 5, 6, 7, 8), (0, 1, *range(9, 16))
# Compilers of one major version differ a little; kernels that get slower differ more.
TOLERANCE = 0.02
# Grad-CAM, score and decision may take so much of an inference.
SCORING_MOST = 0.01


def rows(costs: Iterable[EngineCost]) -> list[tuple[str, ...]]:
    """One row of text per measurement, in the order of ``COLUMNS``."""
    return [
        (
            cost.model,
            cost.variant,
            f"{cost.macs:,}",
            f"{cost.instructions:,.0f}",
            f"{cost.least_instructions:,.0f}",
            f"{cost.instructions_per_mac:.2f}",
            f"{cost.cycles:,.0f}",
            f"{cost.scoring_share:.2%}",
            f"{cost.selecting_share:.2%}",
            f"{cost.text_bytes:,}",
            f"{cost.linked_text_bytes:,}",
            f"{cost.constant_bytes:,}",
            f"{cost.least_constant_bytes:,}",
            f"{cost.arena_bytes:,}",
            f"{cost.least_arena_bytes:,}",
            f"{cost.stack_bytes:,}",
        )
        for cost in costs
    ]


def operator_rows(cost: EngineCost) -> list[tuple[str, ...]]:
    """One row of text per operator: index, kind, output, kernel, MACs, instructions, per MAC."""
    return [
        (
            str(o.index),
            o.kind,
            "x".join(str(n) for n in o.shape),
            "x".join(str(n) for n in o.kernel) if o.kernel[0] else "",
            f"{o.macs:,}",
            f"{o.instructions:,.0f}",
            f"{o.instructions / o.macs:.2f}" if o.macs else "",
        )
        for o in cost.operators
    ]


def markdown(costs: Sequence[EngineCost]) -> str:
    """The table as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(costs)]
    return "\n".join(lines) + "\n"


_BEGIN = "<!-- drip bench engine: begin -->\n"
_END = "<!-- drip bench engine: end -->\n"


def into_document(costs: Sequence[EngineCost], document: str) -> str:
    """A document with its table of the engine brought up to date.

    Args:
        costs: Measurements.
        document: Text that has the two comments between which the table lies.

    Raises:
        DataError: It has not.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise DataError("the document has no place for the table", f"add {_BEGIN + _END}")
    return before + begin + markdown(costs) + end + after


def baseline(costs: Iterable[EngineCost]) -> dict[str, int]:
    """What a later run is held against: instructions by ``model/kernels``."""
    return {f"{cost.model}/{cost.variant}": round(cost.instructions) for cost in costs}


def check(costs: Iterable[EngineCost], path: Path) -> list[str]:
    """Hold measurements against committed ones.

    Args:
        costs: Measurements; the file must have every one.
        path: JSON object as ``baseline`` makes it.

    Returns:
        A line for every measurement that was compared.

    Raises:
        VerifyError: One needs more than ``TOLERANCE`` more instructions, is not in the file, or
            spends more than ``SCORING_MOST`` on scoring.
        DataError: The file is unreadable.
    """
    try:
        committed: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise DataError(f"cannot read {path}: {reason}", "pass a file of --baseline") from error
    costs = list(costs)
    lines: list[str] = []
    worse = [
        f"{cost.model}/{cost.variant} spends {cost.scoring_share:.2%} on scoring"
        for cost in costs
        if cost.scoring_share > SCORING_MOST
    ]
    for name, now in baseline(costs).items():
        before = committed.get(name)
        if not isinstance(before, int):
            worse.append(f"{name} is not in it")
            continue
        change = now / before - 1
        lines.append(f"{name}: {now:,} instructions, {change:+.2%}")
        if change > TOLERANCE:
            worse.append(f"{name} {change:+.1%}")
    if worse:
        raise VerifyError(
            f"not what {path} allows: {', '.join(worse)}",
            f"make it faster again, or commit new figures with --baseline {path}",
        )
    return lines


def load_models(paths: Sequence[Path]) -> dict[str, bytes]:
    """Blobs by name from ``.drip`` and ``.tflite`` files and folders of ``NAME/model.tflite``.

    Args:
        paths: Files and folders.

    Raises:
        DataError: There is no model.
        ModelError: One cannot be compiled.
    """
    files: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files |= {f.parent.name: f for f in sorted(path.glob("*/model.tflite"))}
        elif path.is_file():
            files[path.stem if path.stem != "model" else path.parent.name] = path
        else:
            raise DataError(f"no model at {path}", "python models/make.py --all -o build/nets")
    if not files:
        raise DataError(
            f"no models in {paths[0]}" if paths else "no models",
            "python models/make.py --all -o build/nets",
        )
    return {name: _blob(path) for name, path in files.items()}


def _blob(path: Path) -> bytes:
    from drip.compile import compile_model

    content = path.read_bytes()
    if path.suffix == ".drip":
        return content
    try:
        return compile_model(content)
    except ModelError:
        # Not every model has a Grad-CAM head.
        return compile_model(content, cam=False)
