"""The whole loop on real data, on one machine: ``drip demo``.

Every part is the product's own: the device is the firmware as a process, frames reach it over its
link, decisions are made by the C core, kept frames come back through sync and store, models are
trained, converted, compiled, calibrated and deployed by the functions behind the other commands.

It is a smoke test: scikit-learn's digits are far too few to prove that one selection beats another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import __version__, wire
from drip.calibrate import CalibrationReport, calibrate
from drip.card import format_image
from drip.compile import compile_model
from drip.convert import convert
from drip.core import Model
from drip.data import DIGITS_SCALING, Dataset, Splits, digits, split
from drip.data.files import write_atomic
from drip.deploy import deploy
from drip.device import Client, connect, launch_native
from drip.errors import MissingDependencyError, VerifyError
from drip.improve import improve
from drip.label import TruthLabels, apply_labels
from drip.lineage import write_card
from drip.models import BUILDERS
from drip.report import Frames, save_run, write_report
from drip.retrain import Evaluation, Recipe, evaluate_int8, retrain_pruned
from drip.store import Store
from drip.sync import sync_device
from drip.train import train
from drip.verify import verify

PARTS = {"fit": 200, "calibration": 200, "stream": 900, "test": 497}
TARGET_RATIO = 0.55
"""Share of frames to keep; the random share comes out of it."""
STEPS = 500
BATCH = 32
RECIPE = Recipe(steps=STEPS, batch=BATCH)
"""Of every training after the first."""
CARD_BYTES = 8 << 20
PICTURES = 12
CAVEAT = (
    "A smoke test: it shows that every part works together. Digits are too few to prove that one"
    " way of choosing frames beats another."
)

Progress = Callable[[str], Any]
"""Makes a context manager that shows a bar; it yields a callback of (done, total)."""


@dataclass(frozen=True)
class Arm:
    """One model of the comparison and how it did on the test set.

    Attributes:
        label: What it was trained on, in words.
        kept_fraction: Share of the stream in its training set.
        training_frames: Frames it was trained on.
        accuracy: On the test set, by the compiled int8 model in the C core.
        ci95: Wilson interval of the accuracy.
        blob: The compiled, calibrated model.
        thresholds: Percentile from which a frame is kept, per class, float [C].
    """

    label: str
    kept_fraction: float
    training_frames: int
    accuracy: float
    ci95: tuple[float, float]
    blob: bytes = field(repr=False)
    thresholds: NDArray[np.float64] = field(repr=False)

    def figures(self) -> dict[str, Any]:
        """For JSON: everything but the model itself."""
        names = ("label", "kept_fraction", "training_frames", "accuracy", "ci95")
        return {name: getattr(self, name) for name in names}


@dataclass
class Demo:
    """One run: where it works, what it has measured so far."""

    folder: Path
    seed: int
    progress: Progress
    stages: list[dict[str, Any]] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage and show its progress."""
        started = time.monotonic()
        with self.progress(name) as on_progress:
            yield on_progress
        self.stages.append({"name": name, "seconds": round(time.monotonic() - started, 3)})

    def model(
        self,
        name: str,
        label: str,
        data: Dataset,
        parts: Splits,
        kept: float,
        recipe: Recipe | None = None,
    ) -> Arm:
        """Train, convert, compile, calibrate and measure one model (cached by content)."""
        with self.stage(name) as on_progress:
            tflite = self._tflite(data, on_progress, recipe)
            calibrated = calibrate(
                compile_model(tflite, source_name="digits"),
                parts.calibration,
                target_ratio=TARGET_RATIO,
            )
            result: Evaluation = evaluate_int8(calibrated.blob, parts.test)
        return Arm(
            label,
            kept,
            len(data),
            result.accuracy,
            result.ci95,
            calibrated.blob,
            _thresholds(calibrated),
        )

    def improve(self, parts: Splits, initial: Arm, kept: Dataset) -> Arm:
        """Retrain against the model on the board; fails when the result is worse than that one."""
        label = "seed + kept by DRIP"
        with self.stage(f"train on {label}, hold against the board's model") as on_progress:
            result = improve(
                initial.blob,
                parts,
                kept,
                builder=BUILDERS["cnn"],
                builder_name="cnn",
                scaling=DIGITS_SCALING,
                recipe=RECIPE,
                seed=self.seed,
                target_ratio=TARGET_RATIO,
                on_progress=on_progress,
            )
        path = self.folder / "retrained.drip"
        write_atomic(path, lambda file: file.write(result.blob))
        write_card(path, result.card)
        self.card = result.card
        measured = result.comparison.candidate
        share = len(kept) / len(parts.stream)
        return Arm(
            label,
            share,
            result.card["data"]["frames"],
            measured.accuracy,
            measured.ci95,
            result.blob,
            _thresholds(result.calibration),
        )

    def _tflite(
        self, data: Dataset, on_progress: Callable[[int, int], None], recipe: Recipe | None = None
    ) -> bytes:
        how = [STEPS, BATCH] if recipe is None else dataclasses.asdict(recipe)
        what = [data.digest(), "cnn", how, self.seed, __version__, _versions()]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]
        cached = self.folder / "cache" / f"{key}.tflite"
        if cached.exists():
            return cached.read_bytes()
        if recipe is None:
            trained = train(
                BUILDERS["cnn"],
                data,
                steps=STEPS,
                batch=BATCH,
                seed=self.seed,
                scaling=DIGITS_SCALING,
                on_progress=on_progress,
            )
        else:
            trained = retrain_pruned(
                data,
                builder=BUILDERS["cnn"],
                seed=self.seed,
                scaling=DIGITS_SCALING,
                recipe=recipe,
                on_progress=on_progress,
            )
        tflite = convert(
            trained.model,
            data.x,
            scaling=DIGITS_SCALING,
            classes=data.classes,
            metadata={"data_digest": data.digest(), "seed": self.seed},
        )
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cached, lambda file: file.write(tflite))
        return tflite

    def verify(self, data: Dataset, parts: Splits) -> str:
        """Compare the first model with the tflite-micro interpreter where there is one."""
        with self.stage("verify against tflite-micro") as on_progress:
            try:
                report = verify(
                    self._tflite(data, on_progress),
                    inputs=100,
                    seed=self.seed,
                    real=parts.test.x[:50],
                )
            except MissingDependencyError as error:
                return f"skipped: {error.message}"
        if report.mismatches:
            raise VerifyError(
                f"{report.mismatches} bytes differ from tflite-micro",
                "run 'drip verify' for details",
            )
        return f"{report.inputs} inputs, every tensor equal"


def _thresholds(calibrated: CalibrationReport) -> NDArray[np.float64]:
    used = next(s for s in calibrated.scores if s.kind == wire.ScoreKind.CAM_EVIDENCE)
    return np.array([c.threshold for c in used.classes]) / wire.PERCENTILE_ONE


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    fresh: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """Run the loop and write ``result.json``, ``frames.npz`` and ``report.html`` into ``folder``.

    Args:
        folder: Working folder; models are cached in it.
        seed: Fixes split, weights, random share and the random comparison.
        fresh: Ignore and replace what earlier runs cached.
        progress: Shows a bar per stage.

    Returns:
        The figures of ``result.json``.

    Raises:
        VerifyError: What came back is not what the device kept or was given.
    """
    if fresh:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    for stale in ("device", "store"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    (folder / "device").mkdir(parents=True)
    demo = Demo(folder, seed, progress)

    with demo.stage("load digits"):
        parts = split(digits(), seed=seed, **PARTS)
    initial = demo.model("train the first model", "seed frames only", parts.fit, parts, 0.0)
    verified = demo.verify(parts.fit, parts)

    card, flash = folder / "device" / "card.img", folder / "device" / "flash.bin"
    format_image(card, CARD_BYTES)
    blob_file = folder / "device" / "model.drip"
    write_atomic(blob_file, lambda file: file.write(initial.blob))
    with launch_native(card=card, flash=flash, model=blob_file) as device:
        with connect(device.url) as client:
            run = _run_device(demo, client, parts)
        arms, curve = _retrain(demo, parts, initial, run)
        with connect(device.url) as client:
            pushed = _push(demo, client, parts, arms["retrained"])

    result = _figures(demo, parts, run, arms, curve, pushed, verified)
    save_run(folder, result, _pictures(parts, initial, run))
    with demo.stage("draw the report"):
        write_report(folder)
    _judge(result)
    return result


def _judge(result: dict[str, Any]) -> None:
    """Fail when the loop ran but lost or spoilt something on the way."""
    if not result["retained_verified"]:
        raise VerifyError(
            "the frames in the store are not those that the device kept", "report this defect"
        )
    if result["device_model_after"] != result["pushed_model"]:
        raise VerifyError("the device does not run the model that was pushed", "report this defect")


@dataclass(frozen=True)
class DeviceRun:
    """What the device did with the stream and what came back.

    Attributes:
        results: Its answer to every frame, in order.
        kept: Indices of the frames that are in the store, in sequence order.
        labelled: The kept frames with the labels that the label source gave.
        retained_verified: Whether exactly the kept frames came back, byte for byte.
        wire_bytes: Bytes over the wire while pulling.
        acknowledged: Segments that the device freed.
    """

    results: tuple[wire.Result, ...]
    kept: NDArray[np.int64]
    labelled: Dataset
    retained_verified: bool
    wire_bytes: int
    acknowledged: int


def _run_device(demo: Demo, client: Client, parts: Splits) -> DeviceRun:
    client.config_set({wire.Config.SEED: demo.seed + 1})
    with demo.stage("feed the stream to the device") as on_progress:
        results = []
        for index, frame in enumerate(parts.stream.x):
            results.append(client.feed(frame, token=index))
            on_progress(index + 1, len(parts.stream))
    store = Store.open(demo.folder / "store", create=True)
    with demo.stage("sync kept frames") as on_progress:
        report = sync_device(client, store, on_progress=on_progress)
    with demo.stage("label kept frames"):
        apply_labels(store, TruthLabels(parts.stream.x, parts.stream.y), parts.stream.classes)
        labelled = store.dataset(parts.stream.classes)
    said = [index for index, result in enumerate(results) if result.keep]
    kept = np.array(said, dtype=np.int64)
    equal = len(labelled) == len(kept) and np.array_equal(labelled.x, parts.stream.x[kept])
    return DeviceRun(tuple(results), kept, labelled, bool(equal), report.bytes_wire, report.acked)


def _retrain(
    demo: Demo, parts: Splits, initial: Arm, run: DeviceRun
) -> tuple[dict[str, Arm], dict[str, list[Arm]]]:
    """The three models to compare, and two more points for the curve."""
    stream, fit = parts.stream, parts.fit
    count, total = len(run.labelled), len(stream)
    rng = np.random.default_rng(demo.seed)
    order = rng.permutation(total)
    importance = np.array([result.percentile for result in run.results])
    few = total // 5
    most_important = np.sort(np.argsort(-importance, kind="stable")[:few])
    jobs: dict[str, tuple[str, Dataset]] = {
        "random": ("seed + random, same size", stream.take(np.sort(order[:count]))),
        "full": ("seed + everything", stream),
        "drip_few": ("seed + the most important fifth", stream.take(most_important)),
        "random_few": ("seed + a random fifth", stream.take(np.sort(order[:few]))),
    }
    arms = {"initial": initial, "retrained": demo.improve(parts, initial, run.labelled)}
    for key, (label, data) in jobs.items():
        arms[key] = demo.model(
            f"train on {label}",
            label,
            Dataset.concat(fit, data),
            parts,
            len(data) / total,
            RECIPE,
        )
    curve = {
        "drip": [arms.pop("drip_few"), arms["retrained"]],
        "random": [arms.pop("random_few"), arms["random"]],
    }
    return arms, curve


@dataclass(frozen=True)
class Push:
    """A deployment and the proof that the device answers with the new model."""

    before: str
    after: str
    answers_equal: bool
    wire_bytes: int


def _push(demo: Demo, client: Client, parts: Splits, arm: Arm) -> Push:
    with demo.stage("push the new model") as on_progress:
        report = deploy(client, arm.blob, on_progress=on_progress)
    with demo.stage("ask the device with the new model"):
        host = Model(arm.blob)
        frames = parts.test.x[:50]
        answers = [client.score(frame) for frame in frames]
        after = client.hello().model_id.hex()
        expected = [host.score(frame) for frame in frames]
        equal = all(
            (a.class_1, a.logit_1, a.raw_score) == (e.class_1, e.logit_1, e.raw)
            and after.startswith(a.model_id.hex())
            for a, e in zip(answers, expected, strict=True)
        )
    if not equal:
        raise VerifyError("device and host core disagree about the new model", "report this defect")
    return Push(report.before_id.hex(), after, equal, report.bytes_wire)


def _figures(
    demo: Demo,
    parts: Splits,
    run: DeviceRun,
    arms: dict[str, Arm],
    curve: dict[str, list[Arm]],
    pushed: Push,
    verified: str,
) -> dict[str, Any]:
    seen, kept = len(run.results), len(run.kept)
    by_chance = sum(r.reason == wire.Reason.RANDOM_SHARE for r in run.results)
    return {
        "dataset": "scikit-learn digits",
        "caveat": CAVEAT,
        "seed": demo.seed,
        "frames_seen": seen,
        "frames_kept": kept,
        "frames_kept_by_chance": by_chance,
        "saved_fraction": 1 - kept / seen,
        "target_ratio": TARGET_RATIO,
        "retained_verified": run.retained_verified,
        "segments_acknowledged": run.acknowledged,
        "accuracy_initial": arms["initial"].accuracy,
        "accuracy_retrained": arms["retrained"].accuracy,
        "accuracy_full": arms["full"].accuracy,
        "accuracy_random": arms["random"].accuracy,
        "test_size": len(parts.test),
        "bit_exact": verified,
        "device_model_before": pushed.before,
        "device_model_after": pushed.after,
        "pushed_model": Model(arms["retrained"].blob).model_id.hex(),
        "device_equals_core": pushed.answers_equal,
        "wire_bytes_sync": run.wire_bytes,
        "wire_bytes_deploy": pushed.wire_bytes,
        "arms": {key: arm.figures() for key, arm in arms.items()},
        "curve": {key: [arm.figures() for arm in points] for key, points in curve.items()},
        "card": demo.card,
        "stages": demo.stages,
        "versions": _versions(),
    }


def _pictures(parts: Splits, initial: Arm, run: DeviceRun) -> Frames:
    """Scores of all frames, and pictures of the extremes: most and least important."""
    model = Model(initial.blob)
    percentile = np.array([r.percentile for r in run.results]) / wire.PERCENTILE_ONE
    kept = np.array([bool(r.keep) for r in run.results])
    by_chance = np.array([r.reason == wire.Reason.RANDOM_SHARE for r in run.results])
    order = np.argsort(-percentile, kind="stable")
    shown = [*order[kept[order]][:PICTURES], *order[~kept[order]][::-1][:PICTURES]]
    images, cams, captions = [], [], []
    for index in shown:
        frame, result = parts.stream.x[index], run.results[index]
        images.append(frame[..., 0] / 16.0)
        cams.append(model.cam(frame, result.class_1))
        truth = parts.stream.classes[parts.stream.y[index]]
        guess = parts.stream.classes[result.class_1]
        captions.append(f"is {truth}, says {guess}, {percentile[index]:.2f}")
    return Frames(
        percentile,
        kept,
        by_chance,
        initial.thresholds,
        np.array(images, dtype=np.float32),
        np.array(cams, dtype=np.float32),
        tuple(captions),
        kept[shown],
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("tensorflow-cpu", "tensorflow", "keras", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
