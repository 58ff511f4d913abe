"""Labelling frames one by one in a terminal: the frame, its Grad-CAM, the model's guess."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from drip.store import REJECT, RecordKey, Store

__all__ = ["Candidate", "candidates", "draw", "label_frames"]

_FLUSH = 16  # labels per file of the store; what a crash costs
_HELP = "number or name: class, Enter: the guess, r: reject, s: skip, u: undo, q: quit"


@dataclass(frozen=True)
class Candidate:
    """A frame to be labelled.

    Attributes:
        key: Its record.
        x: As captured.
        guess: Class that the model predicted, None when unknown.
        percentile: DRIP score, 0 to 1.
    """

    key: RecordKey
    x: NDArray[Any]
    guess: str | None
    percentile: float


def candidates(store: Store, classes: Sequence[str], everything: bool = False) -> list[Candidate]:
    """Frames without a label, the most important first.

    Args:
        store: The store.
        classes: Names of the model's classes.
        everything: Those with a label too.
    """
    labels = {} if everything else store.labels()
    found = []
    for frames in store.frame_groups():
        rows = frames.columns.select(["class_1", "percentile"]).to_pylist()
        for key, x, row in zip(frames.keys, frames.x, rows, strict=True):
            if key not in labels:
                guess = classes[row["class_1"]] if row["class_1"] < len(classes) else None
                found.append(Candidate(key, x, guess, row["percentile"] / 65535))
    return sorted(found, key=lambda item: (-item.percentile, item.key))


def label_frames(
    store: Store,
    frames: Iterable[Candidate],
    classes: Sequence[str],
    console: Console,
    ask: Callable[[str], str],
    cam: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> int:
    """Show frames and write down what the user says.

    Args:
        store: Where the labels go, at latest when this returns or is interrupted.
        frames: In the order to be shown.
        classes: The choices.
        console: Draws on it.
        ask: Shows a prompt and returns the answer; EOFError ends the session.
        cam: Grad-CAM of a frame, ``[h, w]``, None where it has none.

    Returns:
        Labels written.
    """
    queue, answers = list(frames), dict[RecordKey, str]()
    at = written = 0
    console.print(Text("  ".join(f"{n} {name}" for n, name in enumerate(classes))))
    console.print(Text(_HELP, style="dim"))
    try:
        while at < len(queue):
            item = queue[at]
            _show(console, item, at, len(queue), cam)
            answer = _ask(item, classes, console, ask)
            if answer == "quit":
                break
            if answer == "undo":
                at = max(0, at - 1)
                answers.pop(queue[at].key, None)
                continue
            if answer != "skip":
                answers[item.key] = answer[1:]
            at += 1
            if len(answers) >= _FLUSH:
                # The last one stays open, so that it can be undone.
                newest = {item.key: answers.pop(item.key)} if item.key in answers else {}
                written += store.append_labels(answers, "terminal")
                answers = newest
    finally:
        written += store.append_labels(answers, "terminal")
    return written


def draw(values: NDArray[Any], width: int = 40) -> Text:
    """Draw numbers as half blocks: two pixels per character.

    Args:
        values: ``[h, w]`` or ``[h, w, 1]`` grey, or ``[h, w, 3]`` colour; any range for grey, 0
            to 255 for colour. A window of samples is an image of time by channel.
        width: Most columns.
    """
    grid = _grid(values)
    factor = max(1, min(width // grid.shape[1], 24 // max(1, grid.shape[0])))
    step = -(-grid.shape[1] // width)
    grid = grid[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)
    if len(grid) % 2:
        grid = np.concatenate([grid, grid[-1:] * 0])
    text = Text()
    for upper, lower in zip(grid[::2], grid[1::2], strict=True):
        for a, b in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", style=f"rgb({a[0]},{a[1]},{a[2]}) on rgb({b[0]},{b[1]},{b[2]})")
        text.append("\n")
    return text


def _grid(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        return np.asarray(values)
    flat = np.asarray(values, np.float64)
    flat = flat.reshape(1, -1) if flat.ndim < 2 else flat.reshape(flat.shape[0], -1)
    low, high = float(flat.min()), float(flat.max())
    grey = (flat - low) * (255.0 / (high - low)) if high > low else flat * 0
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _show(
    console: Console,
    item: Candidate,
    at: int,
    count: int,
    cam: Callable[[NDArray[Any]], NDArray[Any]] | None,
) -> None:
    panels = [Panel(draw(item.x), title="frame", expand=False)]
    if cam is not None:
        panels.append(Panel(draw(np.maximum(cam(item.x), 0)), title="Grad-CAM", expand=False))
    console.print(Columns(panels))
    guess = item.guess if item.guess is not None else "?"
    console.print(
        Text(f"{at + 1} of {count}  {item.key}  guess: {guess}  score: {item.percentile:.3f}")
    )


def _ask(
    item: Candidate, classes: Sequence[str], console: Console, ask: Callable[[str], str]
) -> str:
    """One of quit, undo, skip, or "=" and a label."""
    words = {"q": "quit", "u": "undo", "s": "skip", "r": "=" + REJECT}
    while True:
        try:
            answer = ask("label> ").strip()
        except EOFError:
            return "quit"
        if answer in classes:
            return "=" + answer
        if answer in words:
            return words[answer]
        if answer.isascii() and answer.isdigit() and int(answer) < len(classes):
            return "=" + classes[int(answer)]
        if answer == "" and item.guess is not None:
            return "=" + item.guess
        console.print(Text(_HELP, style="yellow"))
