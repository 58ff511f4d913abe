"""What the pruning benchmark measures: plans, and the cells that they consist of."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.errors import UsageError
from drip.prune import make_pruner, planned_cost
from drip.prune.policies import Pruner

__all__ = ["METHODS", "QUICK", "Cell", "Plan", "plan_cells", "plan_of", "within"]

# Chosen by `tune` on a part of CIFAR-10's training frames that nothing else measures on.
TUNED: dict[str, dict[str, Any]] = {
    "uniform": {"period": 1},
    "eps-greedy": {"period": 5, "a": 0.5, "eps": 0.75},
    "ucb": {"period": 2, "a": 0.5, "c": 0.3},
}
SHORTENED = (0.3, 0.4, 0.5, 0.6, 0.75)
DYNAMIC = ("uniform", "eps-greedy", "ucb", "rs2")
STALE = ("eps-greedy-stale", "ucb-stale")
STATIC = ("random", "el2n", "grand", "forget")
SCORED = ("el2n", "grand", "forget")
METHODS = ("full", "shortened", *DYNAMIC, *STALE, "infobatch", *STATIC)
# Several nets, early in their training: arXiv:2107.07075 scores CIFAR-10 after 10 of 200 epochs.
PROBES, PROBE_SHARE, FORGET_SHARE = 3, 0.05, 0.2
INFOBATCH_R = 0.5


@dataclass(frozen=True)
class Plan:
    """What is measured on one data set and network.

    Attributes:
        data: Key of :data:`drip.bench.select_data.RECIPES`.
        net: Key of :data:`drip.bench.prune_nets.NETS`.
        levels: Shares pruned.
        seeds: How many, from 1.
        epochs: Of a full training.
        methods: Of :data:`METHODS`.
        batch: Samples per step.
        peak: Largest learning rate.
    """

    data: str = "cifar10"
    net: str = "stem-cnn"
    levels: tuple[float, ...] = (0.5, 0.7)
    seeds: int = 5
    epochs: int = 40
    methods: tuple[str, ...] = METHODS
    batch: int = 128
    peak: float = 3e-3


QUICK = Plan("digits", "stem-cnn", (0.5,), 2, 10, METHODS, 64)


@dataclass(frozen=True)
class Cell:
    """One training to be measured.

    Attributes:
        data, net, batch, peak: As in :class:`Plan`.
        method: Of :data:`METHODS`.
        prune: Share pruned; 0 where nothing is.
        epochs: Of this training.
        full_epochs: Of the full training that it is held against.
        seed: Of weights, order, choices and augmentation.
        settings: What the method takes besides.
    """

    data: str
    net: str
    batch: int
    peak: float
    method: str
    prune: float
    epochs: int
    full_epochs: int
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the seed, as plain values."""
        values = dataclasses.asdict(self) | {"settings": dict(self.settings)}
        return {key: value for key, value in values.items() if key != "seed"}

    @property
    def key(self) -> str:
        """Hash of the configuration, and the seed."""
        text = json.dumps(self.config, sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:12]}-{self.seed}"

    def pruner(self, count: int, scores: NDArray[np.float64] | None = None) -> Pruner:
        """The pruner of this cell for so many samples; static methods but random need scores."""
        settings = dict(self.settings)
        name = self.method.removesuffix("-stale")
        if name in ("full", "shortened"):
            name = "full"
        elif name in STATIC:
            settings |= {"prune": self.prune, "scores": scores}
            name = "static"
        elif name != "infobatch":
            settings["prune"] = self.prune
        return make_pruner(name, count, self.epochs, self.seed, **settings)


def plan_cells(plan: Plan) -> list[Cell]:
    """All cells of a plan; every method's cost is its own, and shortened trainings span them."""
    unknown = set(plan.methods) - set(METHODS)
    if unknown:
        raise UsageError(f"no method {', '.join(sorted(unknown))}", f"use {', '.join(METHODS)}")
    make = functools.partial(
        Cell, plan.data, plan.net, plan.batch, plan.peak, full_epochs=plan.epochs
    )
    cells: list[Cell] = []
    for seed in range(1, plan.seeds + 1):
        for method in plan.methods:
            if method == "full":
                cells.append(make(method, 0.0, plan.epochs, seed=seed))
            elif method == "shortened":
                for share in SHORTENED:
                    epochs = max(1, round(share * plan.epochs))
                    cells.append(make(method, 0.0, epochs, seed=seed))
            elif method == "infobatch":
                settings = (("delta", 0.875), ("r", INFOBATCH_R))
                cells.append(make(method, 0.0, plan.epochs, seed=seed, settings=settings))
            else:
                for level in plan.levels:
                    cell = make(method, level, plan.epochs, seed=seed, settings=_settings(method))
                    cells.append(cell)
                    if level == 0.5 and method in DYNAMIC:
                        half = within(cell, 0.5)
                        cells += [half] if half != cell else []
    return list(dict.fromkeys(cells))


def plan_of(
    data: str,
    net: str,
    levels: str,
    seeds: int,
    epochs: int,
    methods: str | None,
    batch: int,
    *,
    quick: bool = False,
) -> Plan:
    """The plan that options of the command line mean.

    Raises:
        UsageError: A level is no share, or there is no such method.
    """
    if quick:
        return QUICK
    try:
        shares = tuple(float(level) for level in levels.split(","))
    except ValueError as error:
        raise UsageError(f"levels {levels!r}", "give shares such as 0.5,0.7") from error
    chosen = METHODS if methods is None else tuple(name.strip() for name in methods.split(","))
    plan = Plan(data, net, shares, seeds, epochs, chosen, batch)
    plan_cells(plan)
    return plan


def _settings(method: str) -> tuple[tuple[str, Any], ...]:
    found = dict(TUNED.get(method.removesuffix("-stale"), {}))
    if method in STALE:
        found["refresh"] = False
    return tuple(sorted(found.items()))


def within(cell: Cell, share: float) -> Cell:
    """The same cell with as many epochs as cost at most a share of the full training."""
    for epochs in range(cell.epochs, 0, -1):
        shorter = dataclasses.replace(cell, epochs=epochs)
        if planned_cost(shorter.pruner(1000)).total <= share * 1000 * cell.full_epochs + 1e-6:
            return shorter
    return cell
