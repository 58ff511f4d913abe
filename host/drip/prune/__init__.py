"""Dynamic data pruning for any Keras 3 model: train on the samples that still teach something.

``policies`` and ``scores`` are numpy alone; ``loop`` brings them into ``model.fit`` and imports
Keras, on whatever backend it runs::

    pruner = make_pruner("uniform", len(x), epochs=40, seed=1, prune=0.5, period=1)
    data = PrunedData(x, y, pruner, batch=128)
    model.compile("adam", loss, metrics=[data.recorder])
    for epoch in data.epochs(model):
        model.fit(data, initial_epoch=epoch, epochs=epoch + 1, shuffle=False)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drip.prune.policies import (
    DYNAMIC,
    METHODS,
    Cost,
    EpsilonGreedy,
    Full,
    InfoBatch,
    Pruner,
    Rs2,
    Selection,
    Static,
    Ucb,
    Uniform,
    make_pruner,
    planned_cost,
)
from drip.prune.scores import ForgetCounter, LossMemory, cross_entropy, el2n, grand_last_layer

if TYPE_CHECKING:
    from drip.prune.loop import PrunedData, StepSchedule, VisitRecorder

__all__ = [
    "DYNAMIC", "METHODS", "Cost", "EpsilonGreedy", "ForgetCounter", "Full", "InfoBatch",
    "LossMemory", "PrunedData", "Pruner", "Rs2", "Selection", "Static", "StepSchedule", "Ucb",
    "Uniform", "VisitRecorder", "cross_entropy", "el2n", "grand_last_layer", "make_pruner",
    "planned_cost",
]  # fmt: skip

_IN_LOOP = ("PrunedData", "StepSchedule", "VisitRecorder")


def __getattr__(name: str) -> Any:
    if name in _IN_LOOP:
        from drip.prune import loop

        return getattr(loop, name)
    raise AttributeError(f"module 'drip.prune' has no attribute {name!r}")
