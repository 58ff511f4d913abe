"""The selection benchmark: which policy keeps the frames that a model learns most from.

Four phases, each resumable, each on the machine that suits it: ``first`` trains the first models,
``prepare`` converts and compiles them (TensorFlow), ``decide`` runs the streams through the C core,
``train`` trains from scratch on what was kept and measures. Results are rows of a JSON-lines file.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.select_cells import by_view, measure, prepare_cells
from drip.bench.select_data import RECIPES, Pool, View, load_pool, make_view
from drip.bench.select_decide import decide, make_blob, save_decisions
from drip.bench.select_jax import Job, Trained, train_jobs
from drip.bench.select_net import Augmentation, augmenter, select_net
from drip.bench.select_plan import REFERENCES, Cell, Plan, Rows
from drip.data import Dataset
from drip.data.files import write_atomic
from drip.errors import DataError, MissingDependencyError, UsageError, install_hint

PHASES = ("first", "prepare", "decide", "train", "report")
TRAINERS = ("keras", "jax")
RUNNERS = ("processes", "ray")
# Measured on two cores of a laptop-class x86-64 machine; only for the estimate before a run.
_KERAS_FRAMES_PER_S = 5000.0
_JAX_FRAMES_PER_S = 1_500_000.0
_DECIDE_FRAMES_PER_S = 700.0
_KERAS_START_S = 12.0


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes.

    Attributes:
        data: Folder of the data sets.
        out: Folder of models, decisions and rows; created.
        trainer: ``"keras"`` or ``"jax"``.
        runner: ``"processes"`` or ``"ray"``.
        jobs: Processes; also cap of networks at once with jax.
        at_once: Networks that are trained together with jax.
        say: Told what is going on.
    """

    data: Path
    out: Path
    trainer: str = "keras"
    runner: str = "processes"
    jobs: int = 1
    at_once: int = 64
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        if self.trainer not in TRAINERS or self.runner not in RUNNERS:
            raise UsageError(
                f"no trainer {self.trainer} or runner {self.runner}",
                f"trainers: {', '.join(TRAINERS)}; runners: {', '.join(RUNNERS)}",
            )

    def first(self, dataset: str, seed: int) -> Path:
        """Weights of a first model."""
        return self.out / "first" / f"{dataset}-{seed}.npz"

    def blob(self, dataset: str, seed: int) -> Path:
        """The first model, compiled."""
        return self.out / "blobs" / f"{dataset}-{seed}.drip"

    def decisions(self, plan: Plan, dataset: str, seed: int, protocol: str, keep: float) -> Path:
        """Decisions of a plan's device policies."""
        name = f"{plan.name}-{dataset}-{seed}-{protocol}-{keep:g}.npz"
        return self.out / "decisions" / name

    def rows(self, plan: Plan) -> Path:
        """Result rows."""
        return self.out / f"{plan.name}.jsonl"


def run(plan: Plan, place: Place, phases: Sequence[str] = PHASES) -> Rows:
    """Run phases of a plan; what is done already is left out.

    Raises:
        UsageError: A phase is unknown.
        DataError: A data set is missing, or a phase lacks what an earlier one makes.
        MissingDependencyError: TensorFlow, JAX or Ray is not installed.
    """
    unknown = set(phases) - set(PHASES)
    if unknown:
        raise UsageError(f"no phase {', '.join(unknown)}", f"phases: {', '.join(PHASES)}")
    if set(phases) == {"report"}:
        return Rows(place.rows(plan))
    for name in ("first", "blobs", "decisions"):
        (place.out / name).mkdir(parents=True, exist_ok=True)
    place.say(f"{plan.name}: {estimate(plan, place, phases)}")
    write_atomic(place.out / f"{plan.name}.log", lambda file: file.write(_log(plan).encode()))
    if "first" in phases:
        _first(plan, place)
    if "prepare" in phases:
        _prepare(plan, place)
    if "decide" in phases:
        _decide(plan, place)
    if "train" in phases:
        _train(plan, place)
    return Rows(place.rows(plan))


def estimate(plan: Plan, place: Place, phases: Sequence[str] = PHASES) -> str:
    """What a run will take, in words, from known speeds; done cells are not counted."""
    done = Rows(place.rows(plan))
    todo = [c for c in plan.cells() if not done.has(c.key, plan.config_hash(c))]
    seconds = 0.0
    if "train" in phases:
        frames = sum(_frames_seen(plan, cell) for cell in todo)
        if place.trainer == "jax":
            seconds += frames / _JAX_FRAMES_PER_S + 30
        else:
            seconds += (frames / _KERAS_FRAMES_PER_S + _KERAS_START_S * len(todo)) / place.jobs
    if "decide" in phases:
        streams = [
            _stream_frames(d) * len(plan.device_policies)
            for d, s, p in plan.views()
            for k in plan.keep
            if not place.decisions(plan, d, s, p, k).exists()
        ]
        seconds += sum(streams) / _DECIDE_FRAMES_PER_S / place.jobs
    return f"{len(todo)} cells to do, about {max(1, round(seconds / 60))} min"


def _frames_seen(plan: Plan, cell: Cell) -> float:
    fit = RECIPES[cell.dataset].fit
    whole = fit + _stream_frames(cell.dataset)
    if cell.keep == 0:
        return fit * plan.fit_epochs
    return plan.epochs * (whole if cell.steps == "equal" else fit + cell.keep * (whole - fit))


def _stream_frames(dataset: str) -> int:
    total = {"digits": 1450, "plants": 5261, "speech": 4112, "imu": 6256}
    recipe = RECIPES[dataset]
    known = recipe.take or total[dataset]
    return known - recipe.fit - recipe.calibration - recipe.validation


def _log(plan: Plan) -> str:
    """Every configuration that a run tries, one line each."""
    lines = sorted({f"{plan.config_hash(c)} {c.dataset} {c.protocol} {c.policy} {c.keep:g}"
                    f" {c.steps} {c.part}" for c in plan.cells()})  # fmt: skip
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- phases


def _first(plan: Plan, place: Place) -> None:
    for dataset in plan.datasets:
        seeds = sorted({s for d, s, _ in plan.views() if d == dataset})
        todo = [s for s in seeds if not place.first(dataset, s).exists()]
        if not todo:
            continue
        pool = load_pool(dataset, place.data)
        views = [make_view(pool, s, "iid") for s in todo]
        frames, offsets = _stack([v.fit.x for v in views])
        jobs = []
        for seed, view, offset in zip(todo, views, offsets, strict=True):
            rows = offset + np.arange(len(view.fit))
            steps = plan.fit_epochs * len(view.fit) // plan.batch
            jobs.append(Job(str(seed), rows, view.fit.y, rows[:200], steps, seed))
        for result in train_networks(pool, frames, jobs, plan, place):
            arrays = {f"w{n:02}": w for n, w in enumerate(result.weights)}
            path = place.first(dataset, int(result.job.key))
            write_atomic(path, functools.partial(_savez, arrays=arrays))
        place.say(f"first models of {dataset}: {len(todo)}")


def _savez(file: Any, *, arrays: dict[str, Any]) -> None:
    np.savez(file, **arrays)


def _prepare(plan: Plan, place: Place) -> None:
    for dataset in plan.datasets:
        seeds = sorted({s for d, s, _ in plan.views() if d == dataset})
        todo = [s for s in seeds if not place.blob(dataset, s).exists()]
        pool = load_pool(dataset, place.data) if todo else None
        for seed in todo:
            assert pool is not None
            view = make_view(pool, seed, "iid")
            blob = make_blob(
                _weights(place.first(dataset, seed)), view.fit.x, view.fit.classes, pool.scaling
            )
            write_atomic(place.blob(dataset, seed), functools.partial(_write, content=blob))
            place.say(f"compiled {dataset} {seed}: {len(blob)} bytes")


def _write(file: Any, *, content: bytes) -> None:
    file.write(content)


def _weights(path: Path) -> list[NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[key] for key in sorted(archive.files)]
    except OSError as error:
        raise DataError(f"no first model {path}", "run the phase first") from error


def _decide(plan: Plan, place: Place) -> None:
    todo = [
        (d, s, p, k)
        for d, s, p in plan.views()
        for k in plan.keep
        if not place.decisions(plan, d, s, p, k).exists()
    ]
    # The longest streams first, so that none is left alone at the end.
    todo.sort(key=lambda t: -_stream_frames(t[0]))
    work = functools.partial(_decide_one, plan, place.data, place.out)
    for n, line in enumerate(_spread(work, todo, place), 1):
        place.say(f"decided {n}/{len(todo)}: {line}")


def _decide_one(plan: Plan, data: Path, out: Path, job: tuple[str, int, str, float]) -> str:
    dataset, seed, protocol, keep = job
    place = Place(data, out)
    view = _view(dataset, data, seed, protocol)
    started = time.monotonic()
    try:
        blob = place.blob(dataset, seed).read_bytes()
    except OSError as error:
        raise DataError(f"no model for {dataset} {seed}", "run the phase prepare") from error
    decisions = decide(
        blob,
        view,
        plan.device_policies,
        keep,
        outputs=any(p.kind in REFERENCES for p in plan.policies),
    )
    save_decisions(place.decisions(plan, dataset, seed, protocol, keep), decisions)
    shares = " ".join(
        f"{p.name} {decisions[f'{p.name}/keep'].mean():.3f}" for p in plan.device_policies
    )
    took = time.monotonic() - started
    return f"{dataset} {seed} {protocol} {keep:g}: {shares} ({took:.0f} s)"


@functools.lru_cache(maxsize=4)
def _pool(dataset: str, data: Path) -> Pool:
    return load_pool(dataset, data)


def _view(dataset: str, data: Path, seed: int, protocol: str) -> View:
    return make_view(_pool(dataset, data), seed, protocol)


def _spread(work: Callable[[Any], Any], items: Sequence[Any], place: Place) -> Iterator[Any]:
    """Results as they come, from processes or from Ray."""
    if place.jobs == 1 and place.runner == "processes":
        yield from map(work, items)
        return
    import joblib

    if place.runner == "ray":
        try:
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise MissingDependencyError("the runner ray needs Ray", install_hint("ray")) from error
        register_ray()
        with joblib.parallel_config(backend="ray"):
            yield from joblib.Parallel(n_jobs=place.jobs)(joblib.delayed(work)(i) for i in items)
        return
    yield from joblib.Parallel(n_jobs=place.jobs, return_as="generator_unordered")(
        joblib.delayed(work)(item) for item in items
    )


def _train(plan: Plan, place: Place) -> None:
    rows = Rows(place.rows(plan))
    for dataset in plan.datasets:
        cells = [
            c
            for c in plan.cells()
            if c.dataset == dataset and not rows.has(c.key, plan.config_hash(c))
        ]
        if not cells:
            continue
        pool = _pool(dataset, place.data)
        prepared = [prepare_cells(plan, place, pool, group) for group in by_view(cells)]
        frames, offsets = _stack([frames for frames, _, _ in prepared])
        jobs, facts = [], {}
        for (_, own, about), offset in zip(prepared, offsets, strict=True):
            facts.update(about)
            for job in own:
                jobs.append(
                    Job(job.key, job.train + offset, job.labels, job.evaluate + offset, job.steps,
                        job.seed)
                )  # fmt: skip
        for result in train_networks(pool, frames, jobs, plan, place):
            rows.add(facts[result.job.key] | measure(result, plan, facts[result.job.key], pool))
        place.say(f"trained {dataset}: {len(jobs)} cells")


def _stack(parts: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], list[int]]:
    ends = np.cumsum([len(p) for p in parts])
    return np.concatenate(parts), [int(e) - len(p) for e, p in zip(ends, parts, strict=True)]


def train_networks(
    pool: Pool, frames: NDArray[Any], jobs: Sequence[Job], plan: Plan, place: Place
) -> Iterator[Trained]:
    """Train with the trainer of the place; rows of jobs count in ``frames``."""
    augmentation = Augmentation(pool.recipe.shift, pool.recipe.flip)
    if place.trainer == "jax":
        yield from train_jobs(
            frames, len(pool.train.classes), jobs, scale=pool.recipe.scale,
            augmentation=augmentation, batch=plan.batch, at_once=place.at_once,
            on_progress=place.say,
        )  # fmt: skip
        return
    work = functools.partial(_train_keras, pool, plan.batch)
    yield from _spread(work, [_own(frames, job) for job in jobs], place)


def _own(frames: NDArray[Any], job: Job) -> tuple[Job, NDArray[Any], NDArray[Any]]:
    """A job with only its own frames, so that a process is sent no more than it needs."""
    return job, frames[job.train], frames[job.evaluate]


def _train_keras(pool: Pool, batch: int, work: tuple[Job, NDArray[Any], NDArray[Any]]) -> Trained:
    from drip.train import predict, train

    job, x, evaluate_x = work
    data = Dataset(x, job.labels.astype(np.int64), pool.train.classes)
    result = train(
        select_net,
        data,
        steps=job.steps,
        batch=batch,
        seed=job.seed,
        scaling=pool.scaling,
        augment=augmenter(Augmentation(pool.recipe.shift, pool.recipe.flip)),
    )
    predicted = predict(result.model, evaluate_x, pool.scaling).argmax(1).astype(np.int64)
    weights = [np.asarray(w, np.float32) for w in result.model.get_weights()]
    return Trained(job, weights, predicted, result.seconds)
