"""Tables and plots of the selection benchmark, from its result rows."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.select import Place
from drip.bench.select_cells import unpack_hits
from drip.bench.select_data import RECIPES, load_pool, make_view
from drip.bench.select_plan import Plan
from drip.bench.select_stats import Difference, holm, paired, verdict
from drip.data.files import write_atomic
from drip.errors import DataError, MissingDependencyError, install_hint

Row = dict[str, Any]
_Case = tuple[str, str, str, float, str]


def cases(rows: Iterable[Row]) -> dict[_Case, dict[int, Row]]:
    """Rows by (data set, protocol, policy, share to keep, steps), then by seed."""
    found: dict[_Case, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        case = (row["dataset"], row["protocol"], row["policy"], row["keep"], row["steps_mode"])
        found[case][row["seed"]] = row
    return dict(found)


def compare(
    a: dict[int, Row],
    b: dict[int, Row],
    *,
    margin: float,
    groups: dict[int, NDArray[np.int64] | None] | None = None,
) -> Difference:
    """Paired difference over the seeds that both have.

    Raises:
        DataError: They have no seed in common, or were measured on other data.
    """
    seeds = sorted(set(a) & set(b))
    if not seeds:
        raise DataError("nothing to compare: no seed in common", "run the missing cells")
    if any(a[s]["data_hash"] != b[s]["data_hash"] for s in seeds):
        raise DataError("rows were measured on different data", "run them again")
    return paired(
        [unpack_hits(a[s]) for s in seeds],
        [unpack_hits(b[s]) for s in seeds],
        margin=margin,
        groups=None if groups is None else [groups.get(s) for s in seeds],
        shared=all(a[s]["part"] == "test" for s in seeds),
    )


def groups_of(
    rows: Sequence[Row], data: Path | None
) -> dict[str, dict[int, NDArray[np.int64] | None]]:
    """Group of every measured frame, per data set and seed; empty without the data."""
    found: dict[str, dict[int, NDArray[np.int64] | None]] = {}
    if data is None:
        return found
    for dataset in sorted({r["dataset"] for r in rows}):
        if not RECIPES[dataset].group:
            continue
        pool = load_pool(dataset, data)
        own = [r for r in rows if r["dataset"] == dataset]
        found[dataset] = {}
        for seed in sorted({r["seed"] for r in own}):
            view = make_view(pool, seed, "iid")
            part = view.validation if own[0]["part"] == "validation" else view.test
            found[dataset][seed] = part.group
    return found


def summarise(
    rows: Sequence[Row],
    *,
    against: Sequence[str] = ("full", "random"),
    groups: dict[str, dict[int, NDArray[np.int64] | None]] | None = None,
) -> list[dict[str, Any]]:
    """One entry per case: means over seeds, and paired differences to the references.

    Non-inferiority to ``full`` is corrected by Holm over the data sets of a protocol, policy, share
    and step count. ``random`` means the random draw matched to the case's own policy.

    Args:
        rows: Result rows of one part.
        against: ``"full"``, ``"random"`` or names of policies.
        groups: From :func:`groups_of`.
    """
    by_case = cases(rows)
    entries = []
    families: dict[tuple[str, str, float, str], dict[str, float]] = defaultdict(dict)
    for (dataset, protocol, policy, keep, steps), own in sorted(by_case.items()):
        margin = RECIPES[dataset].margin
        entry: dict[str, Any] = {
            "dataset": dataset, "protocol": protocol, "policy": policy, "keep": keep,
            "steps": steps, "seeds": len(own), "margin": margin,
        }  # fmt: skip
        for name in ("retention", "accuracy", "balanced_accuracy", "bytes", "epochs"):
            entry[name] = float(np.mean([r[name] for r in own.values()]))
        if all("int8_accuracy" in r for r in own.values()):
            entry["int8_accuracy"] = float(np.mean([r["int8_accuracy"] for r in own.values()]))
        entry["accuracy_sd"] = float(np.std([r["accuracy"] for r in own.values()]))
        for name in ("duplicate_share", "originals_kept", "originals"):
            entry[name] = float(np.mean([r[name] for r in own.values()]))
        entry["least_kept_of_a_class"] = min(min(r["kept_per_class"]) for r in own.values())
        for reference in against:
            other = _reference(by_case, (dataset, protocol, policy, keep, steps), reference)
            if other is None or other is own:
                continue
            known = None if groups is None else groups.get(dataset)
            difference = compare(own, other, margin=margin, groups=known)
            entry[f"vs_{reference}"] = difference.__dict__
            if reference == "full":
                families[protocol, policy, keep, steps][dataset] = difference.p_inferior
        entries.append(entry)
    for entry in entries:
        if "vs_full" in entry:
            family = families[entry["protocol"], entry["policy"], entry["keep"], entry["steps"]]
            p = holm(family)[entry["dataset"]]
            entry["p_holm"] = p
            entry["verdict"] = verdict(Difference(**entry["vs_full"]), p, entry["margin"])
    return entries


def _reference(
    by_case: dict[_Case, dict[int, Row]], case: _Case, reference: str
) -> dict[int, Row] | None:
    dataset, protocol, policy, keep, steps = case
    if reference == "full":
        return by_case.get((dataset, protocol, "full", 1.0, "equal"))
    for name in (f"{reference}@{policy}", reference):
        found = by_case.get((dataset, protocol, name, keep, steps))
        if found is not None and (reference != "random" or _as_many(by_case[case], found)):
            return found
    return None


def _as_many(one: dict[int, Row], other: dict[int, Row]) -> bool:
    """Whether two cases kept as many frames: a difference to random means nothing otherwise."""
    shares = [np.mean([r["retention"] for r in rows.values()]) for rows in (one, other)]
    return bool(abs(shares[0] - shares[1]) <= SAME_SHARE)


SAME_SHARE = 0.01
"""Random is drawn for one policy; others stand beside it when they kept so nearly as many."""
# What is wanted of an entry, for people; "int8" only where it was measured.
_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "data set": lambda e: str(e["dataset"]),
    "protocol": lambda e: str(e["protocol"]),
    "policy": lambda e: str(e["policy"]),
    "keep": lambda e: f"{e['keep']:.0%}",
    "steps": lambda e: str(e["steps"]),
    "kept": lambda e: f"{e['retention']:.1%}",
    "accuracy": lambda e: f"{e['accuracy']:.2%}",
    "int8": lambda e: f"{e['int8_accuracy']:.2%}" if "int8_accuracy" in e else "",
    "balanced": lambda e: f"{e['balanced_accuracy']:.2%}",
    "vs full": lambda e: _points(e.get("vs_full")),
    "verdict": lambda e: str(e.get("verdict", "")),
    "vs random": lambda e: _points(e.get("vs_random")),
}
SHORT = ("data set", "protocol", "policy", "kept", "accuracy", "int8", "vs random")
"""Columns that fit a terminal."""


def columns(entries: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Heads of :func:`table`."""
    int8 = any("int8_accuracy" in e for e in entries)
    return tuple(name for name in _COLUMNS if int8 or name != "int8")


def table(entries: Sequence[dict[str, Any]], names: Sequence[str] | None = None) -> list[list[str]]:
    """Lines of a table; differences in points with 90 % two-sided bounds."""
    wanted = columns(entries) if names is None else names
    return [[_COLUMNS[name](entry) for name in wanted] for entry in entries]


def _points(difference: dict[str, float] | None) -> str:
    if difference is None:
        return ""
    mean, low, high = (100 * difference[k] for k in ("mean", "low", "high"))
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def markdown(entries: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    names = columns(entries)
    left = ("data set", "protocol", "policy", "steps", "verdict")
    rule = "|".join("---" if name in left else "---:" for name in names)
    lines = ["| " + " | ".join(names) + " |", f"|{rule}|"]
    lines += ["| " + " | ".join(row) + " |" for row in table(entries)]
    return "\n".join(lines) + "\n"


def compact(entries: Sequence[dict[str, Any]]) -> str:
    """A short table: a line per data set, protocol and share; a column per policy.

    A cell holds accuracy, the difference to full data in points, and whether that is non-inferior.
    """
    shown = [e for e in entries if 0 < e["keep"] < 1]
    policies = list(dict.fromkeys(e["policy"] for e in shown))
    policies.sort(key=lambda p: (p != "default", p))
    lines = [
        "| data set | protocol | keep | full | " + " | ".join(policies) + " |",
        "|---|---|---:|---:|" + "---:|" * len(policies),
    ]
    for case in dict.fromkeys((e["protocol"], -e["keep"], e["dataset"]) for e in shown):
        protocol, keep, dataset = case
        own = {e["policy"]: e for e in shown if (e["protocol"], -e["keep"], e["dataset"]) == case}
        full = next(
            (
                f"{e['accuracy']:.2%}"
                for e in entries
                if e["policy"] == "full" and (e["protocol"], e["dataset"]) == (protocol, dataset)
            ),
            "",
        )
        cells = [_cell(own[p]) if p in own else "" for p in policies]
        lines.append(
            f"| {dataset} | {protocol} | {-keep:.0%} | {full} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


_MARKS = {"non-inferior": " =", "worse": " <", "inconclusive": " ?"}


def _cell(entry: dict[str, Any]) -> str:
    if "vs_full" not in entry:
        return f"{entry['accuracy']:.2%}"
    points = 100 * entry["vs_full"]["mean"]
    return f"{entry['accuracy']:.2%} ({points:+.2f}{_MARKS[entry['verdict']]})"


def into_document(name: str, entries: Sequence[dict[str, Any]], document: str) -> str:
    """A document with the short table of a run brought up to date.

    Raises:
        DataError: It has no place for the table.
    """
    begin, end = f"<!-- select:{name} -->\n", f"<!-- /select:{name} -->"
    before, found, rest = document.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise DataError("the document has no place for the table", f"add {begin + end}")
    return before + begin + compact(entries) + end + after


def write(plan: Plan, rows: Sequence[Row], place: Place) -> list[dict[str, Any]]:
    """Summarise a run and write ``NAME.json``, ``NAME.md`` and, if possible, ``NAME.png``.

    Returns:
        The entries of :func:`summarise`; empty when nothing is trained yet.
    """
    if not rows:
        return []
    groups = groups_of(rows, place.data) if place.data.is_dir() else None
    entries = summarise(rows, groups=groups)
    for name, text in (
        ("json", json.dumps(entries, indent=1) + "\n"),
        ("md", f"# {plan.name}, measured on {plan.part}\n\n{markdown(entries)}"),
    ):
        write_atomic(place.out / f"{plan.name}.{name}", functools.partial(_put, text=text))
    try:
        plot(entries, place.out / f"{plan.name}.png")
    except (DataError, MissingDependencyError) as error:
        place.say(f"no plot: {error.message}")
    return entries


def _put(file: Any, *, text: str) -> None:
    file.write(text.encode())


def plot(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Difference to full data over the share kept, one panel per data set and protocol.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("plots need matplotlib", install_hint("train")) from error
    shown = [e for e in entries if "vs_full" in e and 0 < e["keep"] < 1 and e["steps"] == "equal"]
    panels = sorted({(e["protocol"], e["dataset"]) for e in shown})
    if not panels:
        raise DataError("there is nothing to plot", "train cells with `full` as a policy first")
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for n, (protocol, dataset) in enumerate(panels):
        axis = axes[n]
        own = [e for e in shown if (e["protocol"], e["dataset"]) == (protocol, dataset)]
        for policy in sorted({e["policy"] for e in own}):
            line = sorted((e for e in own if e["policy"] == policy), key=lambda e: e["retention"])
            x = [100 * e["retention"] for e in line]
            y = [100 * e["vs_full"]["mean"] for e in line]
            low = [v - 100 * e["vs_full"]["low"] for v, e in zip(y, line, strict=True)]
            high = [100 * e["vs_full"]["high"] - v for v, e in zip(y, line, strict=True)]
            axis.errorbar(x, y, [low, high], label=policy, marker="o", markersize=3, capsize=2)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.axhline(-100 * RECIPES[dataset].margin, color="black", linewidth=0.6, linestyle=":")
        axis.set_title(f"{dataset}, {protocol}", fontsize=9)
        axis.set_xlabel("frames kept, %", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("points to full data", fontsize=8)
    axes[0].legend(fontsize=6)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110)
