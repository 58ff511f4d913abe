"""Paired differences between policies, with bootstrap bounds, and Holm's correction.

A difference is taken frame by frame between networks of the same seed, so that what makes a seed or
a frame hard is common to both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_DRAWS_AT_ONCE = 200
_LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """How much better A is than B, in shares of frames.

    Attributes:
        mean: Of accuracy, over seeds.
        low, high: One-sided 95 % bounds.
        seeds: Number of pairs.
        p_inferior: Share of bootstrap draws in which A is worse than B by the margin or more.
        p_worse: Share of draws in which A is not better than B.
    """

    mean: float
    low: float
    high: float
    seeds: int
    p_inferior: float
    p_worse: float


def paired(
    a: Sequence[NDArray[np.bool_]],
    b: Sequence[NDArray[np.bool_]],
    *,
    margin: float,
    groups: Sequence[NDArray[np.int64] | None] | None = None,
    shared: bool = False,
    seed: int = 0,
) -> Difference:
    """Compare hits of A and B, one array per seed; array n of both is about the same frames.

    Seeds and frames are drawn with replacement (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993); frames of one group are drawn together. Where all seeds were measured on the
    same frames, one draw of frames serves all seeds: more seeds do not make a test set larger.

    Args:
        a: Hits of A, bool ``[n]`` each.
        b: Hits of B.
        margin: Of non-inferiority.
        groups: Group of each frame; None = every frame is one.
        shared: All seeds were measured on the same frames.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    sums: list[NDArray[np.float64]] = []
    counts: list[NDArray[np.int64]] = []
    for n, (x, y) in enumerate(zip(a, b, strict=True)):
        delta = x.astype(np.int64) - y.astype(np.int64)
        group = None if groups is None else groups[n]
        member = (
            np.arange(len(delta)) if group is None else np.unique(group, return_inverse=True)[1]
        )
        sums.append(np.asarray(np.bincount(member, delta), np.float64))
        counts.append(np.asarray(np.bincount(member), np.int64))
    if shared:
        draws = _resampled_together(np.stack(sums), counts[0], rng)
    else:
        draws = np.stack([_resampled(s, c, rng) for s, c in zip(sums, counts, strict=True)])
    picked = rng.integers(0, len(sums), (_DRAWS, len(sums)))
    means = draws[picked, np.arange(_DRAWS)[:, None]].mean(1)
    mean = float(np.mean([s.sum() / c.sum() for s, c in zip(sums, counts, strict=True)]))
    low, high = np.quantile(means, (_LEVEL, 1 - _LEVEL))
    return Difference(
        mean,
        float(low),
        float(high),
        len(sums),
        _share(means <= -margin),
        _share(means <= 0),
    )


def _resampled_together(
    totals: NDArray[np.float64], count: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Mean differences ``[seeds, draws]`` under common draws of the groups ``[groups]``."""
    size, parts = len(count), []
    for _ in range(0, _DRAWS, _DRAWS_AT_ONCE):
        picked = rng.integers(0, size, (_DRAWS_AT_ONCE, size))
        picked += size * np.arange(_DRAWS_AT_ONCE)[:, None]
        times = np.bincount(picked.ravel(), minlength=size * _DRAWS_AT_ONCE)
        weight = times.reshape(_DRAWS_AT_ONCE, size).astype(np.float64)
        parts.append((weight @ totals.T) / (weight @ count)[:, None])
    return np.asarray(np.concatenate(parts).T)


def _resampled(
    total: NDArray[np.float64], count: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Mean difference of `_DRAWS` resamples of the groups."""
    if count.max() == 1:
        # Only how many frames of each outcome are drawn matters.
        share = np.array([(total == v).mean() for v in (-1, 0, 1)])
        drawn = rng.multinomial(len(total), share, _DRAWS)
        return np.asarray((drawn[:, 2] - drawn[:, 0]) / len(total))
    picked = rng.integers(0, len(total), (_DRAWS, len(total)))
    return np.asarray(total[picked].sum(1) / count[picked].sum(1))


def _share(events: NDArray[np.bool_]) -> float:
    # A bootstrap of n draws cannot show a probability below 1 / (n + 1).
    return float((events.sum() + 1) / (len(events) + 1))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: Holm, Scandinavian Journal of Statistics 6, 1979."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for n, name in enumerate(sorted(p, key=lambda k: p[k])):
        highest = max(highest, min(1.0, (len(p) - n) * p[name]))
        adjusted[name] = highest
    return adjusted


def verdict(difference: Difference, p_adjusted: float, margin: float) -> str:
    """``non-inferior``, ``worse`` (the upper bound is below -margin), or ``inconclusive``."""
    if p_adjusted <= _LEVEL and difference.low > -margin:
        return "non-inferior"
    return "worse" if difference.high < -margin else "inconclusive"
