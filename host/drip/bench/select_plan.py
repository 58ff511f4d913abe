"""What the selection benchmark compares: policies, cells, their keys and result rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drip import wire
from drip.bench.select_data import PROTOCOLS, RECIPES
from drip.errors import ConfigError

DEVICE = "device"
QUICK = Path(__file__).with_name("select_quick.json")
REFERENCES = ("el2n", "herding", "kcenter")
HOST_KINDS = ("random", "class_random", *REFERENCES, "full", "seed")
"""Policies that are no device: random draws as many frames as the policy it is matched to kept
(class_random: per predicted class), three references that need a host, everything, and nothing."""
_ENUMS = {"SCORE_KIND": wire.ScoreKind, "POLICY_KIND": wire.PolicyKind}
_FULL_RANGE = 65535
BASE = {wire.Config.POLICY_KIND: int(wire.PolicyKind.THRESHOLD), wire.Config.REDUNDANCY: 0}
"""Calibrated thresholds without the redundancy rule: plans name what differs."""


@dataclass(frozen=True)
class Policy:
    """One way of choosing frames.

    Attributes:
        name: In keys and tables.
        kind: ``"device"`` or one of :data:`HOST_KINDS`.
        match: Policy whose achieved count is drawn; empty = the first device policy.
        settings: CONFIG keys by name, of the device; a value is an integer, the name of a score or
            policy kind, ``"@keep"`` (share to keep, 0..65535), ``"@drop"`` (its complement) or
            ``"@pace"`` (seconds in which the card gets full when the share is kept). What is not
            named is as in :data:`BASE`, whatever a board does that was told nothing.
    """

    name: str
    kind: str = DEVICE
    match: str = ""
    settings: dict[str, int | str] = field(default_factory=dict)

    def resolve(self, keep: float, pace_s: int = 0) -> dict[wire.Config, int]:
        """Settings for a share to keep.

        Args:
            keep: The share.
            pace_s: What ``"@pace"`` stands for.

        Raises:
            ConfigError: A key or value is unknown.
        """
        resolved = dict(BASE)
        for key, value in self.settings.items():
            try:
                if value == "@keep":
                    number = round(_FULL_RANGE * keep)
                elif value == "@drop":
                    number = round(_FULL_RANGE * (1 - keep))
                elif value == "@pace":
                    number = pace_s
                elif isinstance(value, str):
                    number = int(_ENUMS[key][value.upper()])
                else:
                    number = value
                resolved[wire.Config[key]] = number
            except KeyError as error:
                raise ConfigError(
                    f"policy {self.name}: no setting {key} = {value}", "see docs/SPEC.md, CONFIG"
                ) from error
        return resolved


@dataclass(frozen=True)
class Cell:
    """One network trained on one selection."""

    dataset: str
    seed: int
    protocol: str
    policy: str
    keep: float
    steps: str
    part: str

    @property
    def key(self) -> str:
        """Unique in a result file."""
        return "/".join(
            (self.dataset, str(self.seed), self.protocol, self.policy, f"{self.keep:g}", self.steps,
             self.part)
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A run of the benchmark; read from JSON.

    Attributes:
        name: Of the run.
        datasets, protocols: What is measured on.
        seeds: Number of seeds, from ``first_seed``.
        keep: Shares to keep.
        policies: What is compared.
        steps: ``"equal"`` (as many steps as with all frames), ``"epochs"`` (as many epochs).
        part: ``"validation"`` or ``"test"``.
        epochs, batch: Of training on all frames.
        fit_epochs: Of the first model, on the fit part.
        first_seed: See above.
        int8: Convert every trained network, and measure it as the C core runs it, too.
    """

    name: str
    datasets: tuple[str, ...]
    protocols: tuple[str, ...]
    seeds: int
    keep: tuple[float, ...]
    policies: tuple[Policy, ...]
    steps: tuple[str, ...] = ("equal",)
    part: str = "validation"
    epochs: int = 40
    batch: int = 64
    fit_epochs: int = 80
    first_seed: int = 0
    int8: bool = False

    def __post_init__(self) -> None:
        unknown = [d for d in self.datasets if d not in RECIPES]
        unknown += [p for p in self.protocols if p not in PROTOCOLS]
        unknown += [p.kind for p in self.policies if p.kind not in (DEVICE, *HOST_KINDS)]
        unknown += [s for s in self.steps if s not in ("equal", "epochs")]
        unknown += [self.part] if self.part not in ("validation", "test") else []
        if unknown:
            raise ConfigError(f"plan {self.name}: unknown {', '.join(unknown)}", "see Plan")
        names = [p.name for p in self.policies]
        for policy in self.policies:
            policy.resolve(0.5)
            if policy.match and policy.match not in names:
                raise ConfigError(f"{policy.name} is matched to no policy", "name one of the plan")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan.

        Raises:
            ConfigError: It is missing or malformed.
        """
        try:
            fields = json.loads(path.read_text())
            fields["policies"] = tuple(Policy(**p) for p in fields["policies"])
            for key in ("datasets", "protocols", "keep", "steps"):
                if key in fields:
                    fields[key] = tuple(fields[key])
            return cls(**fields)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "strerror", None) or f"it is malformed ({error})"
            if isinstance(error, UnicodeDecodeError):
                reason = "it is no text"
            raise ConfigError(
                f"cannot read the plan {path}: {reason}", "compare with docs/results/select/plans"
            ) from error

    @property
    def device_policies(self) -> tuple[Policy, ...]:
        """Those that the C core runs."""
        return tuple(p for p in self.policies if p.kind == DEVICE)

    def views(self) -> Iterator[tuple[str, int, str]]:
        """Data set, seed and protocol of every view."""
        for dataset in self.datasets:
            for seed in range(self.first_seed, self.first_seed + self.seeds):
                for protocol in self.protocols:
                    yield dataset, seed, protocol

    def cells(self) -> Iterator[Cell]:
        """Everything to train; what does not depend on the share to keep has share 1 or 0."""
        for dataset, seed, protocol in self.views():
            for policy in self.policies:
                if policy.kind in ("full", "seed"):
                    share = 1.0 if policy.kind == "full" else 0.0
                    yield Cell(dataset, seed, protocol, policy.name, share, "equal", self.part)
                    continue
                for keep in self.keep:
                    for steps in self.steps:
                        yield Cell(dataset, seed, protocol, policy.name, keep, steps, self.part)

    def policy(self, name: str) -> Policy:
        """By its name."""
        return next(p for p in self.policies if p.name == name)

    def matched(self, policy: Policy) -> str:
        """Name of the device policy whose count a host policy draws."""
        return policy.match or self.device_policies[0].name

    def config_hash(self, cell: Cell) -> str:
        """16 hex digits over all that decides a cell but code, data and seed."""
        policy = self.policy(cell.policy)
        chain = [dataclasses.asdict(policy)]
        if policy.kind not in (DEVICE, "full", "seed"):
            chain.append(dataclasses.asdict(self.policy(self.matched(policy))))
        content: dict[str, Any] = {
            "chain": chain,
            "cell": [cell.dataset, cell.protocol, cell.keep, cell.steps, cell.part],
            "training": [self.epochs, self.batch, self.fit_epochs],
            "recipe": dataclasses.asdict(RECIPES[cell.dataset]),
        }
        if self.int8:
            content["int8"] = True
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Rows:
    """Result rows, one JSON object per line; a line is complete or absent after a crash.

    Args:
        path: The file; created when the first row is added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.rows.append(json.loads(line))
                except ValueError:
                    # The line that a crash cut short; its cell runs again.
                    continue
        self._done = {(row["key"], row["config_hash"]) for row in self.rows}

    def has(self, key: str, config_hash: str) -> bool:
        """Whether a cell is done."""
        return (key, config_hash) in self._done

    def add(self, row: dict[str, Any]) -> None:
        """Append and make durable."""
        with self._path.open("a") as file:
            # After a line cut short, start a new one.
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                file.write("\n")
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self._done.add((row["key"], row["config_hash"]))
