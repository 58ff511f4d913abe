"""Cells of the selection benchmark: from a selection to a job, and from its result to a row."""

from __future__ import annotations

import base64
import functools
import os
import platform
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drip import __version__
from drip.bench.select_data import Pool, View, make_view
from drip.bench.select_decide import choose, load_decisions, make_blob
from drip.bench.select_jax import Job, Trained
from drip.bench.select_plan import Cell, Plan
from drip.errors import DataError
from drip.retrain import evaluate, evaluate_int8

if TYPE_CHECKING:
    from drip.bench.select import Place


def by_view(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that share a seed and a protocol, together."""
    groups: dict[tuple[int, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.seed, cell.protocol), []).append(cell)
    return list(groups.values())


def prepare_cells(
    plan: Plan, place: Place, pool: Pool, cells: Sequence[Cell]
) -> tuple[NDArray[Any], list[Job], dict[str, dict[str, Any]]]:
    """Frames, jobs and the facts of their rows, for cells of one view."""
    first = cells[0]
    view = make_view(pool, first.seed, first.protocol)
    part = view.validation if plan.part == "validation" else view.test
    frames = np.concatenate([view.fit.x, view.stream.x, part.x])
    seen = len(view.fit) + len(view.stream)
    jobs, facts = [], {}
    cache: dict[float, Any] = {}
    for cell in cells:
        policy = plan.policy(cell.policy)
        kept = np.full(len(view.stream), policy.kind == "full")
        if policy.kind not in ("full", "seed"):
            if cell.keep not in cache:
                path = place.decisions(plan, cell.dataset, cell.seed, cell.protocol, cell.keep)
                if not path.exists():
                    raise DataError(f"no decisions {path.name}", "run the phase decide")
                cache[cell.keep] = load_decisions(path)
            kept = choose(policy, plan, cache[cell.keep], view, cell.keep, cell.seed)
        at = np.flatnonzero(kept)
        train = np.concatenate([np.arange(len(view.fit)), len(view.fit) + at])
        labels = np.concatenate([view.fit.y, view.labels[at]])
        steps = max(1, plan.epochs * (seen if cell.steps == "equal" else len(train)) // plan.batch)
        if policy.kind == "seed":
            steps = plan.fit_epochs * len(train) // plan.batch
        evaluated = seen + np.arange(len(part))
        jobs.append(Job(cell.key, train, labels, evaluated, steps, cell.seed))
        facts[cell.key] = _facts(plan, cell, pool, view, kept, steps, len(train))
    return frames, jobs, facts


def _facts(
    plan: Plan,
    cell: Cell,
    pool: Pool,
    view: View,
    kept: NDArray[np.bool_],
    steps: int,
    trained_on: int,
) -> dict[str, Any]:
    """What is known of a cell before it is trained."""
    frame_bytes = int(np.prod(view.stream.frame_shape)) * view.stream.x.dtype.itemsize
    classes = len(view.stream.classes)
    originals = len(np.unique(view.item))
    return {
        "key": cell.key,
        "dataset": cell.dataset,
        "seed": cell.seed,
        "protocol": cell.protocol,
        "policy": cell.policy,
        "keep": cell.keep,
        "steps_mode": cell.steps,
        "part": cell.part,
        **provenance(pool),
        "config_hash": plan.config_hash(cell),
        "stream": len(kept),
        "kept": int(kept.sum()),
        "retention": float(kept.mean()),
        "kept_per_class": np.bincount(view.stream.y[kept], minlength=classes).tolist(),
        "stream_per_class": np.bincount(view.stream.y, minlength=classes).tolist(),
        "bytes": int(kept.sum()) * frame_bytes,
        "duplicate_share": view.duplicate_share,
        "originals": originals,
        "originals_kept": len(np.unique(view.item[kept])),
        "steps": steps,
        "epochs": steps * plan.batch / trained_on,
    }


def provenance(pool: Pool) -> dict[str, Any]:
    """What every row says about the code and the data that it comes from."""
    return {"commit": _commit(), "versions": _versions(), "data_hash": _digest(pool)}


@functools.lru_cache(maxsize=8)
def _digest(pool: Pool) -> str:
    return pool.digest()


def measure(result: Trained, plan: Plan, facts: dict[str, Any], pool: Pool) -> dict[str, Any]:
    """What a trained cell adds to the facts of its row."""
    view = make_view(pool, facts["seed"], facts["protocol"])
    part = view.validation if plan.part == "validation" else view.test
    measured = evaluate(result.predictions, part.y)
    hits = np.packbits(result.predictions == part.y)
    int8 = {}
    if plan.int8:
        blob = make_blob(result.weights, view.fit.x, view.fit.classes, pool.scaling)
        int8 = {"int8_accuracy": evaluate_int8(blob, part).accuracy}
    return int8 | {
        "accuracy": measured.accuracy,
        "balanced_accuracy": measured.balanced_accuracy,
        "n": measured.n,
        "hits": base64.b64encode(zlib.compress(hits.tobytes(), 9)).decode(),
        "seconds": round(result.seconds, 3),
    }


def unpack_hits(row: dict[str, Any]) -> NDArray[np.bool_]:
    """Which frames of the measured part a row's network got right, bool ``[n]``."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(row["hits"])), np.uint8)
    return np.unpackbits(raw)[: row["n"]].astype(bool)


@functools.cache
def _commit() -> str:
    given = os.environ.get("DRIP_COMMIT", "")
    if given:
        return given
    try:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@functools.cache
def _versions() -> dict[str, str]:
    import importlib.metadata as metadata

    versions = {"drip": __version__, "python": platform.python_version()}
    for name in ("numpy", "jax", "keras", "tensorflow-cpu", "tensorflow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
