"""Why a frame was kept or not: its map, logits, score and the rule that decided, as a picture.

The figures of a frame from a file are those of the C core, run as a device runs it; those of a
record in a store are what its board wrote down, and the model adds map and logits.
"""

from __future__ import annotations

import dataclasses
import enum
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.data.files import write_atomic
from drip.errors import DataError, MissingDependencyError, UsageError, install_hint
from drip.wire import Config, Drop, PolicyKind, Reason, ScoreKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drip.core import Model
    from drip.store import StoreRecord

_WHY = {
    Reason.THRESHOLD: "its score reached the threshold of its class",
    Reason.RANDOM_SHARE: "drawn for the random share",
    Reason.SCHEDULE: "a fixed schedule keeps it",
    Reason.NO_MODEL: "nothing could score it",
    Reason.FLOOR: "the floor of its class asked for it",
    Reason.BURST: "new conditions: the threshold stood still, from the burst credit",
    Reason.PACED: "the card's budget set the target",
}
_WHY_NOT = {
    Drop.NONE: "",
    Drop.SCORE: "its score is outside what the threshold keeps",
    Drop.REDUNDANT: "too like a frame that was kept lately",
    Drop.SCHEDULE: "a fixed schedule drops it",
}


@dataclass(frozen=True)
class Explanation:
    """Everything that led to a decision.

    Attributes:
        frame: As captured.
        cam: Grad-CAM ``[h, w]`` of the predicted class in real units; None without a head.
        logits: int8, one per class.
        classes: Their names.
        class_1: Predicted class.
        score: Name of the score.
        raw: Its value.
        percentile: 0 to 1 among calibration frames of the class.
        threshold: What that was held against, 0 to 1; None where the record does not tell.
        keep: Whether the frame was kept.
        policy: Name of the policy.
        rule: Which rule decided, in words.
        same_model: The model given is the one that decided.
    """

    frame: NDArray[Any]
    cam: NDArray[np.float32] | None
    logits: NDArray[np.int8]
    classes: tuple[str, ...]
    class_1: int
    score: str
    raw: int
    percentile: float
    threshold: float | None
    keep: bool
    policy: str
    rule: str
    same_model: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``; the frame is left out."""
        return {
            "class": self.classes[self.class_1],
            "logits": dict(zip(self.classes, self.logits.tolist(), strict=True)),
            "score": self.score,
            "raw": self.raw,
            "percentile": round(self.percentile, 4),
            "threshold": None if self.threshold is None else round(self.threshold, 4),
            "keep": self.keep,
            "policy": self.policy,
            "rule": self.rule,
            "same_model": self.same_model,
            "cam": None if self.cam is None else self.cam.round(4).tolist(),
        }


def rule_of(reason: int, drop: int = 0) -> str:
    """The rules behind reason bits and a drop code, in words."""
    if reason:
        return "; ".join(text for bit, text in _WHY.items() if reason & bit)
    return _WHY_NOT[Drop(drop)] if drop in list(Drop) else f"drop code {drop}"


def explain_frame(
    blob: bytes, frame: NDArray[Any], settings: Mapping[Config, int] | None = None
) -> Explanation:
    """What a board with this model would do with a frame that comes first.

    Args:
        blob: Content of a ``.drip`` file.
        frame: As captured.
        settings: Settings that differ from the firmware's own.

    Raises:
        DataError: The frame does not fit the model.
        ModelError: The core refuses the model.
        MissingDependencyError: The compiled core is not installed.
    """
    from drip.simulate import Device

    device = Device(blob, settings=settings)
    result = device.feed(frame)
    model = device.model
    return Explanation(
        **_inside(model, frame, result.class_1),
        class_1=result.class_1,
        score=_name(ScoreKind, device.score_kind),
        raw=result.raw_score,
        percentile=result.percentile / wire.PERCENTILE_ONE,
        threshold=result.threshold / wire.PERCENTILE_ONE,
        keep=bool(result.keep),
        policy=_name(PolicyKind, device.policy_kind),
        rule=rule_of(result.reason, result.drop),
        same_model=True,
    )


def explain_record(blob: bytes, record: StoreRecord) -> Explanation:
    """What a board noted when it kept a frame.

    Args:
        blob: Content of the ``.drip`` file of the model, or of another one to look at it with.
        record: A row of the store.

    Raises:
        DataError: The frame does not fit the model.
        ModelError: The core refuses the model.
    """
    from drip.core import Model

    model = Model(blob)
    frame = np.frombuffer(record.frame, record.dtype).reshape(record.shape)
    same = model.model_id[:8].hex() == record.model_id
    inside = _inside(model, frame, record.class_1 if same else None)
    known = same or record.class_1 < len(model.classes)
    return Explanation(
        **inside,
        class_1=record.class_1 if known else int(inside["logits"].argmax()),
        score=_name(ScoreKind, record.score_kind),
        raw=record.raw_score,
        percentile=record.percentile / wire.PERCENTILE_ONE,
        threshold=None,
        keep=True,
        policy=_name(PolicyKind, record.policy),
        rule=rule_of(record.flags & 0xFF) or "nothing was noted",
        same_model=same,
    )


def find_record(store: str | Path, name: str) -> StoreRecord:
    """The record ``LOG_UUID:SEQ`` of a store; the start of the UUID is enough.

    Raises:
        UsageError: The name is none.
        DataError: There is no such store, no such record, or more than one.
    """
    from drip.store import RecordKey, Store, StoreRecord

    try:
        wanted = RecordKey.parse(name)
    except ValueError as error:
        raise UsageError(str(error), "or name an .npz or .npy file") from error
    sql = f"SELECT * FROM records WHERE seq = {wanted.seq}"
    rows = [
        row
        for row in Store.open(store).query(sql).to_pylist()
        if str(row["log_uuid"]).startswith(wanted.log_uuid)
    ]
    if len(rows) != 1:
        raise DataError(
            f"{len(rows)} records of the store are {name}", "drip store lists what is there"
        )
    columns = {field.name for field in dataclasses.fields(StoreRecord)}
    row = {key: value for key, value in rows[0].items() if key in columns}
    return StoreRecord(**row | {"utc_us": None, "shape": tuple(row["shape"])})


def _name(kinds: type[enum.IntEnum], value: int) -> str:
    return str(kinds(value).name).lower() if value in list(kinds) else str(value)


def _inside(model: Model, frame: NDArray[Any], class_1: int | None) -> dict[str, Any]:
    """What the model makes of a frame."""
    cam = model.cam(frame, class_1) if model.has_cam else None
    logits, _ = model.run(frame[np.newaxis])
    return {"frame": frame, "cam": cam, "logits": logits[0], "classes": model.classes}


def draw(explanation: Explanation, path: str | Path) -> None:
    """Draw an explanation; the suffix says which kind of picture.

    Args:
        explanation: Of one frame.
        path: ``.png``, ``.svg`` or ``.pdf`` to write.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        UsageError: Another suffix.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is not installed", install_hint("train")
        ) from error
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(f"{path} is no picture that can be drawn", "name a .png, .svg or .pdf")
    panels = 3 + (explanation.cam is not None)
    figure = Figure(figsize=(3.1 * panels, 3.6), layout="constrained")
    axes = list(figure.subplots(1, panels))
    _draw_frame(axes.pop(0), explanation.frame, "frame")
    if explanation.cam is not None:
        _draw_cam(axes.pop(0), explanation)
    _draw_logits(axes.pop(0), explanation)
    _draw_percentile(axes.pop(0), explanation)
    figure.suptitle(_title(explanation), fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=120, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(path, lambda file: file.write(buffer.getvalue()))


def _title(explanation: Explanation) -> str:
    decision = "kept" if explanation.keep else "dropped"
    other = "" if explanation.same_model else "\nmap and logits are of another model"
    return f"{decision} by {explanation.policy}: {explanation.rule}{other}"


def _is_series(frame: NDArray[Any]) -> bool:
    return frame.ndim < 2 or (frame.ndim == 2 and frame.shape[1] < 8) or 1 in frame.shape[:2]


def _draw_frame(axes: Any, frame: NDArray[Any], title: str) -> None:
    axes.set_title(title, fontsize=9)
    if _is_series(frame):
        series = frame.reshape(-1, frame.shape[-1]) if frame.ndim > 1 else frame
        axes.plot(series, linewidth=0.8)
        return
    coloured = frame.ndim == 3 and frame.shape[2] == 3
    picture = frame if coloured else frame.reshape(*frame.shape[:2], -1).mean(-1)
    axes.imshow(picture, cmap="gray", interpolation="nearest")
    axes.set_axis_off()


def _draw_cam(axes: Any, explanation: Explanation) -> None:
    cam = explanation.cam
    assert cam is not None
    name = explanation.classes[explanation.class_1]
    if _is_series(explanation.frame):
        axes.set_title(f"Grad-CAM of {name}", fontsize=9)
        axes.plot(cam.reshape(-1), drawstyle="steps-mid")
        axes.axhline(0, color="0.7", linewidth=0.8)
        return
    _draw_frame(axes, explanation.frame, f"Grad-CAM of {name}")
    height, width = explanation.frame.shape[:2]
    most = float(np.abs(cam).max()) or 1.0
    axes.imshow(
        cam, cmap="coolwarm", alpha=0.6, vmin=-most, vmax=most, interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip


def _draw_logits(axes: Any, explanation: Explanation) -> None:
    names, logits = explanation.classes, explanation.logits
    shown = np.argsort(logits)[::-1][:10][::-1]
    colours = ["C1" if c == explanation.class_1 else "0.6" for c in shown]
    axes.barh([names[c] for c in shown], logits[shown].astype(int) + 128, color=colours)
    axes.set_title("logits (int8 + 128)", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_percentile(axes: Any, explanation: Explanation) -> None:
    axes.set_title(f"{explanation.score}: raw {explanation.raw}", fontsize=9)
    axes.bar(["percentile"], [explanation.percentile], color="C0" if explanation.keep else "0.6")
    axes.text(0, explanation.percentile, f"{explanation.percentile:.3f}", ha="center", va="bottom")
    if explanation.threshold is not None:
        axes.axhline(explanation.threshold, color="C3", linestyle="--")
        axes.text(
            0.45, explanation.threshold, f"threshold {explanation.threshold:.3f}",
            ha="right", va="bottom", color="C3", fontsize=8,
        )  # fmt: skip
    axes.set_ylim(0, 1.12)
