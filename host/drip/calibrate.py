"""Calibration: score quantiles and thresholds per predicted class, on frames held out of training.

A raw score means nothing by itself, and its range differs between classes: frames are compared with
held-out frames of the same predicted class. All scores come from the C core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.compile.blob import Blob, Part, pack_blob, unpack_blob
from drip.compile.build import SKETCH_BYTES, read_sketch
from drip.core import Model, Scores
from drip.data import Dataset, sample_hashes
from drip.errors import DataError, ModelError, UsageError
from drip.retrain import wilson
from drip.wire import BlobCalibration, CalibrationFlag, CamHead, ScoreKind, Section

# Below this, quantiles of a class say more about its few frames than about the class.
MIN_CLASS_SAMPLES = 20
# Share of distinct frames that the redundancy rule may take for duplicates.
FALSE_DUPLICATES = 0.01
THUMB_RING = 8  # DRIP_THUMB_RING of policy.h
_CAM_KINDS = (
    ScoreKind.CAM_EVIDENCE,
    ScoreKind.CAM_CONTRAST,
    ScoreKind.CAM_PAPER,
    ScoreKind.CAM_PAPER_LOW,
)


@dataclass(frozen=True)
class ClassCalibration:
    """How calibration came out for the frames predicted as one class.

    Attributes:
        name: Class name.
        samples: Calibration frames predicted as this class.
        pooled: The class has too few frames: quantiles of all classes are used.
        threshold: Percentile from which on a frame is kept, 0..65535.
        kept: Frames kept.
        ratio: ``kept / samples``, 0 without samples.
        ci95: 95 % interval of the share to expect (Wilson).
    """

    name: str
    samples: int
    pooled: bool
    threshold: int
    kept: int
    ratio: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class ScoreCalibration:
    """Calibration of one kind of score; figures over all classes as in ClassCalibration."""

    kind: ScoreKind
    samples: int
    kept: int
    ratio: float
    ci95: tuple[float, float]
    classes: tuple[ClassCalibration, ...]


@dataclass(frozen=True)
class CalibrationReport:
    """Result of :func:`calibrate`.

    Attributes:
        blob: The model with its calibration; another model id than before.
        target_ratio: Share of frames to keep that was asked for.
        scores: One per kind that the model supports.
        shared: Calibration frames that were in training (0 unless forced).
    """

    blob: bytes
    target_ratio: float
    scores: tuple[ScoreCalibration, ...]
    shared: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "target_ratio": self.target_ratio,
            "shared": self.shared,
            "scores": [
                dataclasses.asdict(score) | {"kind": score.kind.name.lower()}
                for score in self.scores
            ],
        }


def calibrate(
    blob: bytes,
    data: Dataset,
    *,
    target_ratio: float,
    training_hashes: Sequence[bytes] | None = None,
    force: bool = False,
    kinds: Sequence[ScoreKind] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> CalibrationReport:
    """Add calibration to a model, by default for every kind of score that it supports.

    Args:
        blob: A ``.drip`` model; an earlier calibration is replaced.
        data: Frames that the model was not trained on; labels are not used.
        target_ratio: Share of frames to keep, between 0 and 1.
        training_hashes: ``drip.data.sample_hashes`` of the training frames, to be refused; None
            uses what the blob recorded about its training.
        force: Calibrate even on training frames.
        kinds: Scores to calibrate; the first is the model's own, which boards use unless told.
        on_progress: Called with ``(frames done, frames)``.

    Raises:
        UsageError: ``target_ratio`` is out of range.
        DataError: The frames do not fit, are too few, or were in training.
        ModelError: The blob is unusable or has no classes.
        MissingDependencyError: The compiled core is not installed.
    """
    if not 0 < target_ratio < 1:
        raise UsageError(f"a share of {target_ratio} cannot be kept", "give one between 0 and 1")
    taken = unpack_blob(blob)
    classes = taken.classes()
    if not classes:
        raise ModelError("the model has no classes to calibrate", "calibrate a classifier")
    if len(data) < MIN_CLASS_SAMPLES:
        raise DataError(
            f"{len(data)} frames are too few to calibrate on", f"give at least {MIN_CLASS_SAMPLES}"
        )
    shared = _shared(taken, data, training_hashes)
    if shared and not force:
        raise DataError(
            f"{shared} of {len(data)} calibration frames were in training",
            "scores on training frames are misleading: hold frames out (--force overrides)",
        )
    kinds = _checked(kinds, supported_kinds(taken))
    model = Model(_without_calibration(taken))
    results = _score_all(model, data, kinds, on_progress)
    digest = bytes.fromhex(data.digest())[:8]
    redundancy = _redundancy(model, data)
    parts, reports = [], []
    for kind, scores in zip(kinds, results, strict=True):
        content, report = _calibrate_kind(
            kind, scores, classes, target_ratio, digest, model, redundancy
        )
        parts.append(Part(Section.CALIBRATION, content, len(classes), int(kind)))
        reports.append(report)
    return CalibrationReport(_with_parts(taken, parts), target_ratio, tuple(reports), shared)


def supported_kinds(blob: Blob) -> tuple[ScoreKind, ...]:
    """Kinds of score that a model can be asked for."""
    has_cam = blob.header.cam_head != CamHead.NONE
    return tuple(kind for kind in ScoreKind if has_cam or kind not in _CAM_KINDS)


def _checked(
    wanted: Sequence[ScoreKind] | None, supported: tuple[ScoreKind, ...]
) -> tuple[ScoreKind, ...]:
    if wanted is None:
        return supported
    chosen = tuple(dict.fromkeys(wanted))
    missing = [kind.name.lower() for kind in chosen if kind not in supported]
    if missing or not chosen:
        raise UsageError(
            f"the model has no {' or '.join(missing) or 'score'} to calibrate",
            "possible: " + ", ".join(kind.name.lower() for kind in supported),
        )
    return chosen


def ratio_for_budget(
    budget_bytes: int, *, seconds: float, frames_per_second: float, frame_bytes: int
) -> float:
    """The share of frames that fills a budget in a time.

    Args:
        budget_bytes: Room on the card.
        seconds: Time until it shall be full.
        frames_per_second: Frames that arrive.
        frame_bytes: A raw frame.

    Returns:
        At most 0.999: a rule that keeps everything needs no calibration.

    Raises:
        UsageError: A number is not above zero, or not one frame in a thousand fits.
    """
    if min(budget_bytes, seconds, frames_per_second, frame_bytes) <= 0:
        raise UsageError("budget, time and rate must be above zero", "for example 8G, 30 and 2.5")
    align = wire.RECORD_ALIGN
    record = wire.RecordHeader.SIZE + -(-frame_bytes // align) * align
    ratio = budget_bytes / (seconds * frames_per_second * record)
    if ratio < 0.001:
        raise UsageError(
            f"only {100 * ratio:.2g} % of the frames would fit", "give a larger budget"
        )
    return min(ratio, 0.999)


def _shared(blob: Blob, data: Dataset, training: Sequence[bytes] | None) -> int:
    """Frames that are known to have been in training."""
    known = {h[:SKETCH_BYTES] for h in training or ()}
    if training is None:
        record = blob.meta().get("training", {})
        known = read_sketch(record["sketch"]) if "sketch" in record else set()
    return sum(h[:SKETCH_BYTES] in known for h in sample_hashes(data.x))


def _score_all(
    model: Model,
    data: Dataset,
    kinds: tuple[ScoreKind, ...],
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Scores, ...]:
    batch = 256
    pieces = []
    for start in range(0, len(data), batch):
        pieces.append(model.score_kinds(data.x[start : start + batch], kinds))
        if on_progress is not None:
            on_progress(min(start + batch, len(data)), len(data))
    names = [field.name for field in dataclasses.fields(Scores)]
    return tuple(
        Scores(**{n: np.concatenate([getattr(p[k], n) for p in pieces]) for n in names})
        for k in range(len(kinds))
    )


def _calibrate_kind(
    kind: ScoreKind,
    scores: Scores,
    classes: tuple[str, ...],
    target: float,
    digest: bytes,
    model: Model,
    redundancy: int,
) -> tuple[bytes, ScoreCalibration]:
    place = np.zeros(len(scores.raw), np.int64)
    knots = np.zeros((len(classes), wire.KNOTS), np.int32)
    thresholds = np.zeros(len(classes), np.uint16)
    reports = []
    pooled_knots = _quantiles(kind, scores.raw)
    pooled_threshold = _threshold(_percentiles(model, pooled_knots, scores.raw), target)
    for c, name in enumerate(classes):
        raw = scores.raw[scores.class_1 == c]
        pooled = len(raw) < MIN_CLASS_SAMPLES
        knots[c] = pooled_knots if pooled else _quantiles(kind, raw)
        percentiles = _percentiles(model, knots[c], raw)
        place[scores.class_1 == c] = percentiles
        if kind == ScoreKind.RANDOM:
            # Its distribution is known; nothing is gained by measuring it.
            thresholds[c] = _default_threshold(target)
        else:
            thresholds[c] = pooled_threshold if pooled else _threshold(percentiles, target)
        kept = int((percentiles >= thresholds[c]).sum())
        reports.append(_class_report(name, len(raw), pooled, int(thresholds[c]), kept))
    kept, samples = sum(r.kept for r in reports), len(scores.raw)
    fixed = BlobCalibration(
        classes=len(classes),
        knots=wire.KNOTS,
        target_ratio=round(target * wire.PERCENTILE_ONE),
        flags=int(CalibrationFlag.SHARES),
        samples=samples,
        redundancy=redundancy,
        reserved=0,
        data_digest=digest,
    ).pack()
    content = fixed + knots.astype("<i4").tobytes() + thresholds.astype("<u2").tobytes()
    content += _shares(
        place * wire.HISTOGRAM_BINS // (wire.PERCENTILE_ONE + 1), wire.HISTOGRAM_BINS
    )
    content += _shares(scores.class_1, len(classes))
    return content, ScoreCalibration(
        kind, samples, kept, kept / samples, _interval(kept, samples), tuple(reports)
    )


def _shares(values: NDArray[Any], bins: int) -> bytes:
    """Share of each value 0..bins-1, x 65536, at most 65535."""
    counts = np.bincount(np.asarray(values, np.int64), minlength=bins)[:bins]
    shares = np.minimum(counts * 65536 // max(1, counts.sum()), 65535)
    return bytes(shares.astype("<u2").tobytes())


def _redundancy(model: Model, data: Dataset) -> int:
    """The distance below which frames count as near-duplicates; 0 = it cannot be told.

    Calibration frames in random order are no duplicates of each other: so far apart that one in
    hundred of them would be dropped, held against as many others as the device remembers.
    """
    thumbs = np.array([model.thumbnail(frame) for frame in data.x], np.int64)
    order = np.random.default_rng(0).permutation(len(thumbs))
    thumbs = thumbs[order]
    nearest = np.full(len(thumbs), np.inf)
    for back in range(1, min(THUMB_RING, len(thumbs) - 1) + 1):
        other = np.roll(thumbs, back, axis=0)
        apart = np.abs(thumbs - other).sum(axis=1) * 16 // thumbs.shape[1]
        nearest = np.minimum(nearest, apart)
    return int(min(np.quantile(nearest, FALSE_DUPLICATES), 65535))


def _class_report(
    name: str, samples: int, pooled: bool, threshold: int, kept: int
) -> ClassCalibration:
    ratio = kept / samples if samples else 0.0
    return ClassCalibration(name, samples, pooled, threshold, kept, ratio, _interval(kept, samples))


def _quantiles(kind: ScoreKind, raw: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ascending quantiles of raw scores, ``[KNOTS]``."""
    share = np.linspace(0, 1, wire.KNOTS)
    if kind == ScoreKind.RANDOM:
        return (share * ((1 << 31) - 1)).astype(np.int32)
    # Quantiles must be integers; rounding up keeps the order of equal ones.
    return np.asarray(np.ceil(np.quantile(raw.astype(np.float64), share)), np.int64).astype(
        np.int32
    )


def _percentiles(
    model: Model, knots: NDArray[np.int32], raw: NDArray[np.int32]
) -> NDArray[np.int64]:
    return np.array([model.percentile(knots, int(r)) for r in raw], np.int64)


def _default_threshold(target: float) -> int:
    return round(wire.PERCENTILE_ONE * (1 - target))


def _threshold(percentiles: NDArray[np.int64], target: float) -> int:
    """The percentile whose share of frames at or above it is closest to the target.

    Percentiles step where scores are equal, so 1 - target is only where the search starts. Between
    two frames the middle is taken, because the next frame lies on either side equally well.
    """
    start = _default_threshold(target)
    values = np.unique(percentiles)
    middles = (values[:-1] + values[1:] + 1) // 2
    candidates = np.concatenate([[start], values[:1], middles])
    share = np.array([(percentiles >= t).mean() for t in candidates])
    error = np.abs(share - target)
    best = np.lexsort((np.abs(candidates - start), error))[0]
    return int(candidates[best])


def _interval(hits: int, n: int) -> tuple[float, float]:
    return wilson(hits, n) if n else (0.0, 1.0)


def _without_calibration(blob: Blob) -> bytes:
    return _with_parts(blob, [])


def _with_parts(blob: Blob, calibration: list[Part]) -> bytes:
    """The blob with its calibration sections replaced."""
    kept = [part for part in blob.parts if part.kind != Section.CALIBRATION]
    at = next(
        (n for n, p in enumerate(kept) if p.kind in (Section.GOLDEN, Section.META)), len(kept)
    )
    return pack_blob(blob.header, (*kept[:at], *calibration, *kept[at:]))
