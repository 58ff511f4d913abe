"""Disjoint, stratified, repeatable parts of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drip.data.dataset import Dataset
from drip.errors import DataError

_PARTS = ("fit", "calibration", "stream", "test")


@dataclass(frozen=True)
class Splits:
    """The four parts of an experiment; no frame is in two of them.

    Attributes:
        fit: Trains the first model. Together with ``calibration`` this is the seed set.
        calibration: Seed frames the model has not seen; sets the threshold.
        stream: What the device will meet.
        test: Measures; nothing is tuned on it.
    """

    fit: Dataset
    calibration: Dataset
    stream: Dataset
    test: Dataset


def split(
    dataset: Dataset,
    *,
    seed: int,
    fit: float,
    calibration: float,
    stream: float,
    test: float,
) -> Splits:
    """Cut a data set into four parts with equal class shares.

    Args:
        dataset: What to cut.
        seed: Same seed, same parts.
        fit: Size of a part: an int is a number of frames, a float a fraction of the data set.
        calibration: As ``fit``.
        stream: As ``fit``.
        test: As ``fit``.

    Returns:
        The parts. Without groups sizes are exact and every class is within one frame of its
        share; with groups a group is never cut, so sizes are approximate.

    Raises:
        DataError: The sizes do not fit the data set, or a part would be empty.
    """
    sizes = [
        _size(name, want, len(dataset))
        for name, want in zip(_PARTS, (fit, calibration, stream, test), strict=True)
    ]
    if sum(sizes) > len(dataset):
        raise DataError(
            f"the parts need {sum(sizes)} frames, the data set has {len(dataset)}",
            "make fit, calibration, stream or test smaller",
        )
    rng = np.random.default_rng(seed)
    if dataset.group is None:
        order = _stratified_order(dataset.y, rng)
        parts = np.split(order, np.cumsum(sizes))[: len(_PARTS)]
    else:
        parts = _split_groups(dataset, sizes, rng)
    return Splits(*(dataset.take(rng.permutation(part)) for part in parts))


def _size(name: str, want: float, total: int) -> int:
    if isinstance(want, float) and not 0 < want < 1:
        raise DataError(
            f"{name} = {want} is not a fraction between 0 and 1",
            "write a number of frames as an integer",
        )
    size = int(want * total) if isinstance(want, float) else int(want)
    if size < 1:
        raise DataError(f"the part {name} would be empty", "ask for at least one frame")
    return size


def _stratified_order(y: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Shuffle so that every run of consecutive items holds each class in its share."""
    position = np.empty(len(y))
    for label in np.unique(y):
        at = rng.permutation(np.flatnonzero(y == label))
        # Spread a class evenly over 0..1 with one random phase; sorting then interleaves them.
        position[at] = (np.arange(len(at)) + rng.random()) / len(at)
    return np.argsort(position, kind="stable")


def _split_groups(
    dataset: Dataset, sizes: list[int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    assert dataset.group is not None
    groups, member = np.unique(dataset.group, return_inverse=True)
    if len(groups) < len(sizes):
        raise DataError(
            f"{len(groups)} groups cannot fill {len(sizes)} parts",
            "a group is never cut; use data with more groups, or without",
        )
    main_class = np.array([_most_common(dataset.y[member == g]) for g in range(len(groups))])
    want = np.array([*sizes, max(0, len(dataset) - sum(sizes))], np.float64)
    have = np.zeros_like(want)
    owner = np.empty(len(groups), np.int64)
    count = np.bincount(member)
    for g in _stratified_order(main_class, rng):
        missing = np.where(want > 0, 1 - have / np.maximum(want, 1), -np.inf)
        owner[g] = int(np.argmax(missing))
        have[owner[g]] += count[g]
    parts = [np.flatnonzero(owner[member] == p) for p in range(len(sizes))]
    for name, part in zip(_PARTS, parts, strict=True):
        if not len(part):
            raise DataError(f"the part {name} would be empty", "groups are too large for it")
    return parts


def _most_common(y: NDArray[np.int64]) -> int:
    labels, counts = np.unique(y, return_counts=True)
    return int(labels[np.argmax(counts)])
