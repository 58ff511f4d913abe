"""The pruning benchmark: cells, costs, comparisons, rows, and that both trainers mean the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip.bench import prune_report as report
from drip.bench.prune import (
    METHODS,
    QUICK,
    Plan,
    append,
    load_rows,
    plan_cells,
    plan_of,
    run,
    start_backend,
)
from drip.errors import DataError, UsageError
from drip.prune import planned_cost

ROWS = Path(__file__).parents[2] / "docs" / "results" / "prune" / "rows.jsonl"
DOCUMENT = Path(__file__).parents[2] / "docs" / "RETRAINING.md"


def row(method: str, seed: int, cost: float, accuracy: float, **more: Any) -> dict[str, Any]:
    base = {
        "data": "d", "net": "n", "batch": 1, "full_epochs": 10, "method": method, "prune": 0.0,
        "epochs": 10, "seed": seed, "cost": cost, "accuracy": accuracy, "seconds": 1.0,
        "compile_seconds": 2.0,
    }  # fmt: skip
    return base | more


def test_every_method_has_a_cell_per_level_and_seed() -> None:
    cells = plan_cells(Plan(seeds=2, levels=(0.5, 0.7)))
    assert {cell.method for cell in cells} == set(METHODS)
    assert len({cell.key for cell in cells}) == len(cells)
    assert {cell.seed for cell in cells} == {1, 2}
    assert sum(c.method == "el2n" for c in cells) == 4
    # The shortened ones and the full one span 30 to 100 % of the cost.
    epochs = sorted({c.epochs for c in cells if c.method in ("full", "shortened")})
    assert epochs == [12, 16, 20, 24, 30, 40]


def test_half_variants_stay_within_half_the_cost() -> None:
    cells = [c for c in plan_cells(Plan()) if c.prune == 0.5 and c.epochs < 40]
    assert {c.method for c in cells} == {"uniform", "eps-greedy", "ucb"}
    for cell in cells:
        cost = planned_cost(cell.pruner(1000)).total / (1000 * cell.full_epochs)
        assert 0.45 < cost <= 0.5


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="levels"):
        plan_of("digits", "stem-cnn", "half", 1, 2, None, 8)
    with pytest.raises(UsageError, match="no method magic"):
        plan_of("digits", "stem-cnn", "0.5", 1, 2, "full,magic", 8)


def test_lower_bound_by_hand() -> None:
    pytest.importorskip("scipy.stats", reason="needs scipy: pip install .[train]")
    # Mean 2, s = 1, n = 3; t(0.95, 2) = 2.920.
    assert report.lower_bound(np.array([1.0, 2.0, 3.0])) == pytest.approx(
        2 - 2.9199856 / math.sqrt(3), abs=1e-6
    )
    assert report.lower_bound(np.array([1.0])) == -math.inf


def test_shortened_training_is_read_off_in_log_cost() -> None:
    curve = [(0.25, 0.6), (1.0, 0.8)]
    assert report.at_cost(curve, 0.5) == pytest.approx(0.7)
    assert report.at_cost(curve, 1.0) == pytest.approx(0.8)
    assert report.at_cost(curve, 0.2) is None


def test_differences_are_taken_seed_by_seed() -> None:
    pytest.importorskip("scipy.stats", reason="needs scipy: pip install .[train]")
    rows = []
    for seed, level in ((1, 0.6), (2, 0.8)):
        rows += [
            row("full", seed, 1.0, level + 0.10),
            row("shortened", seed, 0.25, level, epochs=2),
            row("uniform", seed, 0.5, level + 0.06, prune=0.5),
        ]
    lines = {line.method: line for line in report.summarise(rows)}
    uniform = lines["uniform"]
    # 4 points below full and 1 above shortened for each seed alike, whatever the seeds' levels.
    assert uniform.to_full == pytest.approx(-0.04)
    assert uniform.to_full_least == pytest.approx(-0.04)
    assert uniform.to_short == pytest.approx(0.01)
    assert uniform.better_than_short and not uniform.non_inferior
    said = report.verdicts(list(lines.values()))
    assert "non-inferior to full training at half the cost: none" in said[0]
    assert "uniform 50% at 50%" in said[1]


def test_a_group_without_full_training_is_refused() -> None:
    with pytest.raises(DataError, match="no full training"):
        report.summarise([row("uniform", 1, 0.5, 0.5)])


def test_rows_survive_a_line_that_was_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append(file, {"key": "a"})
    with file.open("a") as stream:
        stream.write('{"key": "b", "accu')
    assert load_rows(file) == [{"key": "a"}]
    append(file, {"key": "c"})
    assert load_rows(file) == [{"key": "a"}, {"key": "c"}]


def test_the_document_shows_the_committed_rows() -> None:
    pytest.importorskip("scipy.stats", reason="needs scipy: pip install .[train]")
    lines = report.summarise(load_rows(ROWS))
    text = DOCUMENT.read_text()
    assert report.into_document(lines, text) == text


def test_committed_rows_say_where_they_come_from() -> None:
    rows = load_rows(ROWS)
    assert len({row["key"] for row in rows}) == len(rows) > 400
    for one in rows:
        assert len(one["commit"]) >= 7 and len(one["data_digest"]) == 16
        assert one["versions"]["keras"] and one["device"]
    json.dumps(rows)


@pytest.mark.slow
def test_cells_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    start_backend("keras")
    file = tmp_path / "rows.jsonl"
    plan = Plan("digits", "stem-cnn", (0.5,), 1, 2, ("full", "random", "infobatch"), 128)
    new: list[dict[str, Any]] = []
    first = run(plan, tmp_path, file, on_row=new.append)
    assert len(first) == len(new) == 3
    assert {r["method"]: r["cost"] for r in first}["random"] == pytest.approx(0.5)
    again = run(plan, tmp_path, file, on_row=new.append)
    assert len(new) == 3 and again == first
    file.write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")
    # What is measured anew is the same: seeds fix everything.
    third = run(plan, tmp_path, file, on_row=new.append)
    assert len(new) == 4
    assert [r["accuracy"] for r in third] == [r["accuracy"] for r in first]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_other_workers_measure_the_same(tmp_path: Path, engine: str) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    if engine == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install .[ray]")
    start_backend("keras")
    plan = Plan("digits", "stem-cnn", (0.5,), 1, 2, ("full", "random", "el2n"), 128)
    here = run(plan, tmp_path, tmp_path / "here.jsonl")
    there = run(plan, tmp_path, tmp_path / "there.jsonl", engine=engine, jobs=2)
    for a, b in zip(here, there, strict=True):
        same = ("key", "accuracy", "cost", "steps", "data_digest")
        assert {k: a[k] for k in same} == {k: b[k] for k in same}


def test_jax_takes_one_job(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="jax"):
        run(QUICK, tmp_path, tmp_path / "rows.jsonl", trainer="jax", jobs=2)
