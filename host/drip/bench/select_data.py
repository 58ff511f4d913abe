"""Data of the selection benchmark: pools, disjoint splits, and the streams that a device meets.

A pool is one data set with its group keys. A view is what one seed makes of it: frames to fit on,
to calibrate on, to validate on, to test on, and a stream in order of arrival. Views are
deterministic: same pool, seed and protocol, same bytes.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.data import Dataset, InputScaling, split
from drip.data.dataset import read_arrays
from drip.errors import DataError

# Fixed before anything was tuned: bursts of a still scene.
BURST_MEAN = 8
BURST_SHIFT = 2
BURST_GAIN = 0.10
BURST_NOISE = 0.02
LABEL_NOISE = 0.10
SENSOR_NOISE = {"noise1": 0.05, "noise2": 0.10, "noise3": 0.20}

PROTOCOLS = ("iid", "bursty", "labelnoise", *SENSOR_NOISE, "prior", "sensor")


@dataclass(frozen=True)
class Recipe:
    """How a data set is read and cut; sizes are frames.

    Attributes:
        file: Its file below the data folder; empty = comes with scikit-learn.
        take: Frames of the training part that are used; 0 = all.
        fit, calibration, validation: Sizes; the rest is the stream.
        scale: Model units per raw unit.
        shift: Training augmentation: largest shift along each axis of a frame.
        flip: Training augmentation: mirror along the second axis.
        margin: Of non-inferiority to full data, share of frames.
        group: Key whose values are never spread over two parts.
    """

    file: str
    take: int
    fit: int
    calibration: int
    validation: int
    scale: float
    shift: tuple[int, int]
    flip: bool = False
    margin: float = 0.010
    group: str = ""


RECIPES = {
    "mnist": Recipe("mnist.npz", 12000, 1000, 1000, 1500, 1 / 255, (2, 2), margin=0.003),
    "cifar10": Recipe(
        "cifar10_full_jpegpack.npz", 20000, 2500, 1000, 2500, 1 / 255, (4, 4), flip=True
    ),
    "plants": Recipe(
        "plantvillage12_48px.npz", 0, 700, 500, 700, 1 / 255, (4, 4), flip=True, group="leaf_group"
    ),
    "speech": Recipe(
        "speech_commands_bed_cat_happy.npz", 0, 500, 400, 600, 1 / 255, (4, 0), group="speaker"
    ),
    "imu": Recipe(
        "phone_watch_har_imu50hz.npz", 0, 1100, 735, 1100, 1 / 1000, (4, 0), group="subject"
    ),
    "digits": Recipe("", 0, 200, 150, 300, 1 / 16, (1, 1)),
}


@dataclass(frozen=True, eq=False)
class Pool:
    """A data set as read.

    Attributes:
        name: Key of :data:`RECIPES`.
        train: Frames that are cut anew by every seed; groups where the data set has them.
        test: Frames that only a final measurement sees.
        order: int64 ``[len(train)]``, rank of a frame in its recording; None = unknown.
        device: int64 ``[len(train)]``, which sensor; None = one sensor.
    """

    name: str
    train: Dataset
    test: Dataset
    order: NDArray[np.int64] | None = None
    device: NDArray[np.int64] | None = None

    @property
    def recipe(self) -> Recipe:
        """How it is cut."""
        return RECIPES[self.name]

    @property
    def scaling(self) -> InputScaling:
        """From raw frames to the model's input."""
        return InputScaling(str(self.train.x.dtype), self.recipe.scale)

    def digest(self) -> str:
        """16 hex digits over all frames and labels."""
        both = self.train.digest() + self.test.digest()
        return hashlib.sha256(both.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class View:
    """What one seed and protocol make of a pool.

    Attributes:
        fit, calibration, validation, test: Parts without a common frame or group.
        stream: Frames in order of arrival with their true labels.
        labels: int64 ``[len(stream)]``, what an annotator says: wrong in places under label noise.
        item: int64 ``[len(stream)]``: equal for frames that are variants of one original.
        phase: int64 ``[len(stream)]``: before (0) and after (1) a drift.
    """

    fit: Dataset
    calibration: Dataset
    validation: Dataset
    test: Dataset
    stream: Dataset
    labels: NDArray[np.int64]
    item: NDArray[np.int64]
    phase: NDArray[np.int64]

    @property
    def duplicate_share(self) -> float:
        """Share of the stream that repeats an earlier original."""
        return 1 - len(np.unique(self.item)) / len(self.item)


def load_pool(name: str, folder: Path) -> Pool:
    """Read a data set of the benchmark.

    Args:
        name: Key of :data:`RECIPES`.
        folder: Where the files are.

    Raises:
        DataError: The name is unknown, or a file is missing or damaged.
    """
    if name not in RECIPES:
        raise DataError(f"no data set named {name}", f"use one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if not recipe.file:
        from drip.data import digits

        data = digits()
        order = np.random.default_rng(0).permutation(len(data))
        return Pool(name, data.take(order[:1450]), data.take(order[1450:]))
    path = folder / recipe.file
    arrays = read_arrays(path, "pass --data FOLDER")
    classes = tuple(str(c) for c in arrays["classes"])
    count = len(arrays["y_train"])
    rows = np.arange(count)
    if recipe.take:
        rows = np.sort(np.random.default_rng(0).permutation(count)[: recipe.take])
    train_x, test_x = _frames(arrays, "train", rows), _frames(arrays, "test", None)

    def group(part: str, at: NDArray[np.int64] | slice) -> NDArray[np.int64] | None:
        return arrays[f"{recipe.group}_{part}"].astype(np.int64)[at] if recipe.group else None

    train = Dataset(
        train_x, arrays["y_train"].astype(np.int64)[rows], classes, group("train", rows)
    )
    test = Dataset(test_x, arrays["y_test"].astype(np.int64), classes, group("test", slice(None)))
    device = arrays["device_train"].astype(np.int64)[rows] if "device_train" in arrays else None
    rank: NDArray[np.int64] | None = None
    if name == "imu":
        assert device is not None and train.group is not None
        rank = recording_order(train.x, train.group * 2 + device)
    elif name == "plants":
        assert train.group is not None
        rank = train.group
    return Pool(name, train, test, rank, device)


def _frames(arrays: dict[str, Any], part: str, rows: NDArray[np.int64] | None) -> NDArray[Any]:
    if "jpeg_header" not in arrays:
        x = arrays[f"x_{part}"]
        return np.ascontiguousarray(x if rows is None else x[rows])
    from PIL import Image

    head, data = arrays["jpeg_header"].tobytes(), arrays[f"{part}_data"].tobytes()
    at = arrays[f"{part}_offsets"]
    wanted = np.arange(len(at) - 1) if rows is None else rows
    return np.stack(
        [
            np.asarray(Image.open(io.BytesIO(head + data[at[i] : at[i + 1]] + b"\xff\xd9")))
            for i in wanted
        ]
    )


def recording_order(x: NDArray[np.int16], recording: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of half-overlapping windows ``[N, steps, channels]`` in their recordings.

    A window follows the one whose second half is its first half; chains are put end to end,
    recording by recording.

    Args:
        x: Windows with a hop of half their length.
        recording: int64 ``[N]``, which device and subject.
    """
    half = x.shape[1] // 2
    starts: dict[tuple[int, bytes], int] = {}
    for i in range(len(x)):
        starts.setdefault((int(recording[i]), x[i, :half].tobytes()), i)
    follower = np.full(len(x), -1)
    has_previous = np.zeros(len(x), bool)
    for i in range(len(x)):
        j = starts.get((int(recording[i]), x[i, half:].tobytes()), -1)
        if j >= 0 and j != i and not has_previous[j]:
            follower[i], has_previous[j] = j, True
    rank = np.full(len(x), -1, np.int64)
    place = 0
    # A cycle has no first window; such windows are taken up at the end.
    for first in [*np.flatnonzero(~has_previous), *range(len(x))]:
        at = int(first)
        while at >= 0 and rank[at] < 0:
            rank[at], place = place, place + 1
            at = int(follower[at])
    by_recording = np.lexsort((rank, recording))
    result = np.empty(len(x), np.int64)
    result[by_recording] = np.arange(len(x))
    return result


def make_view(pool: Pool, seed: int, protocol: str) -> View:
    """Cut a pool and order its stream.

    Args:
        pool: The data set.
        seed: Same seed, same parts for every protocol and policy.
        protocol: One of :data:`PROTOCOLS`.

    Raises:
        DataError: The protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"no protocol named {protocol}", f"use one of {', '.join(PROTOCOLS)}")
    parts = _cut(pool, seed)
    if protocol == "sensor" and pool.device is not None:
        # Calibrated where it was made, used elsewhere.
        own = parts["calibration"]
        parts["calibration"] = own[pool.device[own] == 0]
    fit, calibration, validation = (
        pool.train.take(parts[p]) for p in ("fit", "calibration", "validation")
    )
    rng = np.random.default_rng((seed, PROTOCOLS.index(protocol), 77))
    rows = rng.permutation(parts["stream"])
    test, phase = pool.test, np.zeros(len(rows), np.int64)
    item: NDArray[np.int64] = rows
    if protocol == "bursty" and pool.order is not None:
        rows = _by_recording(pool, rows, rng)
        item = rows
        stream = pool.train.take(rows)
        if pool.name == "plants":
            item = pool.order[rows]
    elif protocol == "bursty":
        stream, item = _bursts(pool, rows, rng)
        phase = np.zeros(len(item), np.int64)
    elif protocol == "prior":
        rows, phase = _prior_drift(pool.train.y, rows, len(pool.train.classes), rng)
        item, stream = rows, pool.train.take(rows)
    elif protocol == "sensor":
        rows, phase, changed = _sensor_drift(pool, rows)
        stream = pool.train.take(rows)
        item = rows
        if changed:
            x = stream.x.copy()
            x[phase == 1] = _change(x[phase == 1], 0.7, 0.05, span_of(pool), rng)
            stream = Dataset(x, stream.y, stream.classes, stream.group)
    else:
        stream = pool.train.take(rows)
    if protocol in SENSOR_NOISE:
        level = SENSOR_NOISE[protocol]
        span = span_of(pool)
        stream, validation, test = (_noisy(d, level, span, rng) for d in (stream, validation, test))
    labels = stream.y.copy()
    if protocol == "labelnoise":
        wrong = np.flatnonzero(rng.random(len(labels)) < LABEL_NOISE)
        step = rng.integers(1, len(stream.classes), len(wrong))
        labels[wrong] = (labels[wrong] + step) % len(stream.classes)
    return View(fit, calibration, validation, test, stream, labels, item, phase[: len(stream)])


def _cut(pool: Pool, seed: int) -> dict[str, NDArray[np.int64]]:
    """Rows of each part; the project's own splitter sees frames that carry their row number."""
    recipe, count = pool.recipe, len(pool.train)
    rows = np.stack([np.arange(count) >> 8, np.arange(count) & 255], axis=1).astype(np.uint8)
    numbered = Dataset(rows, pool.train.y, pool.train.classes, pool.train.group)
    rest = count - recipe.fit - recipe.calibration - recipe.validation
    parts = split(
        numbered,
        seed=seed,
        fit=recipe.fit,
        calibration=recipe.calibration,
        stream=rest,
        test=recipe.validation,
    )
    named = zip(
        ("fit", "calibration", "stream", "validation"),
        (parts.fit, parts.calibration, parts.stream, parts.test),
        strict=True,
    )
    return {name: (p.x[:, 0].astype(np.int64) << 8) | p.x[:, 1] for name, p in named}


def _by_recording(
    pool: Pool, rows: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Recordings in random order, each as it was recorded."""
    assert pool.order is not None and pool.train.group is not None
    block = pool.train.group if pool.device is None else pool.train.group * 2 + pool.device
    names = rng.permutation(np.unique(block[rows]))
    place = {int(name): n for n, name in enumerate(names)}
    outer = np.array([place[int(b)] for b in block[rows]])
    return rows[np.lexsort((pool.order[rows], outer))]


def span_of(pool: Pool) -> float:
    """What gain and noise are measured against: the range of pixels, or four deviations."""
    if pool.train.x.dtype == np.uint8:
        return 1 / pool.recipe.scale
    return 4 * float(np.std(pool.train.x, dtype=np.float64))


def _bursts(
    pool: Pool, rows: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Dataset, NDArray[np.int64]]:
    """As many frames as there are rows, in bursts of geometric length around few originals."""
    data, span = pool.train, span_of(pool)
    lengths = rng.geometric(1 / BURST_MEAN, len(rows))
    originals = int(np.searchsorted(np.cumsum(lengths), len(rows))) + 1
    item = np.repeat(rows[:originals], lengths[:originals])[: len(rows)]
    x = np.empty((len(item), *data.frame_shape), data.x.dtype)
    first = np.r_[True, item[1:] != item[:-1]]
    for n, at in enumerate(item):
        x[n] = data.x[at] if first[n] else _variant(data.x[at], span, rng)
    return Dataset(x, data.y[item], data.classes), item


def _variant(frame: NDArray[Any], span: float, rng: np.random.Generator) -> NDArray[Any]:
    shift = rng.integers(-BURST_SHIFT, BURST_SHIFT + 1, 2)
    # A spectrogram and a window of motion move along time only.
    axes = (0, 1) if frame.ndim == 3 and frame.shape[0] == frame.shape[1] else (0,)
    moved = frame
    for axis, by in zip(axes, shift, strict=False):
        at = np.clip(np.arange(frame.shape[axis]) - by, 0, frame.shape[axis] - 1)
        moved = np.take(moved, at, axis)
    gain = 1 + rng.uniform(-BURST_GAIN, BURST_GAIN)
    return _change(moved, gain, BURST_NOISE, span, rng)


def _change(
    x: NDArray[Any], gain: float, noise: float, span: float, rng: np.random.Generator
) -> NDArray[Any]:
    """Gain, then Gaussian noise as a share of the span."""
    limits = np.iinfo(x.dtype)
    changed = x.astype(np.float32) * gain
    changed += rng.standard_normal(x.shape, np.float32) * np.float32(noise * span)
    return np.asarray(np.clip(np.rint(changed), limits.min, limits.max), x.dtype)


def _noisy(data: Dataset, level: float, span: float, rng: np.random.Generator) -> Dataset:
    return Dataset(_change(data.x, 1.0, level, span, rng), data.y, data.classes, data.group)


def _prior_drift(
    y: NDArray[np.int64], rows: NDArray[np.int64], classes: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First half: four fifths from the lower classes; second half: the other way round."""
    low = y[rows] < (classes + 1) // 2
    late = np.where(low, 0.2, 0.8)
    phase = (rng.random(len(rows)) < late).astype(np.int64)
    order = np.argsort(phase, kind="stable")
    return rows[order], phase[order]


def _sensor_drift(
    pool: Pool, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """Another device takes over; without devices, the same one gets darker and noisier."""
    if pool.device is not None:
        order = np.argsort(pool.device[rows], kind="stable")
        return rows[order], pool.device[rows][order], False
    phase = (np.arange(len(rows)) >= len(rows) // 2).astype(np.int64)
    return rows, phase, True
