"""What a sample's loss, error or gradient says about how much there is to learn from it.

Plain numpy, no framework: every function takes what a model answered and returns one number per
sample. Larger always means harder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["ForgetCounter", "LossMemory", "cross_entropy", "el2n", "grand_last_layer", "softmax"]

Floats = NDArray[np.float64]


def softmax(logits: NDArray[np.floating]) -> Floats:
    """Probabilities ``[N, C]`` from logits ``[N, C]``."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float64)


def cross_entropy(logits: NDArray[np.floating], y: NDArray[np.integer]) -> Floats:
    """Cross-entropy ``u_i = -log p_i[y_i]`` in nats, ``[N]``.

    Args:
        logits: ``[N, C]``.
        y: True classes ``[N]``.
    """
    z = np.asarray(logits, np.float64)
    top = z.max(axis=1)
    log_sum = top + np.log(np.exp(z - top[:, np.newaxis]).sum(axis=1))
    return np.asarray(log_sum - z[np.arange(len(z)), y], np.float64)


def el2n(probabilities: NDArray[np.floating], y: NDArray[np.integer]) -> Floats:
    """Length of the error vector ``||p_i - onehot(y_i)||_2``, ``[N]``.

    Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, arXiv:2107.07075; there averaged over
    several nets early in their training.

    Args:
        probabilities: ``[N, C]``.
        y: True classes ``[N]``.
    """
    error = np.array(probabilities, np.float64)
    error[np.arange(len(error)), y] -= 1.0
    return np.asarray(np.linalg.norm(error, axis=1), np.float64)


def grand_last_layer(
    features: NDArray[np.floating],
    probabilities: NDArray[np.floating],
    y: NDArray[np.integer],
) -> Floats:
    """Length of the loss gradient with respect to the last dense layer, ``[N]``.

    For logits ``W h + b`` and softmax cross-entropy the gradient is ``(p - onehot(y)) h^T`` for
    ``W`` and ``p - onehot(y)`` for ``b``, so its length is
    ``||p - onehot(y)||_2 sqrt(||h||_2^2 + 1)``. The GraNd score of arXiv:2107.07075 takes the
    gradient of all weights; the last layer alone needs no backward pass and is what the common
    library for coreset selection computes (DeepCore, arXiv:2204.08499).

    Args:
        features: Input ``h`` of the last dense layer, ``[N, F]``.
        probabilities: ``[N, C]``.
        y: True classes ``[N]``.
    """
    squared = np.square(np.asarray(features, np.float64)).sum(axis=1)
    return np.asarray(el2n(probabilities, y) * np.sqrt(squared + 1.0), np.float64)


@dataclass
class LossMemory:
    """Running mean and variance of every sample's loss.

    On a new loss ``u`` of a sample, in this order::

        v <- (1 - a) v + a (u - m)^2
        m <- (1 - a) m + a u

    Both start at 0. Raju, Daruwalla and Lipasti, Accelerating Deep Learning with Dynamic Data
    Pruning, arXiv:2111.12621; the equations, their order and the start at 0 are reconstructed from
    secondary sources.

    Attributes:
        n: Number of samples.
        a: Weight of a new loss, over 0 to 1; 1 forgets all before.
        m: Running mean ``[n]``.
        v: Running variance ``[n]``.
    """

    n: int
    a: float
    m: Floats = field(init=False)
    v: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.m, self.v = np.zeros(self.n), np.zeros(self.n)

    def update(self, indices: NDArray[np.integer], losses: NDArray[np.floating]) -> None:
        """Take in the losses ``[K]`` of the samples ``indices`` ``[K]``, each at most once."""
        u = np.asarray(losses, np.float64)
        m = self.m[indices]
        self.v[indices] = (1 - self.a) * self.v[indices] + self.a * np.square(u - m)
        self.m[indices] = (1 - self.a) * m + self.a * u


@dataclass
class ForgetCounter:
    """How often each sample went from right to wrong between two visits.

    Toneva et al., An Empirical Study of Example Forgetting, arXiv:1812.05159: a forgetting event of
    a sample is a visit at which it is wrong after a visit at which it was right. A sample that was
    never right counts as forgotten more often than all others.

    Attributes:
        n: Number of samples.
    """

    n: int
    _events: NDArray[np.int64] = field(init=False)
    _was_right: NDArray[np.bool_] = field(init=False)
    _ever_right: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._events = np.zeros(self.n, np.int64)
        self._was_right = np.zeros(self.n, bool)
        self._ever_right = np.zeros(self.n, bool)

    def update(self, indices: NDArray[np.integer], right: NDArray[np.bool_]) -> None:
        """Take in whether samples ``indices`` ``[K]``, each at most once, were right."""
        self._events[indices] += self._was_right[indices] & ~right
        self._was_right[indices] = right
        self._ever_right[indices] |= right

    def scores(self) -> Floats:
        """Events per sample ``[n]``; one more than the most for those that were never right."""
        most = int(self._events.max(initial=0)) + 1
        return np.where(self._ever_right, self._events, most).astype(np.float64)
