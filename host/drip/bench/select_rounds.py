"""Rounds: keep, retrain, deploy the better model, go on.

The stream comes in equal parts; what is dropped is gone. After each part a policy trains a model
from scratch on the fit part and all that it has kept so far, converts it, calibrates it on the
same calibration part, and decides on the next part. Random draws the count that the device policy
kept in the same round; full keeps everything.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.bench.select import Place, train_networks
from drip.bench.select_cells import provenance
from drip.bench.select_data import Pool, View, load_pool, make_view
from drip.bench.select_decide import decide, make_blob
from drip.bench.select_jax import Job
from drip.bench.select_plan import Plan, Policy, Rows
from drip.data.files import write_atomic
from drip.retrain import evaluate

ROUNDS = 3


def run_rounds(plan: Plan, place: Place, rounds: int = ROUNDS) -> Rows:
    """Run a plan's device policies, ``random`` and ``full`` through rounds, for every view.

    Rows carry ``round`` (from 1), cumulative bytes and labels, and the accuracy after the round.

    Raises:
        DataError: A data set is missing.
        MissingDependencyError: TensorFlow or the compiled core is not installed.
    """
    place.out.mkdir(parents=True, exist_ok=True)
    path = place.out / f"{plan.name}-rounds.jsonl"
    rows = Rows(path)
    for dataset, seed, protocol in plan.views():
        pool = load_pool(dataset, place.data)
        view = make_view(pool, seed, protocol)
        for keep in plan.keep:
            todo = [p for p in plan.policies if p.kind in ("device", "random", "full")]
            name = f"{dataset}/{seed}/{protocol}/{keep:g}/{plan.part}/{rounds}"
            if all(rows.has(f"{name}/{p.name}", _hash(plan, p, keep)) for p in todo):
                continue
            counts: dict[str, list[int]] = {}
            # Random draws what its device policy kept, so it comes after it.
            for policy in sorted(todo, key=lambda p: p.kind != "device"):
                found = _one(plan, place, pool, view, policy, keep, seed, rounds, counts)
                for row in found:
                    row |= {"dataset": dataset, "seed": seed, "protocol": protocol}
                    row |= provenance(pool) | {"config_hash": _hash(plan, policy, keep)}
                last = {"key": f"{name}/{policy.name}", "rounds": found}
                rows.add(last | {"config_hash": _hash(plan, policy, keep)})
                place.say(
                    f"{name}/{policy.name}: "
                    + " ".join(f"{r['accuracy']:.3f} ({r['labels']})" for r in found)
                )
    return rows


def write_rounds(plan: Plan, place: Place) -> list[dict[str, Any]]:
    """Run what is missing and write ``NAME-rounds.md``; returns a row per policy and round."""
    rows = [r for row in run_rounds(plan, place).rows for r in row["rounds"]]
    text = f"# {plan.name}: {ROUNDS} rounds\n\n{markdown(rows)}".encode()
    write_atomic(place.out / f"{plan.name}-rounds.md", lambda file: file.write(text))
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds after each round."""
    lines = [
        "| data set | policy | keep | round | seeds | labels | bytes | accuracy | balanced |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in sorted({(r["dataset"], r["policy"], r["keep"], r["round"]) for r in rows}):
        own = [r for r in rows if (r["dataset"], r["policy"], r["keep"], r["round"]) == case]
        mean = {
            k: float(np.mean([r[k] for r in own]))
            for k in ("labels", "bytes", "accuracy", "balanced_accuracy")
        }
        lines.append(
            f"| {case[0]} | {case[1]} | {case[2]:.0%} | {case[3]} | {len(own)} |"
            f" {mean['labels']:.0f} | {mean['bytes']:.0f} | {mean['accuracy']:.2%} |"
            f" {mean['balanced_accuracy']:.2%} |"
        )
    return "\n".join(lines) + "\n"


def _hash(plan: Plan, policy: Policy, keep: float) -> str:
    text = repr((policy, keep, plan.epochs, plan.batch, plan.fit_epochs, plan.part))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _one(
    plan: Plan,
    place: Place,
    pool: Pool,
    view: View,
    policy: Policy,
    keep: float,
    seed: int,
    rounds: int,
    counts: dict[str, list[int]],
) -> list[dict[str, Any]]:
    part = view.validation if plan.part == "validation" else view.test
    pieces = np.array_split(np.arange(len(view.stream)), rounds)
    frames = np.concatenate([view.fit.x, view.stream.x, part.x])
    measured = len(view.fit) + len(view.stream) + np.arange(len(part))
    kept = np.zeros(0, np.int64)
    rng = np.random.default_rng((seed, 31))
    frame_bytes = int(np.prod(view.stream.frame_shape)) * view.stream.x.dtype.itemsize
    model: list[NDArray[np.float32]] | None = None
    found: list[dict[str, Any]] = []
    for n, piece in enumerate(pieces):
        if policy.kind == "full":
            chosen = piece
        elif policy.kind == "random":
            count = counts[plan.matched(policy)][n]
            chosen = np.sort(rng.permutation(piece)[:count])
        else:
            if model is None:
                model = _train(plan, place, pool, view, frames, kept, measured, seed)[0]
            mask = _decide(pool, view, model, piece, policy, keep)
            chosen = piece[mask]
            counts.setdefault(policy.name, []).append(len(chosen))
        kept = np.concatenate([kept, chosen])
        model, predictions = _train(plan, place, pool, view, frames, kept, measured, seed)
        result = evaluate(predictions, part.y)
        hits = np.packbits(predictions == part.y).tobytes()
        found.append(
            {
                "policy": policy.name,
                "keep": keep,
                "round": n + 1,
                "labels": len(kept),
                "bytes": len(kept) * frame_bytes,
                "offered": int(pieces[n][-1]) + 1,
                "accuracy": result.accuracy,
                "balanced_accuracy": result.balanced_accuracy,
                "n": result.n,
                "hits": base64.b64encode(zlib.compress(hits, 9)).decode(),
            }
        )
    return found


def _decide(
    pool: Pool,
    view: View,
    weights: list[NDArray[np.float32]],
    piece: NDArray[np.int64],
    policy: Policy,
    keep: float,
) -> NDArray[np.bool_]:
    blob = make_blob(weights, view.fit.x, view.fit.classes, pool.scaling)
    own = View(
        view.fit, view.calibration, view.validation, view.test, view.stream.take(piece),
        view.labels[piece], view.item[piece], view.phase[piece],
    )  # fmt: skip
    return np.asarray(decide(blob, own, (policy,), keep)[f"{policy.name}/keep"], bool)


def _train(
    plan: Plan,
    place: Place,
    pool: Pool,
    view: View,
    frames: NDArray[Any],
    kept: NDArray[np.int64],
    measured: NDArray[np.int64],
    seed: int,
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Train on the fit part and what was kept; as many steps as with the whole stream."""
    train = np.concatenate([np.arange(len(view.fit)), len(view.fit) + kept])
    labels = np.concatenate([view.fit.y, view.labels[kept]])
    steps = plan.epochs * (len(view.fit) + len(view.stream)) // plan.batch
    if not len(kept):
        steps = plan.fit_epochs * len(view.fit) // plan.batch
    job = Job("0", train, labels, measured, steps, seed)
    jobs: Sequence[Job] = [job]
    (result,) = train_networks(pool, frames, jobs, plan, place)
    return result.weights, result.predictions
