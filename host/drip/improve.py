"""From a deployed model and labelled kept frames to a model that may replace it, or a refusal.

Training, conversion, verification, compilation and calibration are those of the other modules; here
they are put in order, the result is compared with the model it would replace on frames that neither
was trained on, and everything that is needed to judge and repeat it goes into a model card.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drip import __version__
from drip.data import Dataset, InputScaling, Splits, count_shared_samples, sample_hashes
from drip.errors import DataError, MissingDependencyError, ModelError, VerifyError
from drip.models import Builder, load_builder
from drip.prune.scores import softmax
from drip.retrain import Evaluation, Recipe, evaluate, retrain_pruned

if TYPE_CHECKING:
    from drip.calibrate import CalibrationReport

__all__ = [
    "CARD_VERSION", "Comparison", "Improved", "Measured", "compare", "improve", "improve_on_ray",
    "measure",
]  # fmt: skip

CARD_VERSION = 1
MARGIN = 0.01
_BINS = 15
_VERIFY_INPUTS = 200


@dataclass(frozen=True)
class Measured:
    """How a compiled model does on held-out frames, by the C core.

    Attributes:
        accuracy, balanced_accuracy, ci95, n: As in :class:`drip.retrain.Evaluation`.
        per_class: Share of each class's frames that is right, by name.
        calibration_error: Expected calibration error of the logits' softmax, 15 bins.
    """

    accuracy: float
    balanced_accuracy: float
    ci95: tuple[float, float]
    n: int
    per_class: dict[str, float]
    calibration_error: float


@dataclass(frozen=True)
class Comparison:
    """A new model beside the one it would replace.

    Attributes:
        deployed, candidate: On the same held-out frames.
        candidate_float: Accuracy of the candidate before quantisation.
        agreement: Share of frames on which it says the same before and after quantisation.
        margin: How much worse the candidate may be, as a share of frames.
    """

    deployed: Measured
    candidate: Measured
    candidate_float: float
    agreement: float
    margin: float

    @property
    def gain(self) -> float:
        """Accuracy of the candidate above the deployed model's."""
        return self.candidate.accuracy - self.deployed.accuracy

    @property
    def balanced_gain(self) -> float:
        """The same with every class counted equally."""
        return self.candidate.balanced_accuracy - self.deployed.balanced_accuracy

    @property
    def acceptable(self) -> bool:
        """Whether neither accuracy is worse by more than the margin."""
        return min(self.gain, self.balanced_gain) >= -self.margin - 1e-12


@dataclass(frozen=True)
class Improved:
    """A model that may be deployed.

    Attributes:
        blob: Compiled and calibrated; names its parent.
        tflite: What it was compiled from.
        calibration: What each class keeps at the thresholds that were set.
        comparison: What was measured.
        card: Everything about it, as plain values.
        resumed_at: Epoch that the training went on from; 0 when it was not interrupted.
    """

    blob: bytes
    tflite: bytes
    calibration: CalibrationReport
    comparison: Comparison
    card: dict[str, Any]
    resumed_at: int = 0


def calibration_error(probabilities: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Expected calibration error: confidence against accuracy, weighted over equal-width bins.

    Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599, with 15 bins.

    Args:
        probabilities: ``[N, C]``.
        y: True classes ``[N]``.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == y
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(float(right[bins == b].mean()) - float(confidence[bins == b].mean()))
        * float((bins == b).mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def measure(blob: bytes, data: Dataset) -> tuple[Measured, NDArray[np.int64]]:
    """Measure a compiled model on labelled frames; also returns its predictions ``[N]``.

    Raises:
        ModelError: The blob is not usable.
        DataError: The frames do not fit the model, or there are none.
    """
    from drip.compile.blob import unpack_blob
    from drip.core import Model
    from drip.wire import BlobTensor, Section

    model = Model(blob)
    logits, _ = model.run(data.x)
    part = unpack_blob(blob).find(Section.TENSORS)
    assert part is not None
    tensor = BlobTensor.unpack(part.content, int(model.header.logits_tensor) * BlobTensor.SIZE)
    predictions = logits.argmax(axis=1).astype(np.int64)
    result: Evaluation = evaluate(predictions, data.y)
    per_class = {
        name: float((predictions[data.y == c] == c).mean())
        for c, name in enumerate(data.classes)
        if (data.y == c).any()
    }
    error = calibration_error(softmax(logits.astype(np.float64) * tensor.scale), data.y)
    return (
        Measured(
            result.accuracy, result.balanced_accuracy, result.ci95, result.n, per_class, error
        ),
        predictions,
    )


def compare(
    base: bytes, candidate: bytes, float_predictions: NDArray[np.int64], held_out: Dataset,
    margin: float,
) -> Comparison:  # fmt: skip
    """Measure both models on the same frames.

    Args:
        base: The deployed model.
        candidate: What would replace it.
        float_predictions: The candidate's answers before quantisation ``[N]``.
        held_out: Labelled frames that neither was trained on.
        margin: How much worse the candidate may be.
    """
    deployed, _ = measure(base, held_out)
    measured, predictions = measure(candidate, held_out)
    return Comparison(
        deployed,
        measured,
        float((float_predictions == held_out.y).mean()),
        float((float_predictions == predictions).mean()),
        margin,
    )


def improve(
    base: bytes,
    parts: Splits,
    kept: Dataset,
    *,
    builder: Builder,
    builder_name: str,
    scaling: InputScaling,
    recipe: Recipe,
    seed: int,
    target_ratio: float,
    margin: float = MARGIN,
    force: bool = False,
    checkpoints: Path | None = None,
    store: dict[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Improved:
    """Retrain on seed and kept frames, and hold the result against the deployed model.

    Args:
        base: The deployed ``.drip``.
        parts: ``fit`` is trained on, ``calibration`` sets the thresholds, ``test`` measures.
        kept: Frames from the store; those labelled -1 are left out.
        builder: As in :func:`drip.train.train`.
        builder_name: For the card.
        scaling: From raw frames to the model's input.
        recipe: How to train.
        seed: Of everything random.
        target_ratio: Share of frames to keep.
        margin: How much worse than the deployed model it may be, as a share of frames.
        force: Return it even when it is worse; the card says so.
        checkpoints: Folder to go on from after a stop.
        store: What the card says about the store.
        on_progress: Of the training.

    Raises:
        VerifyError: The core does not compute what tflite-micro does, or the model is worse than
            the deployed one by more than the margin.
        DataError: Held-out frames are among those trained on, or the sets do not fit.
        ModelError: The deployed model is unusable or of other classes.
        MissingDependencyError: TensorFlow or the compiled core is not installed.
    """
    from drip.calibrate import calibrate
    from drip.compile import compile_model
    from drip.convert import convert
    from drip.core import Model
    from drip.train import predict

    deployed = Model(base)
    if deployed.classes != parts.fit.classes:
        raise ModelError(
            f"the deployed model knows {', '.join(deployed.classes)}",
            "use the model that was trained on the classes of this project",
        )
    labelled = kept.take(np.flatnonzero(kept.y >= 0))
    data = Dataset.concat(parts.fit, labelled)
    _check_unseen(parts, data)
    trained = retrain_pruned(
        data,
        builder=builder,
        scaling=scaling,
        seed=seed,
        recipe=recipe,
        checkpoints=checkpoints,
        on_progress=on_progress,
    )
    parent = deployed.model_id.hex()
    origin = {"data_digest": data.digest(), "seed": seed, "recipe": dataclasses.asdict(recipe)}
    tflite = convert(trained.model, data.x, scaling=scaling, classes=data.classes, metadata=origin)
    checked = _verify(tflite, parts.test.x[:50], seed)
    compiled = compile_model(
        tflite,
        source_name=builder_name,
        training_hashes=sample_hashes(data.x),
        parent=parent,
    )
    calibrated = calibrate(compiled, parts.calibration, target_ratio=target_ratio)
    answers = predict(trained.model, parts.test.x, scaling).argmax(axis=1).astype(np.int64)
    comparison = compare(base, calibrated.blob, answers, parts.test, margin)
    card = {
        "card": CARD_VERSION,
        "model_id": Model(calibrated.blob).model_id.hex(),
        "parent": parent,
        "tflite_sha256": hashlib.sha256(tflite).hexdigest(),
        "data": _data_facts(parts, labelled, data) | ({"store": store} if store else {}),
        "training": {
            "builder": builder_name,
            "seed": seed,
            "recipe": dataclasses.asdict(recipe),
            "cost": trained.history["cost"][0],
            "scaling": scaling.to_json(),
        },
        "bit_exact": checked,
        "calibration": {
            "target_ratio": target_ratio,
            "kept": {s.kind.name.lower(): s.ratio for s in calibrated.scores},
        },
        "measured": dataclasses.asdict(comparison)
        | {"gain": comparison.gain, "balanced_gain": comparison.balanced_gain},
        "acceptable": comparison.acceptable,
        "forced": force and not comparison.acceptable,
        "versions": _versions(),
    }
    if not comparison.acceptable and not force:
        raise VerifyError(
            f"the new model is worse than the deployed one: accuracy {100 * comparison.gain:+.1f},"
            f" balanced {100 * comparison.balanced_gain:+.1f} points on"
            f" {comparison.candidate.n} frames (margin {100 * margin:.1f})",
            "label more frames, train for more steps, or pass --force to get it all the same",
        )
    resumed_at = int(trained.history["resumed_at"][0])
    return Improved(calibrated.blob, tflite, calibrated, comparison, card, resumed_at)


def improve_on_ray(
    base: bytes, parts: Splits, kept: Dataset, *, builder_name: str, **options: Any
) -> Improved:
    """Do the same on a worker of a Ray cluster; see :mod:`drip.on_ray` for what else it raises.

    Args:
        base: As of :func:`improve`, like all that follow.
        parts: Where the frames come from.
        kept: Frames from the store.
        builder_name: Name of a recipe, or ``my.py:function`` where the workers see that file.
        **options: As of :func:`improve`; ``checkpoints`` is a folder of the worker, and there is no
            ``on_progress``.
    """
    from drip.on_ray import call

    return call(_improve_named, base, parts, kept, builder_name=builder_name, **options)


def _improve_named(base: bytes, parts: Splits, kept: Dataset, **options: Any) -> Improved:
    builder = load_builder(options["builder_name"])
    return improve(base, parts, kept, builder=builder, **options)


def _check_unseen(parts: Splits, data: Dataset) -> None:
    for name, part in (("held-out", parts.test), ("calibration", parts.calibration)):
        shared = count_shared_samples(part.x, data.x)
        if shared:
            raise DataError(
                f"{shared} {name} frames are also trained on",
                "label them reject in the store, or keep the data of the project out of it",
            )


def _verify(tflite: bytes, real: NDArray[Any], seed: int) -> str:
    """What was compared bit for bit, or why nothing was."""
    from drip.verify import verify

    try:
        report = verify(tflite, inputs=_VERIFY_INPUTS, seed=seed, real=real)
    except MissingDependencyError as error:
        return f"not verified: {error.message}"
    if report.mismatches:
        raise VerifyError(
            f"{report.mismatches} of {report.compared} bytes differ from tflite-micro",
            "report this defect with the data and the seed",
        )
    return f"{report.inputs} inputs, {report.compared} bytes equal to tflite-micro's"


def _data_facts(parts: Splits, kept: Dataset, data: Dataset) -> dict[str, Any]:
    return {
        "digest": data.digest(),
        "frames": len(data),
        "seed_digest": parts.fit.digest(),
        "kept_digest": kept.digest(),
        "kept": len(kept),
        "per_class": {name: int((data.y == c).sum()) for c, name in enumerate(data.classes)},
        "held_out_digest": parts.test.digest(),
        "calibration_digest": parts.calibration.digest(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"drip": __version__}
    for name in ("tensorflow-cpu", "tensorflow", "keras", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
