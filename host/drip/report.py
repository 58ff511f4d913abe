"""Draw the result of a run as one self-contained HTML page (no network, no scripts).

A run folder holds ``result.json`` (figures, see :func:`drip.demo.run_demo`) and ``frames.npz``
(scores of all frames and a few pictures); this module only reads them, so that a report can be
drawn again, elsewhere, without TensorFlow or a device.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drip.data.files import write_atomic
from drip.errors import DataError, MissingDependencyError, install_hint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULT = "result.json"
FRAMES = "frames.npz"
KEPT, DROPPED, RANDOM, FULL = "#1b7f5c", "#9aa3ab", "#c9772b", "#3a5a98"


@dataclass(frozen=True)
class Frames:
    """What the report draws of the frames of a run.

    Attributes:
        percentile: Importance of every frame seen, float [N], 0..1.
        kept: Whether the device kept it, bool [N].
        by_chance: Whether it was kept by the random share only, bool [N].
        thresholds: Percentile from which a frame is kept, per class, float [C].
        images: A few frames for display, float [M, H, W] or [M, H, W, 3], 0..1.
        cams: Their Grad-CAM maps before ReLU, float [M, h, w].
        captions: One line per picture.
        image_kept: Whether each picture was kept, bool [M].
    """

    percentile: NDArray[Any]
    kept: NDArray[Any]
    by_chance: NDArray[Any]
    thresholds: NDArray[Any]
    images: NDArray[Any]
    cams: NDArray[Any]
    captions: tuple[str, ...]
    image_kept: NDArray[Any]


def save_run(folder: Path, result: Mapping[str, Any], frames: Frames) -> None:
    """Write ``result.json`` and ``frames.npz`` into ``folder`` (atomically, each)."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        percentile=frames.percentile,
        kept=frames.kept,
        by_chance=frames.by_chance,
        thresholds=frames.thresholds,
        images=frames.images,
        cams=frames.cams,
        captions=np.array(frames.captions),
        image_kept=frames.image_kept,
    )
    write_atomic(folder / FRAMES, lambda file: file.write(buffer.getvalue()))
    text = json.dumps(result, indent=2) + "\n"
    write_atomic(folder / RESULT, lambda file: file.write(text.encode()))


def load_run(folder: Path) -> tuple[dict[str, Any], Frames]:
    """Read a run folder.

    Raises:
        DataError: Something is missing or not what :func:`save_run` writes.
    """
    try:
        result = json.loads((folder / RESULT).read_text())
        with np.load(folder / FRAMES, allow_pickle=False) as data:
            frames = Frames(
                percentile=data["percentile"],
                kept=data["kept"].astype(bool),
                by_chance=data["by_chance"].astype(bool),
                thresholds=data["thresholds"],
                images=data["images"],
                cams=data["cams"],
                captions=tuple(str(text) for text in data["captions"]),
                image_kept=data["image_kept"].astype(bool),
            )
        if not isinstance(result, dict) or "arms" not in result:
            raise ValueError("result.json has no arms")
    except FileNotFoundError as error:
        raise DataError(
            f"{folder}: not a run folder ({Path(error.filename).name} is missing)",
            "run 'drip demo' first, or name the folder it wrote",
        ) from error
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise DataError(
            f"{folder}: damaged run folder ({error})", "run 'drip demo' again"
        ) from error
    return result, frames


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Draw ``folder`` as ``report.html`` (or ``output``); returns the path written."""
    result, frames = load_run(folder)
    try:
        page = _page(result, frames)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{folder}: damaged run folder ({type(error).__name__}: {error})",
            "run 'drip demo' again",
        ) from error
    target = output or folder / "report.html"
    write_atomic(target, lambda file: file.write(page.encode()))
    return target


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is not installed", install_hint("train")
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, label: str) -> str:
    """The figure as an inline image with a text for those who cannot see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(label)}" src="data:image/svg+xml;base64,{data}">'


def _histogram(frames: Frames) -> str:
    figure = _figure(7, 3)
    axes = figure.subplots()
    bins = [i / 25 for i in range(26)]
    scored = frames.kept & ~frames.by_chance
    parts = [frames.percentile[~frames.kept], frames.percentile[scored]]
    parts.append(frames.percentile[frames.by_chance])
    names = ["dropped", "kept: important", "kept: random share"]
    axes.hist(parts, bins, stacked=True, color=[DROPPED, KEPT, RANDOM], label=names)
    low, high = frames.thresholds.min(), frames.thresholds.max()
    axes.axvspan(low, high, color="black", alpha=0.15, label="thresholds of the classes")
    axes.set_xlabel("importance: percentile among calibration frames of the same predicted class")
    axes.set_ylabel("frames")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return _svg(figure, "Histogram of importance with the threshold")


def _curve(result: Mapping[str, Any]) -> str:
    figure = _figure(7, 3)
    axes = figure.subplots()
    styles = {"drip": (KEPT, "DRIP"), "random": (RANDOM, "uniform random, same size")}
    ends = [result["arms"]["initial"], result["arms"]["full"]]
    for name, (color, label) in styles.items():
        points = [*result["curve"][name], *ends]
        points.sort(key=lambda arm: arm["kept_fraction"])
        x = [arm["kept_fraction"] for arm in points]
        y = [arm["accuracy"] for arm in points]
        low = [arm["accuracy"] - arm["ci95"][0] for arm in points]
        high = [arm["ci95"][1] - arm["accuracy"] for arm in points]
        axes.errorbar(x, y, [low, high], color=color, label=label, marker="o", capsize=3)
    axes.set_xlabel("share of the stream kept")
    axes.set_ylabel("test accuracy (int8, C core)")
    axes.legend(loc="lower right", frameon=False)
    return _svg(figure, "Accuracy against the share of frames kept, with 95 % intervals")


def _gallery(frames: Frames, kept: bool) -> str:
    chosen = np.flatnonzero(frames.image_kept == kept)
    if not len(chosen):
        return "<p>none</p>"
    columns = 6
    rows = -(-len(chosen) // columns)
    figure = _figure(1.35 * columns, 1.65 * rows)
    _draw_frames(np.atleast_1d(figure.subplots(rows, columns)).ravel(), frames, chosen)
    word = "Kept" if kept else "Dropped"
    return _svg(figure, f"{word} frames with the Grad-CAM of the predicted class")


def _draw_frames(grid: NDArray[Any], frames: Frames, chosen: NDArray[np.intp]) -> None:
    """Draw pictures with their heat maps: transparent where there is no evidence."""
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, chosen, strict=False):
        image, cam = frames.images[index], np.maximum(frames.cams[index], 0)
        extent = (0, image.shape[1], image.shape[0], 0)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent)
        if cam.max() > 0:
            heat = cam / cam.max()
            shown = {"cmap": "autumn", "interpolation": "bilinear"}
            axes.imshow(heat, alpha=0.6 * heat, extent=extent, vmin=0, vmax=1, **shown)
        axes.set_title(frames.captions[index], fontsize=7)


def write_picture(folder: Path, output: Path) -> Path:
    """Draw the kept and dropped frames of a run as one PNG, as a README wants it."""
    _, frames = load_run(folder)
    columns = max(1, int(frames.image_kept.sum()), int((~frames.image_kept).sum()))
    figure = _figure(1.2 * columns, 3.6)
    halves = figure.subfigures(2, 1, squeeze=False).ravel()
    for part, kept in zip(halves, (True, False), strict=True):
        part.suptitle("kept" if kept else "dropped", fontsize=11)
        grid = np.atleast_1d(part.subplots(1, columns)).ravel()
        _draw_frames(grid, frames, np.flatnonzero(frames.image_kept == kept))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    write_atomic(output, lambda file: file.write(buffer.getvalue()))
    return output


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1d2327;max-width:52rem;margin:2rem auto;
padding:0 1rem}
h1{margin-bottom:0} .note{color:#57606a} img{max-width:100%} table{border-collapse:collapse}
td,th{padding:.3rem .8rem;border-bottom:1px solid #d8dee4;text-align:right}
td:first-child,th:first-child{text-align:left} code{background:#f3f4f6;padding:.1rem .3rem}
"""


def _page(result: Mapping[str, Any], frames: Frames) -> str:
    """The whole page; every text that is not ours is escaped."""
    arms = "".join(
        f"<tr><td>{html.escape(arm['label'])}</td><td>{arm['training_frames']}</td>"
        f"<td>{arm['accuracy']:.1%}</td><td>{arm['ci95'][0]:.1%} to {arm['ci95'][1]:.1%}</td></tr>"
        for arm in result["arms"].values()
    )
    stages = "".join(
        f"<tr><td>{html.escape(stage['name'])}</td><td>{stage['seconds']:.1f} s</td></tr>"
        for stage in result["stages"]
    )
    facts = [
        ("frames seen", f"{result['frames_seen']}"),
        ("frames kept", f"{result['frames_kept']} ({1 - result['saved_fraction']:.1%})"),
        ("storage saved", f"{result['saved_fraction']:.1%}"),
        ("kept frames equal, sensor to store", "yes" if result["retained_verified"] else "NO"),
        ("engine against tflite-micro", result["bit_exact"]),
        ("bytes over the wire, pulling frames", f"{result['wire_bytes_sync']:,}"),
        ("bytes over the wire, pushing the model", f"{result['wire_bytes_deploy']:,}"),
        ("model on the device now", result["device_model_after"]),
    ]
    rows = "".join(f"<tr><td>{k}</td><td>{html.escape(v)}</td></tr>" for k, v in facts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>DRIP: {html.escape(result["dataset"])}</title>
<style>{STYLE}</style></head><body>
<h1>DRIP: {html.escape(result["dataset"])}</h1>
<p class="note">seed {result["seed"]}, {result["test_size"]} test frames that nothing was tuned on.
{html.escape(result["caveat"])}</p>
<h2>What the board did</h2><table>{rows}</table>
<h2>What the kept frames are worth</h2>
<table><tr><th>trained on</th><th>frames</th><th>accuracy</th><th>95 % interval</th></tr>
{arms}</table>
{_curve(result)}
<h2>How important the frames were</h2>{_histogram(frames)}
<h2>Kept</h2>{_gallery(frames, True)}
<h2>Dropped</h2>{_gallery(frames, False)}
<p class="note">Heat: positive Grad-CAM of the predicted class, computed by the C core in integers,
scaled per picture.</p>
<h2>Time</h2><table>{stages}</table>
</body></html>
"""
