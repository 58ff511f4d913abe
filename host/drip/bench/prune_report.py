"""Tables, verdicts and a plot from the rows of the pruning benchmark.

Differences are taken seed by seed and held against Student's t with one side of 95 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.prune_plan import DYNAMIC, STALE, STATIC
from drip.data.files import write_atomic
from drip.errors import DataError, MissingDependencyError, install_hint

__all__ = [
    "COLUMNS",
    "Line",
    "by_group",
    "into_document",
    "plot",
    "summarise",
    "table",
    "to_json",
    "verdicts",
]

MARGIN = 0.01
_CONFIDENCE = 0.95
_LEAST_SEEDS = 2
COLUMNS = (
    "method", "pruned", "epochs", "cost", "accuracy", "sd", "to full", "at least",
    "to shortened", "at least", "seconds",
)  # fmt: skip
# Columns that fit a terminal.
SHORT = (0, 1, 3, 4, 6, 7, 8, 9)
_BEGIN, _END = "<!-- drip bench prune: begin -->\n", "<!-- drip bench prune: end -->"

Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One method at one level on one data set and network, over seeds.

    Attributes:
        group: Data set, network, batch and epochs of the full training.
        method, prune, epochs: As in the cells.
        seeds: How many.
        cost: Share of the full training's cost, scoring included.
        accuracy, deviation: Mean and standard deviation over seeds.
        to_full, to_full_least: Difference to full training, and its lower 95 % bound.
        to_short, to_short_least: Difference to full training shortened to the same cost, likewise;
            None outside the costs that were measured.
        seconds: Wall-clock of one training without compiling.
        compile_seconds: Of the slowest compilation.
    """

    group: tuple[str, str, int, int]
    method: str
    prune: float
    epochs: int
    seeds: int
    cost: float
    accuracy: float
    deviation: float
    to_full: float
    to_full_least: float
    to_short: float | None
    to_short_least: float | None
    seconds: float
    compile_seconds: float

    @property
    def non_inferior(self) -> bool:
        """Whether it is at most a point worse than full training."""
        return self.to_full_least > -MARGIN

    @property
    def better_than_short(self) -> bool:
        """Whether it beats full training shortened to the same cost."""
        return self.to_short_least is not None and self.to_short_least > 0


def lower_bound(differences: Floats) -> float:
    """One-sided 95 % bound of a mean: ``mean - t(0.95, n - 1) s / sqrt(n)``.

    Args:
        differences: One per seed; a bound of fewer than two is minus infinity.
    """
    n = len(differences)
    if n < _LEAST_SEEDS:
        return -math.inf
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingDependencyError("bounds need SciPy", install_hint("train")) from error
    spread = float(differences.std(ddof=1)) / math.sqrt(n)
    return float(differences.mean()) - float(t.ppf(_CONFIDENCE, n - 1)) * spread


def at_cost(curve: Sequence[tuple[float, float]], cost: float) -> float | None:
    """Accuracy of shortened training at a cost, linear between measured points in log cost."""
    points = sorted(curve)
    if not points or not points[0][0] - 1e-9 <= cost <= points[-1][0] + 1e-9:
        return None
    costs, accuracies = zip(*points, strict=True)
    return float(np.interp(math.log(cost), np.log(costs), accuracies))


def summarise(rows: Iterable[Row]) -> list[Line]:
    """One line per method, level and length, most costly first within a group.

    Raises:
        DataError: A group has no full training.
    """
    groups: dict[tuple[str, str, int, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["data"], row["net"], row["batch"], row["full_epochs"]].append(row)
    lines = []
    for group, members in groups.items():
        full = {r["seed"]: r["accuracy"] for r in members if r["method"] == "full"}
        if not full:
            raise DataError(f"{group[0]}, {group[1]}: no full training", "measure it, too")
        curves: dict[int, list[tuple[float, float]]] = defaultdict(list)
        cells: dict[tuple[str, float, int], list[Row]] = defaultdict(list)
        for row in members:
            if row["method"] in ("full", "shortened"):
                curves[row["seed"]].append((row["cost"], row["accuracy"]))
            cells[row["method"], row["prune"], row["epochs"]].append(row)
        own = [_line(group, key, cell, full, curves) for key, cell in cells.items()]
        lines += sorted(own, key=lambda line: (-line.cost, line.method))
    return lines


def _line(
    group: tuple[str, str, int, int],
    key: tuple[str, float, int],
    cell: Sequence[Row],
    full: dict[int, float],
    curves: dict[int, list[tuple[float, float]]],
) -> Line:
    cell = sorted((row for row in cell if row["seed"] in full), key=lambda row: int(row["seed"]))
    accuracy = np.array([row["accuracy"] for row in cell])
    against_full = np.array([row["accuracy"] - full[row["seed"]] for row in cell])
    short = [at_cost(curves[row["seed"]], row["cost"]) for row in cell]
    known = [value for value in short if value is not None]
    against_short = accuracy - np.array(known) if len(known) == len(cell) else None
    if key[0] in ("full", "shortened"):
        against_short = None
    return Line(
        group,
        *key,
        seeds=len(cell),
        cost=float(np.mean([row["cost"] for row in cell])),
        accuracy=float(accuracy.mean()),
        deviation=float(accuracy.std(ddof=1)) if len(cell) >= _LEAST_SEEDS else 0.0,
        to_full=float(against_full.mean()),
        to_full_least=lower_bound(against_full),
        to_short=None if against_short is None else float(against_short.mean()),
        to_short_least=None if against_short is None else lower_bound(against_short),
        seconds=float(np.mean([row["seconds"] for row in cell])),
        compile_seconds=max(float(row["compile_seconds"]) for row in cell),
    )


def table(lines: Iterable[Line]) -> list[tuple[str, ...]]:
    """One row of text per line, in the order of :data:`COLUMNS`; differences in points."""

    def points(value: float | None) -> str:
        return "" if value is None or math.isinf(value) else f"{100 * value:+.2f}"

    return [
        (
            line.method,
            f"{line.prune:.0%}" if line.prune else "",
            str(line.epochs),
            f"{line.cost:.0%}",
            f"{100 * line.accuracy:.2f}",
            f"{100 * line.deviation:.2f}",
            points(line.to_full) if line.method != "full" else "",
            points(line.to_full_least) if line.method != "full" else "",
            points(line.to_short),
            points(line.to_short_least),
            f"{line.seconds:.1f}",
        )
        for line in lines
    ]


def verdicts(lines: Sequence[Line]) -> list[str]:
    """What the rows show and do not show, group by group."""
    said = []
    for group in dict.fromkeys(line.group for line in lines):
        own = [line for line in lines if line.group == group]
        name = _title(group)
        half = [
            line
            for line in own
            if line.method in (*DYNAMIC, *STALE, "infobatch") and line.cost <= 0.505
        ]
        fine = [line for line in half if line.non_inferior]
        both = [line for line in fine if line.better_than_short]
        said.append(
            f"{name}: non-inferior to full training at half the cost:"
            f" {_names(fine)}; of these better than shortened: {_names(both)}."
        )
        better = [line for line in own if line.better_than_short]
        said.append(
            f"{name}: better than full training shortened to the same cost: {_names(better)}."
        )
        uniform = [line for line in own if line.method == "uniform" and line.prune == 0.7]
        static = [line for line in own if line.method in STATIC and line.prune == 0.7]
        if uniform and static:
            best = max(static, key=lambda line: line.accuracy)
            gap = 100 * (uniform[0].accuracy - best.accuracy)
            said.append(
                f"{name}: at 70 % pruned, uniform dynamic pruning is {gap:+.2f} points from the"
                f" best static choice ({best.method})."
            )
    return said


def _names(lines: Sequence[Line]) -> str:
    return (
        ", ".join(
            f"{line.method}{f' {line.prune:.0%}' if line.prune else ''} at {line.cost:.0%}"
            for line in lines
        )
        or "none"
    )


def _title(group: tuple[str, str, int, int]) -> str:
    return f"{group[0]}, {group[1]}, batch {group[2]}, {group[3]} epochs"


def by_group(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Lines of each data set and network under its title."""
    groups = dict.fromkeys(line.group for line in lines)
    return [(_title(g), [line for line in lines if line.group == g]) for g in groups]


def to_json(lines: Sequence[Line]) -> dict[str, Any]:
    """Plain values for ``--json``; a bound of a single seed is null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and math.isinf(value) else value

    return {
        "margin": MARGIN,
        "lines": [
            {key: plain(value) for key, value in dataclasses.asdict(line).items()} for line in lines
        ],
        "verdicts": verdicts(lines),
    }


def markdown(lines: Sequence[Line]) -> str:
    """All groups as Markdown."""
    parts = []
    for group in dict.fromkeys(line.group for line in lines):
        own = [line for line in lines if line.group == group]
        seeds = sorted({line.seeds for line in own})
        parts.append(f"**{_title(group)}** ({'-'.join(str(s) for s in seeds)} seeds)\n")
        head = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
        parts.append("\n".join(head + ["| " + " | ".join(row) + " |" for row in table(own)]) + "\n")
    parts += [f"- {line}" for line in verdicts(lines)]
    return "\n".join(parts) + "\n"


def into_document(lines: Sequence[Line], document: str) -> str:
    """A document with its tables brought up to date.

    Raises:
        DataError: It has no place for them.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise DataError("the document has no place for the table", f"add {_BEGIN + _END}")
    return before + begin + markdown(lines) + end + after


_MARKS = {
    "uniform": "o", "eps-greedy": "^", "ucb": "v", "rs2": "s", "infobatch": "D",
    "eps-greedy-stale": "2", "ucb-stale": "1", "random": "x", "el2n": "P", "grand": "*",
    "forget": "h",
}  # fmt: skip


def plot(lines: Sequence[Line], path: Path) -> None:
    """Accuracy against cost, one panel per group, as an image.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError("the plot needs Matplotlib", install_hint("train")) from error
    groups = list(dict.fromkeys(line.group for line in lines))
    columns = min(2, len(groups))
    figure, axes = plt.subplots(
        -(-len(groups) // columns),
        columns,
        squeeze=False,
        figsize=(6.4 * columns, 4.6 * -(-len(groups) // columns)),
    )
    for axis in axes.flat[len(groups) :]:
        axis.set_visible(False)
    for axis, group in zip(axes.flat, groups, strict=False):
        own = [line for line in lines if line.group == group]
        base = sorted((x for x in own if x.method in ("full", "shortened")), key=lambda x: x.cost)
        axis.errorbar(
            [x.cost for x in base], [100 * x.accuracy for x in base],
            [100 * x.deviation for x in base], color="black", capsize=2, label="full, shortened",
        )  # fmt: skip
        floor = min(100 * x.accuracy for x in base) - 6
        for method, mark in _MARKS.items():
            points = [x for x in own if x.method == method and 100 * x.accuracy > floor]
            if points:
                axis.plot(
                    [x.cost for x in points], [100 * x.accuracy for x in points], mark, label=method
                )
        axis.set(title=_title(group), xlabel="cost, share of full training", ylabel="accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    write_atomic(path, lambda stream: figure.savefig(stream, format="png", dpi=100))
    plt.close(figure)
