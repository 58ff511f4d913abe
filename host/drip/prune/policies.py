"""Which samples are trained on in which epoch, decided from losses and a seed alone.

A pruner is asked once per epoch. Every random draw comes from a generator made of the seed, the
epoch and a name, never from one that carries state: an epoch's choice depends only on what was
observed before it, so that a resumed training chooses as an uninterrupted one.

``prune`` is the share left out: ``K = round((1 - prune) N)`` samples, at least one, are trained on
per epoch. Ties go to the smaller index.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.errors import UsageError
from drip.prune.scores import LossMemory

__all__ = [
    "DYNAMIC", "METHODS", "Cost", "EpsilonGreedy", "Full", "InfoBatch", "Pruner", "Rs2",
    "Selection", "Static", "Ucb", "Uniform", "make_pruner", "planned_cost", "top",
]  # fmt: skip

Indices = NDArray[np.int64]
FORWARD_SHARE = 1 / 3
"""Cost of a forward pass; forward and backward together cost 1, backward being twice forward."""


@dataclass(frozen=True)
class Selection:
    """What an epoch trains on.

    Attributes:
        indices: ``[K]``, in the order of training, each at most once.
        weights: float32 ``[K]``, factor of each sample's loss.
    """

    indices: Indices
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """What a training has taken, in samples.

    Attributes:
        trained: Samples that went forward and backward.
        scored: Samples that went forward only, to be scored.
    """

    trained: float = 0.0
    scored: float = 0.0

    @property
    def total(self) -> float:
        """In samples trained: ``trained + scored / 3``."""
        return self.trained + self.scored * FORWARD_SHARE

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.trained + other.trained, self.scored + other.scored)


class Pruner:
    """Base of all methods: every sample in every epoch, in a new order each.

    Attributes:
        n: Number of samples.
        epochs: Epochs of the whole training.
        seed: Of every draw.
        wants_visits: Whether :meth:`observe_visited` must be called after every epoch.
    """

    wants_visits = False

    def __init__(self, n: int, epochs: int, seed: int) -> None:
        if n < 1 or epochs < 1:
            raise UsageError(f"{epochs} epochs of {n} samples", "both must be at least 1")
        self.n, self.epochs, self.seed = n, epochs, seed

    def wants_losses(self, epoch: int) -> bool:
        """Whether :meth:`observe_all` must be called before ``epoch`` is selected."""
        return False

    def observe_all(self, losses: NDArray[np.floating]) -> None:
        """Take in every sample's present loss ``[n]``."""

    def observe_visited(self, indices: Indices, losses: NDArray[np.floating]) -> None:
        """Take in losses ``[K]`` at the visit in the epoch that has ended."""

    def select(self, epoch: int) -> Selection:
        """What ``epoch`` trains on."""
        chosen = self._choose(epoch)
        order = self._rng("order", epoch).permutation(len(chosen))
        return Selection(chosen[order], np.ones(len(chosen), np.float32))

    def expected(self, epoch: int) -> float:
        """How many samples ``epoch`` trains on; an estimate where chance decides."""
        return float(self.n)

    def state(self) -> dict[str, NDArray[Any]]:
        """What :meth:`restore` needs to go on after an epoch."""
        return {}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from :meth:`state` of a pruner that was made in the same way."""

    def _choose(self, epoch: int) -> Indices:
        return np.arange(self.n, dtype=np.int64)

    def _rng(self, purpose: str, number: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, zlib.crc32(purpose.encode()), number))


class Full(Pruner):
    """No pruning. With fewer epochs it is the baseline that every method has to beat."""


class _Periodic(Pruner):
    """Chooses anew every ``period`` epochs; the first period is full."""

    def __init__(self, n: int, epochs: int, seed: int, *, prune: float, period: int) -> None:
        super().__init__(n, epochs, seed)
        self.keep = keep_count(n, prune)
        if period < 1:
            raise UsageError(f"a period of {period} epochs", "make it at least 1")
        self.period = period
        self._chosen = np.arange(n, dtype=np.int64)

    def expected(self, epoch: int) -> float:
        return float(self.n if epoch < self.period else self.keep)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"chosen": self._chosen}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        self._chosen = state["chosen"].astype(np.int64)

    def _begins(self, epoch: int) -> bool:
        return epoch >= self.period and epoch % self.period == 0

    def _choose(self, epoch: int) -> Indices:
        if self._begins(epoch):
            self._chosen = self._pick(epoch)
        return self._chosen

    def _pick(self, epoch: int) -> Indices:
        raise NotImplementedError


class Uniform(_Periodic):
    """``K`` fresh samples per period, drawn uniformly without replacement; arXiv:2111.12621."""

    def _pick(self, epoch: int) -> Indices:
        return np.sort(self._rng("uniform", epoch).choice(self.n, self.keep, replace=False))


class _Scored(_Periodic):
    """Remembers losses: of a pass over everything before each choice, or of visits alone.

    Its subclasses take these settings too.

    Args:
        prune, period: As everywhere: the share left out, epochs from one choice to the next.
        a: Of the running mean, see :class:`drip.prune.scores.LossMemory`.
        refresh: True: one inference pass over all samples before each choice; what it costs is
            counted. False: the losses of training batches, which are stale for pruned samples.
    """

    def __init__(
        self,
        n: int,
        epochs: int,
        seed: int,
        *,
        prune: float,
        period: int,
        a: float,
        refresh: bool = True,
    ) -> None:
        super().__init__(n, epochs, seed, prune=prune, period=period)
        _check_share("a", a, least_is_open=True)
        self.refresh, self.wants_visits = refresh, not refresh
        self.memory = LossMemory(n, a)

    def wants_losses(self, epoch: int) -> bool:
        return self.refresh and self._begins(epoch)

    def observe_all(self, losses: NDArray[np.floating]) -> None:
        self.memory.update(np.arange(self.n), losses)

    def observe_visited(self, indices: Indices, losses: NDArray[np.floating]) -> None:
        if not self.refresh:
            self.memory.update(indices, losses)

    def state(self) -> dict[str, NDArray[Any]]:
        return super().state() | {"m": self.memory.m, "v": self.memory.v}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        super().restore(state)
        self.memory.m, self.memory.v = state["m"].copy(), state["v"].copy()


class EpsilonGreedy(_Scored):
    """Mostly the hardest samples, some at random.

    ``(1 - eps) K`` samples (rounded) with the highest running mean loss ``m``, and the rest of the
    ``K`` uniformly without replacement from all others. arXiv:2111.12621, reconstructed from
    secondary sources; ``m`` as in :class:`drip.prune.scores.LossMemory`.
    """

    def __init__(self, n: int, epochs: int, seed: int, *, eps: float, **scored: Any) -> None:
        super().__init__(n, epochs, seed, **scored)
        _check_share("eps", eps)
        self.eps = eps

    def _pick(self, epoch: int) -> Indices:
        hardest = top(self.memory.m, round((1 - self.eps) * self.keep))
        others = np.setdiff1d(np.arange(self.n), hardest)
        drawn = self._rng("eps", epoch).choice(others, self.keep - len(hardest), replace=False)
        return np.sort(np.concatenate([hardest, drawn]))


class Ucb(_Scored):
    """The ``K`` samples with the highest ``m + c v``; arXiv:2111.12621, secondary sources.

    ``m`` and ``v`` as in :class:`drip.prune.scores.LossMemory`. ``v`` is a variance: ``c`` has the
    unit 1/nat.
    """

    def __init__(self, n: int, epochs: int, seed: int, *, c: float, **scored: Any) -> None:
        super().__init__(n, epochs, seed, **scored)
        self.c = c

    def _pick(self, epoch: int) -> Indices:
        return np.sort(top(self.memory.m + self.c * self.memory.v, self.keep))


class InfoBatch(Pruner):
    """Drops easy samples by chance and makes up for them by weight.

    With ``H_i`` the loss of sample ``i`` at its last visit and ``H`` the mean over all samples:
    samples with ``H_i < H`` are left out with probability ``r``; those of them that stay have their
    loss multiplied by ``1 / (1 - r)``, which keeps the gradient's expectation; all others weigh 1.
    Epoch 0 is full, because all scores tie there, and so are the epochs from
    ``floor(delta * epochs)`` on; both unweighted. Qin et al., InfoBatch, arXiv:2303.04947; that
    pruning begins with epoch 1 follows issue 25 of the authors' repository.

    How much it saves is not set but found: at most ``r`` times the share of easy samples.
    """

    wants_visits = True
    # Losses are skewed: most samples lie below their mean. Used for estimates only.
    _EASY_SHARE = 0.65

    def __init__(
        self, n: int, epochs: int, seed: int, *, r: float = 0.5, delta: float = 0.875
    ) -> None:
        super().__init__(n, epochs, seed)
        if not 0 <= r < 1:
            raise UsageError(f"r is {r:g}", "make it at least 0 and below 1")
        _check_share("delta", delta)
        self.r, self.full_from = r, int(delta * epochs)
        self.last = np.ones(n)

    def observe_visited(self, indices: Indices, losses: NDArray[np.floating]) -> None:
        self.last[indices] = losses

    def select(self, epoch: int) -> Selection:
        if not self._prunes(epoch):
            return super().select(epoch)
        easy = self.last < self.last.mean()
        stays = ~easy | (self._rng("infobatch", epoch).random(self.n) >= self.r)
        weights = np.where(easy, 1 / (1 - self.r), 1.0).astype(np.float32)
        chosen = np.flatnonzero(stays)
        order = self._rng("order", epoch).permutation(len(chosen))
        return Selection(chosen[order], weights[chosen[order]])

    def expected(self, epoch: int) -> float:
        return self.n * (1 - self.r * self._EASY_SHARE if self._prunes(epoch) else 1.0)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"last": self.last}

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        self.last = state["last"].astype(np.float64)

    def _prunes(self, epoch: int) -> bool:
        return 1 <= epoch < self.full_from


class Rs2(Pruner):
    """Repeated sampling of random subsets, without replacement until all were seen.

    A random order of all samples is cut into ``floor(N / K)`` pieces of ``K``, one per epoch; when
    they are used up, a new order is drawn. Okanovic et al., Repeated Random Sampling for Minimizing
    the Time-to-Accuracy of Learning, arXiv:2305.18424 (RS2 without replacement).
    """

    def __init__(self, n: int, epochs: int, seed: int, *, prune: float) -> None:
        super().__init__(n, epochs, seed)
        self.keep = keep_count(n, prune)

    def expected(self, epoch: int) -> float:
        return float(self.keep)

    def _choose(self, epoch: int) -> Indices:
        order, piece = divmod(epoch, self.n // self.keep)
        shuffled = self._rng("rs2", order).permutation(self.n)
        return np.asarray(shuffled[piece * self.keep : (piece + 1) * self.keep], np.int64)


class Static(Pruner):
    """One choice before training, kept to the end: the ``K`` samples with the highest scores.

    Args:
        scores: ``[n]`` from :mod:`drip.prune.scores`; None: ``K`` samples drawn uniformly. What the
            scores cost is the caller's to count.
    """

    def __init__(
        self,
        n: int,
        epochs: int,
        seed: int,
        *,
        prune: float,
        scores: NDArray[np.floating] | None = None,
    ) -> None:
        super().__init__(n, epochs, seed)
        self.keep = keep_count(n, prune)
        if scores is None:
            scores = self._rng("static", 0).random(n)
        if scores.shape != (n,):
            raise UsageError(f"{scores.shape} scores for {n} samples", "give one per sample")
        self._kept = np.sort(top(scores, self.keep))

    def expected(self, epoch: int) -> float:
        return float(self.keep)

    def _choose(self, epoch: int) -> Indices:
        return self._kept


METHODS: dict[str, type[Pruner]] = {
    "full": Full,
    "uniform": Uniform,
    "eps-greedy": EpsilonGreedy,
    "ucb": Ucb,
    "infobatch": InfoBatch,
    "rs2": Rs2,
    "static": Static,
}
DYNAMIC = ("uniform", "eps-greedy", "ucb", "infobatch", "rs2")


def make_pruner(method: str, n: int, epochs: int, seed: int, **settings: Any) -> Pruner:
    """Make a pruner by name.

    Args:
        method: A key of :data:`METHODS`.
        n: Number of samples.
        epochs: Epochs of the whole training.
        seed: Of every draw.
        **settings: What the class takes besides.

    Raises:
        UsageError: No such method, or settings that it does not take or that make no sense.
    """
    if method not in METHODS:
        raise UsageError(f"no pruning method {method}", f"use one of {', '.join(METHODS)}")
    try:
        return METHODS[method](n, epochs, seed, **settings)
    except TypeError as error:
        raise UsageError(f"{method}: {error}", "see the class in drip.prune.policies") from error


def planned_cost(pruner: Pruner) -> Cost:
    """What a whole training is expected to take; exact but for InfoBatch."""
    epochs = range(pruner.epochs)
    passes = sum(pruner.wants_losses(epoch) for epoch in epochs)
    return Cost(sum(pruner.expected(epoch) for epoch in epochs), float(passes * pruner.n))


def top(scores: NDArray[np.floating], count: int) -> Indices:
    """The ``count`` largest, largest first; of equal ones the one with the smaller index."""
    return np.argsort(-np.asarray(scores), kind="stable")[:count].astype(np.int64)


def keep_count(n: int, prune: float) -> int:
    """``K = round((1 - prune) n)``, at least 1.

    Raises:
        UsageError: ``prune`` is not a share.
    """
    if not 0 <= prune < 1:
        raise UsageError(f"prune is {prune:g}", "make it at least 0 and below 1")
    return max(1, round((1 - prune) * n))


def _check_share(name: str, value: float, *, least_is_open: bool = False) -> None:
    if not 0 <= value <= 1 or (least_is_open and value == 0):
        raise UsageError(f"{name} is {value:g}", "make it a share, 0 to 1")
