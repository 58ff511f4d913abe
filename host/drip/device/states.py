"""What a board reports of itself, in words: the state of its card, and its events."""

from __future__ import annotations

import enum

from drip import units, wire
from drip.device.exchange import Event

__all__ = ["card_trouble", "describe_event", "name"]

_CARD_TROUBLE = {
    wire.CardState.ABSENT: ("has no card", "insert a card that was formatted for DRIP"),
    wire.CardState.MOUNTING: ("is still reading its card", "try again in a moment"),
    wire.CardState.FOREIGN: (
        "has a card without a DRIP log",
        "format the card with: drip card format",
    ),
    wire.CardState.ERROR: (
        "cannot read its card",
        "check or replace the card; drip card inspect may still read it",
    ),
    wire.CardState.PROTECTED: (
        "has a write-protected card",
        "move the card's lock switch, or read the card itself with: drip card pull",
    ),
    wire.CardState.FRAGMENTED: (
        "has a card whose log files are not in one piece",
        "copy them to a computer, format the card, then run: drip card format; "
        "frames in a copied DRIP00.LOG are read with: drip card pull DRIP00.LOG",
    ),
}


def card_trouble(state: int) -> tuple[str, str] | None:
    """Why a board cannot log to its card.

    Args:
        state: ``wire.CardState``, or a value that only newer boards know.

    Returns:
        What is wrong, behind the name of the board, and what to do; None when nothing is.
    """
    return _CARD_TROUBLE.get(wire.CardState(state)) if state in list(wire.CardState) else None


def describe_event(event: Event) -> str:
    """What a board reported of its own accord, one line."""
    if isinstance(event, wire.EventKept):
        share = units.percent(event.percentile, wire.PERCENTILE_ONE)
        return f"kept frame {event.seq}: class {event.class_1}, score {share}"
    if isinstance(event, wire.EventDrift):
        return (
            f"drift after {event.frames} frames: scores {event.psi_score / 1000:.2f},"
            f" classes {event.psi_class / 1000:.2f} (population stability index)"
        )
    if event.kind == wire.Event.CARD:
        why = "" if event.code >= 0 else f" ({name(wire.Err, event.code).replace('_', ' ')})"
        return f"card: {name(wire.CardState, event.state)}{why}"
    if event.kind == wire.Event.BOOT:
        return f"started: {name(wire.BootReason, event.state)}"
    return f"event {event.kind}"


def name(kind: type[enum.IntEnum], value: int) -> str:
    """The name of a value; a board with newer firmware may know values that this host does not."""
    return kind(value).name.lower() if value in list(kind) else f"unknown ({value})"
