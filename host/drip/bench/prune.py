"""Accuracy against the total cost of training, for every way to prune data and for none.

A sweep is a list of cells: one method, share pruned, and seed on one data set and network. Every
cell that ends is one line of ``rows.jsonl``, written at once; a sweep that is started again does
only what is missing. Cost counts samples: forward and backward 1, forward alone 1/3, and scoring
counts, also of the nets that static scores need.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.prune_jax import train_jax
from drip.bench.prune_plan import (
    FORGET_SHARE,
    METHODS,
    PROBE_SHARE,
    PROBES,
    QUICK,
    SCORED,
    Cell,
    Plan,
    plan_cells,
    plan_of,
    within,
)
from drip.bench.prune_rows import append, load_rows, provenance
from drip.bench.prune_train import Done, Job, Problem, train_keras
from drip.bench.select_data import load_pool
from drip.bench.select_net import Augmentation
from drip.data import Dataset
from drip.errors import MissingDependencyError, UsageError, install_hint
from drip.prune import Cost, ForgetCounter, el2n, grand_last_layer, make_pruner, planned_cost
from drip.prune.scores import softmax

__all__ = [
    "METHODS", "QUICK", "Cell", "Plan", "estimate", "load_rows", "plan_cells", "plan_of", "run",
    "start_backend", "tune",
]  # fmt: skip

ENGINES = ("processes", "ray")


def load_problem(plan: Plan, folder: Path, *, validation: bool = False) -> tuple[Problem, str]:
    """Read a plan's data; with ``validation`` a fifth of the training frames stands for the test.

    Returns:
        The problem, and a hash over the data.
    """
    pool = load_pool(plan.data, folder)
    train, test = pool.train, pool.test
    if validation:
        order = np.random.default_rng(20).permutation(len(train))
        cut = len(train) // 5
        train, test = train.take(np.sort(order[cut:])), train.take(np.sort(order[:cut]))
    recipe = pool.recipe
    augmentation = Augmentation(recipe.shift, recipe.flip)
    problem = Problem(
        plan.net, _plain(train), _plain(test), recipe.scale, augmentation, plan.batch, plan.peak
    )
    return problem, pool.digest()


def _plain(data: Dataset) -> Dataset:
    return Dataset(np.ascontiguousarray(data.x), data.y, data.classes)


def run(
    plan: Plan,
    folder: Path,
    rows: Path,
    *,
    trainer: str = "keras",
    at_once: int = 16,
    engine: str = "processes",
    jobs: int = 1,
    deadline: float = float("inf"),
    on_row: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    validation: bool = False,
    cells: Sequence[Cell] | None = None,
) -> list[dict[str, Any]]:
    """Do what is missing of a plan.

    Args:
        plan: What to measure.
        folder: Where the data are.
        rows: JSON lines; what is there is not done again.
        trainer: ``keras``: one after the other, any backend; ``jax``: side by side.
        at_once: Trainings side by side.
        engine: With the trainer keras, who does the work: ``processes`` of this machine, or
            ``ray``, whose cluster must see ``folder``; ``RAY_ADDRESS`` names it.
        jobs: Workers; 1 process: this one.
        deadline: ``time.monotonic()`` after which no further call is started.
        on_row: Told every new row.
        on_progress: Called with cells done and cells to do.
        validation: Measure on a part of the training frames, to choose settings.
        cells: Other cells than the plan's own.

    Returns:
        The rows of these cells, old and new.

    Raises:
        UsageError: There is no such trainer or method.
        DataError: The data or the rows cannot be read.
        MissingDependencyError: The trainer or the engine is not installed.
    """
    if trainer not in ("keras", "jax"):
        raise UsageError(f"no trainer {trainer}", "use keras or jax")
    if engine not in ENGINES or (trainer == "jax" and (jobs > 1 or engine == "ray")):
        raise UsageError(
            f"engine {engine}, trainer {trainer}, {jobs} jobs",
            f"engines are {', '.join(ENGINES)}; the trainer jax takes one job",
        )
    wanted = list(plan_cells(plan) if cells is None else cells)
    problem, digest = load_problem(plan, folder, validation=validation)
    known = {row["key"]: row for row in load_rows(rows)}
    known = {k: row for k, row in known.items() if row["data_digest"] == digest}
    missing = [cell for cell in wanted if cell.key not in known]
    if jobs > 1 or engine == "ray":
        task = functools.partial(_task, plan, folder, validation)
        found = _elsewhere(task, missing, engine, jobs)
    else:
        found = _measure(problem, missing, plan.epochs, trainer, at_once, deadline, digest)
    for row in found:
        append(rows, row)
        known[row["key"]] = row
        if on_row is not None:
            on_row(row)
        if on_progress is not None:
            on_progress(sum(cell.key in known for cell in wanted), len(wanted))
    return [known[cell.key] for cell in wanted if cell.key in known]


def _measure(
    problem: Problem,
    cells: Sequence[Cell],
    epochs: int,
    trainer: str,
    at_once: int,
    deadline: float,
    digest: str,
) -> Iterator[dict[str, Any]]:
    """Rows of cells, each as it is done."""
    train = train_keras if trainer == "keras" else functools.partial(train_jax, at_once=at_once)
    origin = provenance(trainer, digest)
    by_key = {cell.key: cell for cell in cells}
    size = len(problem.train)
    jobs = [
        Job(cell.key, cell.seed, cell.pruner(size), cell.epochs)
        for cell in cells
        if cell.method not in SCORED
    ]
    for group in _calls(jobs, at_once, deadline):
        for done in train(problem, group):
            yield _row(by_key[done.job.key], done, Cost(), problem) | origin
    scored = [cell for cell in cells if cell.method in SCORED]
    if not scored or time.monotonic() >= deadline:
        return
    scores = _static_scores(problem, scored, epochs, train)
    jobs = [
        Job(
            cell.key,
            cell.seed,
            cell.pruner(size, scores[cell.method, cell.seed][0]),
            cell.epochs,
        )
        for cell in scored
    ]
    for group in _calls(jobs, at_once, deadline):
        for done in train(problem, group):
            cell = by_key[done.job.key]
            yield _row(cell, done, scores[cell.method, cell.seed][1], problem) | origin


def _elsewhere(
    task: Callable[[Sequence[Cell]], list[dict[str, Any]]],
    cells: Sequence[Cell],
    engine: str,
    jobs: int,
) -> Iterator[dict[str, Any]]:
    """Rows of cells that other processes measure, one at a time but for those that share scores.

    Raises:
        MissingDependencyError: joblib or Ray is not installed.
    """
    try:
        import joblib
    except ImportError as error:
        raise MissingDependencyError("several jobs need joblib", "pip install joblib") from error
    tasks = [[cell] for cell in cells if cell.method not in SCORED]
    for seed in sorted({cell.seed for cell in cells}):
        together = [cell for cell in cells if cell.method in SCORED and cell.seed == seed]
        tasks += [together] if together else []
    backend = "loky"
    if engine == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise MissingDependencyError("the engine ray needs Ray", install_hint("ray")) from error
        register_ray()
        backend = "ray"
    with joblib.parallel_config(backend=backend, n_jobs=jobs):
        # Ray gives results back all at once; other processes one by one.
        way = "list" if engine == "ray" else "generator_unordered"
        for found in joblib.Parallel(return_as=way)(joblib.delayed(task)(part) for part in tasks):
            yield from found


def _task(
    plan: Plan, folder: Path, validation: bool, cells: Sequence[Cell]
) -> list[dict[str, Any]]:
    """What a worker does; its data and its compiled network outlive the call."""
    start_backend("keras")
    problem, digest = _kept_problem(plan, folder, validation)
    return list(_measure(problem, cells, plan.epochs, "keras", 1, float("inf"), digest))


@functools.lru_cache(maxsize=1)
def _kept_problem(plan: Plan, folder: Path, validation: bool) -> tuple[Problem, str]:
    return load_problem(plan, folder, validation=validation)


def _calls(jobs: list[Job], at_once: int, deadline: float) -> Iterator[list[Job]]:
    """Jobs of like length together, until the deadline."""
    ordered = sorted(jobs, key=lambda job: (-planned_cost(job.pruner).trained, job.key))
    for start in range(0, len(ordered), at_once):
        if time.monotonic() < deadline:
            yield ordered[start : start + at_once]


def _static_scores(
    problem: Problem, cells: Sequence[Cell], epochs: int, train: Callable[..., Iterable[Done]]
) -> dict[tuple[str, int], tuple[NDArray[np.float64], Cost]]:
    """Scores and what they cost, by method and seed."""
    size, y = len(problem.train), problem.train.y
    jobs: list[Job] = []
    counters: dict[int, ForgetCounter] = {}
    for seed in sorted({cell.seed for cell in cells}):
        stop = max(1, round(PROBE_SHARE * epochs))
        for probe in range(PROBES):
            own = 1000 * seed + probe
            full = make_pruner("full", size, epochs, own)
            jobs.append(Job(f"probe-{seed}", own, full, stop, probe=True))
        counters[seed] = ForgetCounter(size)
        stop = max(2, round(FORGET_SHARE * epochs))
        full = make_pruner("full", size, epochs, 1000 * seed + PROBES)
        jobs.append(Job(f"forget-{seed}", full.seed, full, stop, on_visits=counters[seed].update))
    out: dict[tuple[str, int], tuple[NDArray[np.float64], Cost]] = {}
    # Probes are short: they and the longer ones that count forgetting go separately.
    jobs.sort(key=lambda job: job.stop)
    for done in train(problem, jobs):
        kind, number = done.job.key.split("-")
        seed = int(number)
        if kind == "forget":
            out["forget", seed] = (counters[seed].scores(), done.cost)
            continue
        assert done.logits is not None and done.features is not None
        p = softmax(done.logits)
        for name, scores in (
            ("el2n", el2n(p, y)),
            ("grand", grand_last_layer(done.features, p, y)),
        ):
            before = out.get((name, seed), (np.zeros(size), Cost()))
            out[name, seed] = (before[0] + scores / PROBES, before[1] + done.cost)
    return out


def _row(cell: Cell, done: Done, extra: Cost, problem: Problem) -> dict[str, Any]:
    y = problem.test.y
    right = done.predictions == y
    cost = done.cost + extra
    full = len(problem.train) * cell.full_epochs
    return {
        "key": cell.key,
        **dataclasses.asdict(cell),
        "settings": dict(cell.settings),
        "config_hash": cell.key.rsplit("-", 1)[0],
        "samples": len(problem.train),
        "tested": len(y),
        "accuracy": round(float(right.mean()), 6),
        "balanced_accuracy": round(float(np.mean([right[y == c].mean() for c in np.unique(y)])), 6),
        "trained": cost.trained,
        "scored": cost.scored,
        "cost": round(cost.total / full, 6),
        "steps": done.steps,
        "seconds": round(done.seconds, 3),
        "compile_seconds": round(done.compile_seconds, 3),
    }


def start_backend(trainer: str) -> None:
    """Let Keras run on what the trainer needs, unless ``KERAS_BACKEND`` says otherwise."""
    if trainer == "jax":
        os.environ.setdefault("KERAS_BACKEND", "jax")
    elif os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        from drip.models.backend import keras

        keras()


def tune(
    plan: Plan, folder: Path, rows: Path, *, trainer: str = "keras", at_once: int = 16
) -> dict[str, dict[str, Any]]:
    """Choose period, a, eps and c on validation frames, at 50 % pruned.

    Every setting gets so many epochs that all cost the same half of a full training, so that a
    short period has to pay for its passes.

    Returns:
        The best settings of each method by mean accuracy.
    """
    grid: dict[str, list[dict[str, Any]]] = {
        "uniform": [{"period": p} for p in (1, 2, 5)],
        "eps-greedy": [
            {"period": p, "a": a, "eps": e}
            for p in (2, 5)
            for a in (0.5, 1.0)
            for e in (0.25, 0.5, 0.75)
        ],
        "ucb": [
            {"period": p, "a": a, "c": c}
            for p in (2, 5)
            for a in (0.5, 1.0)
            for c in (0.0, 0.3, 1.0)
        ],
    }
    cells = []
    for method, choices in grid.items():
        for settings in choices:
            for seed in range(1, plan.seeds + 1):
                cell = Cell(
                    plan.data, plan.net, plan.batch, plan.peak, method, 0.5, plan.epochs,
                    plan.epochs, seed, tuple(sorted(settings.items())),
                )  # fmt: skip
                cells.append(within(cell, 0.5))
    found = run(plan, folder, rows, trainer=trainer, at_once=at_once, validation=True, cells=cells)
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for method in grid:
        for settings in grid[method]:
            mine = [r for r in found if r["method"] == method and r["settings"] == settings]
            mean = float(np.mean([r["accuracy"] for r in mine])) if mine else -1.0
            if mean > best.get(method, (-2.0, {}))[0]:
                best[method] = (mean, settings)
    return {method: settings for method, (_, settings) in best.items()}


def estimate(plan: Plan, folder: Path, rows: Path, *, trainer: str, at_once: int) -> float:
    """Seconds that the missing cells are expected to take, from a few timed steps."""
    problem, digest = load_problem(plan, folder)
    have = {row["key"] for row in load_rows(rows) if row["data_digest"] == digest}
    size = len(problem.train)
    missing = [cell for cell in plan_cells(plan) if cell.key not in have]
    samples = sum(
        planned_cost(cell.pruner(size, np.zeros(size) if cell.method in SCORED else None)).total
        for cell in missing
    )
    seeds = {cell.seed for cell in missing if cell.method in SCORED}
    per_seed = PROBES * (PROBE_SHARE * plan.epochs + 1 / 3) + FORGET_SHARE * plan.epochs
    samples += len(seeds) * size * per_seed
    if not missing:
        return 0.0
    lanes = 1 if trainer == "keras" else at_once
    train = train_keras if trainer == "keras" else functools.partial(train_jax, at_once=at_once)
    few = min(0.99, max(0.0, 1 - 32 * plan.batch / size))
    jobs = [Job("", n, make_pruner("static", size, 1, n, prune=few), 1) for n in range(lanes)]
    done = list(train(problem, jobs))
    tested = len(problem.test) / 3 * len(done)
    rate = (sum(d.cost.total for d in done) + tested) / sum(d.seconds for d in done)
    return (samples + len(missing) * len(problem.test) / 3) / rate
