"""Which frames each policy keeps: the C core's own decisions, and the host's references.

Device policies run through ``drip_device_step`` on the compiled int8 model, frame by frame in order
of arrival, calibrated on the view's calibration part. Nothing here trains.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.bench.select_data import View
from drip.bench.select_plan import Plan, Policy
from drip.data import InputScaling
from drip.errors import DataError

# Card space that a frame takes beside its bytes, at most.
_RECORD_BYTES = 512
_CARD_EXTRA = 4 << 20

Decisions = dict[str, NDArray[Any]]
"""Per device policy ``NAME/keep`` (bool ``[N]``); ``class_1`` (uint8 ``[N]``), ``digest``."""


def make_blob(
    weights: list[NDArray[np.float32]],
    fit: NDArray[Any],
    classes: tuple[str, ...],
    scaling: InputScaling,
) -> bytes:
    """Quantise and compile a trained network; needs TensorFlow.

    Args:
        weights: Keras's list.
        fit: Raw frames that it was trained on, for the quantisation ranges.
        classes: Class names.
        scaling: From raw frames to its input.
    """
    from drip.bench.select_net import select_net
    from drip.compile import compile_model
    from drip.convert import convert
    from drip.models.backend import keras

    keras().utils.clear_session()
    model = select_net(tuple(fit.shape[1:]), len(classes))
    model.set_weights(weights)
    return compile_model(convert(model, fit, scaling=scaling, classes=classes))


def decide(
    blob: bytes, view: View, policies: tuple[Policy, ...], keep: float, *, outputs: bool = False
) -> Decisions:
    """Run a view's stream through one device per policy.

    Args:
        blob: The first model, not calibrated.
        view: Its calibration part calibrates, its stream is decided on.
        policies: Of kind device.
        keep: Share to keep.
        outputs: Add ``logits`` and pooled ``features``, which the host's references need.
    """
    from drip.calibrate import calibrate
    from drip.simulate import Device

    ready = calibrate(blob, view.calibration, target_ratio=keep, force=True).blob
    frame_bytes = int(np.prod(view.stream.frame_shape)) * view.stream.x.dtype.itemsize
    card = _CARD_EXTRA + len(view.stream) * (frame_bytes + _RECORD_BYTES)
    decisions: Decisions = {}
    for policy in policies:
        pace_s = _pace_s(ready, card, keep) if "@pace" in policy.settings.values() else 0
        device = Device(ready, card_bytes=card, settings=policy.resolve(keep, pace_s))
        results = device.run(view.stream.x)
        decisions[f"{policy.name}/keep"] = np.array([r.keep for r in results], bool)
        decisions[f"{policy.name}/reason"] = np.array([r.reason for r in results], np.uint8)
        decisions["class_1"] = np.array([r.class_1 for r in results], np.uint8)
    digest = hashlib.sha256(view.stream.digest().encode()).digest()[:8]
    decisions["digest"] = np.frombuffer(digest, np.uint8)
    if outputs:
        logits, features = _outputs(blob, view.stream.x)
        decisions["logits"] = logits.astype(np.float32)
        decisions["features"] = features.astype(np.float32)
    return decisions


def _pace_s(blob: bytes, card_bytes: int, keep: float) -> int:
    """Seconds in which a simulated card gets full when a share of the frames is kept."""
    from drip.simulate import Device

    device = Device(blob, card_bytes=card_bytes)
    model = device.model
    frame_bytes = int(np.prod(model.frame_shape)) * model.frame_dtype.itemsize
    record = wire.RecordHeader.SIZE + -(-frame_bytes // wire.RECORD_ALIGN) * wire.RECORD_ALIGN
    return round(device.status().log_capacity / (keep * record) * device.period_us / 1e6)


def choose(
    policy: Policy,
    plan: Plan,
    decisions: Decisions,
    view: View,
    keep: float,
    seed: int,
) -> NDArray[np.bool_]:
    """The frames that a policy keeps, bool ``[len(view.stream)]``.

    Args:
        policy: Any.
        plan: Says what it is matched to.
        decisions: Of the device policies.
        view: Whose stream.
        keep: Share to keep.
        seed: Of random draws.

    Raises:
        DataError: The decisions belong to another stream.
    """
    count = len(view.stream)
    if policy.kind == "full":
        return np.ones(count, bool)
    if policy.kind == "seed":
        return np.zeros(count, bool)
    if policy.kind == "device":
        return np.asarray(decisions[f"{policy.name}/keep"], bool)
    if len(decisions["class_1"]) != count:
        raise DataError("the decisions belong to another stream", "delete them and decide again")
    reference = np.asarray(decisions[f"{plan.matched(policy)}/keep"], bool)
    rng = np.random.default_rng((seed, int(1000 * keep), 99))
    if policy.kind == "random":
        return _mask(rng.permutation(count)[: reference.sum()], count)
    if policy.kind == "class_random":
        predicted = decisions["class_1"]
        chosen = [
            rng.permutation(np.flatnonzero(predicted == c))[: reference[predicted == c].sum()]
            for c in np.unique(predicted)
        ]
        return _mask(np.concatenate(chosen), count)
    features = decisions["features"].astype(np.float64)
    if policy.kind == "el2n":
        error = el2n(decisions["logits"].astype(np.float64), view.labels)
        return _mask(np.argsort(-error, kind="stable")[: reference.sum()], count)
    if policy.kind == "herding":
        return _mask(herding(features, decisions["class_1"], reference), count)
    return _mask(k_center(features, int(reference.sum())), count)


def el2n(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Error norm of the probabilities: Paul et al., arXiv:2107.07075; needs true labels."""
    exp = np.exp(logits - logits.max(1, keepdims=True))
    p = exp / exp.sum(1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return np.asarray(np.sqrt((p**2).sum(1)))


def herding(
    features: NDArray[np.float64], predicted: NDArray[Any], reference: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Frames whose running mean follows the class mean: Welling, ICML 2009; per predicted class."""
    chosen: list[int] = []
    for c in np.unique(predicted):
        at = np.flatnonzero(predicted == c)
        f = features[at] / np.maximum(np.linalg.norm(features[at], axis=1, keepdims=True), 1e-9)
        mean, total = f.mean(0), np.zeros(f.shape[1])
        free = np.ones(len(at), bool)
        for n in range(int(reference[at].sum())):
            score = f @ (mean * (n + 1) - total)
            score[~free] = -math.inf
            best = int(np.argmax(score))
            free[best] = False
            total += f[best]
            chosen.append(int(at[best]))
    return np.array(chosen, np.int64)


def k_center(features: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Greedy k-center: Sener and Savarese, arXiv:1708.00489."""
    from sklearn.metrics import pairwise_distances_argmin_min

    mean = features.mean(0, keepdims=True)
    first, _ = pairwise_distances_argmin_min(mean, features)
    chosen = [int(first[0])]
    square = (features**2).sum(1)
    nearest = np.full(len(features), math.inf)
    while len(chosen) < count:
        last = features[chosen[-1]]
        nearest = np.minimum(nearest, square - 2 * features @ last + last @ last)
        nearest[chosen[-1]] = -math.inf
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen[:count], np.int64)


def _outputs(blob: bytes, x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Real logits and pooled features of the compiled model."""
    from drip.core import Model

    model = Model(blob)
    logits, features = model.run(x)
    assert features is not None
    scale = _logit_scale(model)
    return logits.astype(np.float64) * scale, features.mean((1, 2)).astype(np.float64)


def _logit_scale(model: Any) -> float:
    from drip.compile.blob import unpack_blob
    from drip.wire import BlobTensor, Section

    tensors = unpack_blob(model.blob).find(Section.TENSORS)
    assert tensors is not None
    at = int(model.header.logits_tensor) * BlobTensor.SIZE
    return float(BlobTensor.unpack(tensors.content, at).scale)


def _mask(chosen: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[chosen] = True
    return mask


def save_decisions(path: Path, decisions: Decisions) -> None:
    """Write decisions; the file is whole or absent."""
    from drip.data.files import write_atomic

    write_atomic(path, lambda file: np.savez_compressed(file, **decisions))  # type: ignore[arg-type]


def load_decisions(path: Path) -> Decisions:
    """Read what :func:`save_decisions` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
