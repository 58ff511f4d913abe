"""The selection benchmark: data, plans, choices, statistics, trainers; slow: all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
from drip.bench.select_data import PROTOCOLS, Pool, make_view, recording_order
from drip.bench.select_data import load_pool as load
from drip.bench.select_decide import choose, decide, el2n, herding, k_center
from drip.bench.select_net import Augmentation, augmenter
from drip.bench.select_plan import QUICK, Cell, Plan, Policy, Rows
from drip.bench.select_stats import Difference, holm, paired, verdict
from drip.data import Dataset
from drip.errors import ConfigError, DataError, UsageError
from drip.wire import Config, PolicyKind, Reason, ScoreKind

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool() -> Pool:
    return load("digits", Path())


@pytest.fixture(scope="module")
def grouped(pool: Pool) -> Pool:
    group = (np.arange(len(pool.train)) // 5).astype(np.int64)
    train = Dataset(pool.train.x, pool.train.y, pool.train.classes, group)
    return Pool("digits", train, pool.test)


def frames(data: Dataset) -> set[bytes]:
    return {x.tobytes() for x in data.x}


# ------------------------------------------------------------------ data


def test_parts_share_no_frame_and_depend_on_the_seed_alone(pool: Pool) -> None:
    view, again, other = (make_view(pool, s, "iid") for s in (3, 3, 4))
    parts = [view.fit, view.calibration, view.validation, view.test, view.stream]
    assert [len(p) for p in parts] == [200, 150, 300, 347, 800]
    sets = [frames(p) for p in parts]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert view.stream.digest() == again.stream.digest() != other.stream.digest()
    assert view.fit.digest() == make_view(pool, 3, "bursty").fit.digest()


def test_parts_share_no_group(grouped: Pool) -> None:
    view = make_view(grouped, 0, "iid")
    parts = [view.fit, view.calibration, view.validation, view.stream]
    groups = [set(p.group.tolist()) for p in parts if p.group is not None]
    assert len(groups) == 4 and sum(map(len, groups)) == len(set.union(*groups))


def test_bursts_repeat_few_originals(pool: Pool) -> None:
    view = make_view(pool, 0, "bursty")
    lengths = np.diff(np.flatnonzero(np.r_[True, np.diff(view.item) != 0, True]))
    assert 5 < lengths.mean() < 12
    assert view.duplicate_share == pytest.approx(1 - len(np.unique(view.item)) / 800)
    assert (view.stream.y == pool.train.y[view.item]).all()
    # The first of a burst is the original itself.
    assert (view.stream.x[0] == pool.train.x[view.item[0]]).all()


def test_label_noise_hits_a_tenth_and_not_the_truth(pool: Pool) -> None:
    view = make_view(pool, 0, "labelnoise")
    assert 0.06 < (view.labels != view.stream.y).mean() < 0.14
    assert (make_view(pool, 0, "iid").labels == make_view(pool, 0, "iid").stream.y).all()


def test_sensor_noise_grows(pool: Pool) -> None:
    clean = make_view(pool, 0, "iid").validation.x.astype(float)
    distance = [
        np.abs(make_view(pool, 0, p).validation.x - clean).mean()
        for p in ("noise1", "noise2", "noise3")
    ]
    assert 0 < distance[0] < distance[1] < distance[2]


def test_drift_changes_the_classes_or_the_sensor(pool: Pool) -> None:
    view = make_view(pool, 0, "prior")
    low = view.stream.y < 5
    assert low[view.phase == 0].mean() > 0.7 and low[view.phase == 1].mean() < 0.3
    sensor = make_view(pool, 0, "sensor")
    assert (
        sensor.stream.x[sensor.phase == 1].mean() < 0.9 * sensor.stream.x[sensor.phase == 0].mean()
    )


def test_recordings_are_put_in_order() -> None:
    rng = np.random.default_rng(0)
    signals = rng.integers(-999, 999, (2, 60, 3)).astype(np.int16)
    windows = [(r, signals[r, at : at + 10]) for r in (0, 1) for at in range(0, 51, 5)]
    shuffled = rng.permutation(len(windows))
    x = np.stack([windows[i][1] for i in shuffled])
    recording = np.array([windows[i][0] for i in shuffled])
    assert (shuffled[np.argsort(recording_order(x, recording))] == np.arange(len(windows))).all()


def test_unknown_names_are_refused(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no protocol named x"):
        make_view(pool, 0, "x")
    with pytest.raises(DataError, match="no data set named x"):
        load("x", tmp_path)
    with pytest.raises(DataError, match=r"mnist\.npz"):
        load("mnist", tmp_path)


# ------------------------------------------------------------------ plans


def quick(**changes: object) -> Plan:
    fields = json.loads(QUICK.read_text()) | changes
    fields["policies"] = tuple(Policy(**p) for p in fields["policies"])
    return Plan(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def test_a_plan_lists_every_cell_once() -> None:
    keys = [c.key for c in quick().cells()]
    assert len(keys) == len(set(keys)) == 2 * 2 * (9 + 2)
    assert "digits/1/bursty/margin/0.5/equal/validation" in keys
    assert set(PROTOCOLS) >= {"iid", "bursty"}


def test_settings_are_resolved() -> None:
    # Not what a board does by default: committed plans must mean what they meant.
    base = {Config.POLICY_KIND: PolicyKind.THRESHOLD, Config.REDUNDANCY: 0}
    policy = Policy("p", settings={"SCORE_KIND": "margin", "THRESHOLD": "@drop", "SEED": 7})
    assert policy.resolve(0.25) == base | {
        Config.SCORE_KIND: ScoreKind.MARGIN,
        Config.THRESHOLD: round(0.75 * 65535),
        Config.SEED: 7,
    }
    paced = Policy("p", settings={"POLICY_KIND": "TARGET", "PACE_S": "@pace"})
    assert paced.resolve(0.25, 99)[Config.PACE_S] == 99
    assert paced.resolve(0.25, 99)[Config.POLICY_KIND] == PolicyKind.TARGET
    with pytest.raises(ConfigError, match="no setting NONSENSE"):
        Policy("p", settings={"NONSENSE": 1}).resolve(0.5)


def test_the_config_hash_follows_what_matters() -> None:
    plan, longer = quick(), quick(epochs=21)
    cell = Cell("digits", 0, "iid", "random", 0.4, "equal", "validation")
    other = Cell("digits", 1, "iid", "random", 0.4, "equal", "validation")
    assert plan.config_hash(cell) == plan.config_hash(other) != longer.config_hash(cell)
    changed = json.loads(QUICK.read_text())["policies"]
    changed[0]["settings"]["RANDOM_SHARE"] = 9
    # The draw is matched to the first device policy, so its settings matter too.
    assert quick(policies=changed).config_hash(cell) != plan.config_hash(cell)


def test_bad_plans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown nowhere"):
        quick(datasets=["nowhere"])
    path = tmp_path / "plan.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot read the plan"):
        Plan.load(path)
    assert Plan.load(QUICK).name == "quick"


def test_rows_survive_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = Rows(path)
    rows.add({"key": "a", "config_hash": "1"})
    rows.add({"key": "b", "config_hash": "1"})
    path.write_bytes(path.read_bytes()[:-9])
    rows = Rows(path)
    assert rows.has("a", "1") and not rows.has("b", "1") and not rows.has("a", "2")
    rows.add({"key": "c", "config_hash": "1"})
    assert [r["key"] for r in Rows(path).rows] == ["a", "c"]


# ------------------------------------------------------------------ choices


def test_random_draws_the_achieved_count(pool: Pool) -> None:
    plan, view = quick(), make_view(pool, 0, "iid")
    first = plan.device_policies[0].name
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 10, 800).astype(np.uint8)
    kept = rng.random(800) < np.where(predicted < 5, 0.2, 0.7)
    decisions = {f"{first}/keep": kept, "margin/keep": ~kept, "class_1": predicted}

    def mask(kind: str, match: str = "") -> np.ndarray:
        return choose(Policy("x", kind, match), plan, decisions, view, 0.4, 5)

    assert mask("random").sum() == kept.sum() and mask("random", "margin").sum() == (~kept).sum()
    drawn = mask("class_random")
    assert (np.bincount(predicted[drawn]) == np.bincount(predicted[kept])).all()
    assert (drawn != kept).any()
    assert mask("full").all() and not mask("seed").any()
    with pytest.raises(DataError, match="another stream"):
        choose(Policy("x", "random"), plan, {**decisions, "class_1": predicted[:9]}, view, 0.4, 5)


def test_every_rule_of_the_quick_plan_keeps_its_share(pool: Pool) -> None:
    blob = (ROOT / "models" / "digits" / "model.drip").read_bytes()
    plan, view = quick(), make_view(pool, 0, "iid")
    decided = decide(blob, view, plan.device_policies, 0.5)
    kept = {p.name: decided[f"{p.name}/keep"] for p in plan.device_policies}
    reasons = {p.name: decided[f"{p.name}/reason"] for p in plan.device_policies}
    assert kept["every_kth"].tolist() == [True, False] * 400
    for name in ("default", "burst", "floors", "paced"):
        assert abs(kept[name].mean() - 0.5) < 0.03, name
    assert (reasons["floors"] & Reason.FLOOR).any()
    paced = reasons["paced"][kept["paced"]]
    assert (paced & Reason.PACED).all() and not (reasons["default"] & Reason.PACED).any()
    # The card shall be full sooner; the rate is known after 17 of 80 seconds.
    hasty = Policy("hasty", settings={"POLICY_KIND": "TARGET", "PACE_S": 900})
    assert decide(blob, view, (hasty,), 0.5)["hasty/keep"].mean() > 0.7


def test_references_choose_what_their_papers_say() -> None:
    logits = np.array([[9.0, 0.0], [0.0, 0.0], [9.0, 0.0]])
    error = el2n(logits, np.array([0, 0, 1]))
    assert error[1] == pytest.approx(np.sqrt(0.5)) and error[2] > error[1] > error[0]
    x = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.0, 9.0]])
    assert set(k_center(x, 3).tolist()) >= {2, 3}
    rng = np.random.default_rng(0)
    features = rng.normal(5, 1, (60, 8))
    predicted = np.arange(60) % 3
    reference = np.arange(60) < 30
    chosen = herding(features, predicted, reference)
    assert len(set(chosen.tolist())) == 30
    assert (np.bincount(predicted[chosen]) == 10).all()


# ------------------------------------------------------------------ statistics


def test_paired_difference_and_its_bounds() -> None:
    rng = np.random.default_rng(1)
    b = [rng.random(4000) < 0.8 for _ in range(5)]
    a = [x | (rng.random(4000) < 0.1) for x in b]
    found = paired(a, b, margin=0.01)
    expected = np.mean([x.mean() - y.mean() for x, y in zip(a, b, strict=True)])
    assert found.mean == pytest.approx(expected)
    assert found.low < expected < found.high and found.high - found.low < 0.01
    assert found.p_inferior < 0.001 and found.p_worse < 0.001
    swapped = paired(b, a, margin=0.01)
    assert swapped.mean == pytest.approx(-expected) and swapped.p_inferior > 0.99
    same = paired(b, b, margin=0.01)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_groups_widen_the_bounds() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(20), 100)
    right = np.repeat(rng.random(20) < 0.5, 100)
    b = [np.zeros(2000, bool)]
    plain = paired([right], b, margin=0.01)
    by_group = paired([right], b, margin=0.01, groups=[group])
    assert by_group.high - by_group.low > 5 * (plain.high - plain.low)


def test_more_seeds_do_not_enlarge_a_shared_test_set() -> None:
    rng = np.random.default_rng(3)
    b = rng.random(1000) < 0.8
    a = b ^ (rng.random(1000) < 0.1)
    one = paired([a], [b], margin=0.01, shared=True)
    ten = paired([a] * 10, [b] * 10, margin=0.01, shared=True)
    apart = paired([a] * 10, [b] * 10, margin=0.01)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.1)
    assert apart.high - apart.low < 0.6 * (ten.high - ten.low)
    assert ten.mean == pytest.approx(a.mean() - b.mean())


def test_holm_and_verdicts() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    good = Difference(0.0, -0.005, 0.005, 5, 0.001, 0.4)
    assert verdict(good, 0.03, 0.01) == "non-inferior"
    assert verdict(good, 0.06, 0.01) == "inconclusive"
    assert verdict(Difference(-0.03, -0.04, -0.02, 5, 1, 1), 1, 0.01) == "worse"


# ------------------------------------------------------------------ training


def test_augmentation_moves_zeros_in() -> None:
    x = np.ones((64, 6, 6, 1), np.float32)
    moved = augmenter(Augmentation((2, 1)))(x, np.random.default_rng(0))
    sums = moved.sum((1, 2, 3))
    assert sums.max() == 36 and sums.min() == 4 * 5 and set(np.unique(moved)) == {0, 1}
    ramp = np.tile(np.arange(6, dtype=np.float32)[None, None, :, None], (64, 6, 1, 1))
    flipped = augmenter(Augmentation((0, 0), flip=True))(ramp, np.random.default_rng(0))
    mirrored = (flipped[:, 0, 0, 0] == 5).sum()
    assert 16 < mirrored < 48


@pytest.mark.parametrize("shape", [(13, 10, 3), (50, 6)])
def test_both_trainers_build_the_same_network(shape: tuple[int, ...]) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    jax = pytest.importorskip("jax", reason="needs JAX: pip install jax")
    from drip.bench.select_jax import forward, initial_weights
    from drip.bench.select_net import layers_for, select_net

    rng = np.random.default_rng(0)
    weights = [
        np.abs(w + rng.normal(0, 0.1, w.shape)) if w.ndim == 1 else w
        for w in initial_weights(shape, 5, 3)
    ]
    model = select_net(shape, 5)
    assert 11_000 < model.count_params() < 25_000
    model.set_weights(weights)
    x = rng.normal(0, 1, (4, *shape)).astype(np.float32)
    expected = np.asarray(model(x, training=False))
    padded = x if x.ndim == 4 else x[:, :, None]
    with jax.default_matmul_precision("highest"):
        logits, _ = forward(
            [np.float32(w) for w in weights], padded, layers_for(shape), training=False
        )
    assert np.abs(np.asarray(logits) - expected).max() < 1e-4
    # One step of batch statistics must match as well.
    expected = np.asarray(model(x, training=True))
    logits, _ = forward([np.float32(w) for w in weights], padded, layers_for(shape), training=True)
    assert np.abs(np.asarray(logits) - expected).max() < 1e-3


def test_many_networks_learn_at_once(pool: Pool) -> None:
    pytest.importorskip("jax", reason="needs JAX: pip install jax")
    from drip.bench.select_jax import Job, train_jobs

    view = make_view(pool, 0, "iid")
    x = np.concatenate([view.stream.x, view.test.x])
    test = np.arange(800, 800 + len(view.test))
    jobs = [
        Job("all", np.arange(800), view.stream.y, test, 200, 1),
        Job("same", np.arange(800), view.stream.y, test, 200, 1),
        Job("short", np.arange(100), view.stream.y[:100], test, 20, 1),
    ]
    found = {
        t.job.key: (t.predictions == view.test.y).mean()
        for t in train_jobs(x, 10, jobs, scale=1 / 16, augmentation=Augmentation())
    }
    assert found["all"] > 0.9 and found["all"] == found["same"] > found["short"]


# ------------------------------------------------------------------ the whole


@pytest.mark.slow
def test_the_quick_plan_runs_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    from drip.bench.select import Place, run
    from drip.bench.select_report import write

    said: list[str] = []
    plan = quick(seeds=1, keep=[0.5], protocols=["iid"], epochs=4, fit_epochs=10)
    place = Place(tmp_path, tmp_path / "out", say=said.append)
    rows = run(plan, place).rows
    assert [r["key"] for r in rows] == [c.key for c in plan.cells()]
    by_policy = {r["policy"]: r for r in rows}
    assert by_policy["random"]["kept"] == by_policy["default"]["kept"]
    assert by_policy["full"]["kept"] == 800 and by_policy["seed"]["kept"] == 0
    assert 0.3 < by_policy["evidence"]["retention"] < 0.7
    assert by_policy["full"]["accuracy"] > 0.6
    # The same networks, converted.
    lost = [r["accuracy"] - r["int8_accuracy"] for r in rows]
    assert len(set(lost)) > 1 and max(map(abs, lost)) < 0.06
    entries = write(plan, rows, place)
    assert "| int8 |" in (tmp_path / "out" / "quick.md").read_text()
    assert {e["policy"] for e in entries if "vs_random" in e} >= {"default", "class_random"}
    assert (tmp_path / "out" / "quick.png").stat().st_size > 1000
    # Everything is there: nothing is trained or decided again; a lost row comes back.
    path = tmp_path / "out" / "quick.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    said.clear()
    again = run(plan, place).rows
    assert "1 cells to do" in said[0] and not any("compiled" in s for s in said)
    assert len(again) == len(rows)
    lost = next(r for r in again if r["key"] == rows[0]["key"])
    assert lost["accuracy"] == rows[0]["accuracy"]
    with pytest.raises(UsageError, match="no phase x"):
        run(plan, place, ["x"])


@pytest.mark.slow
def test_rounds_and_drift(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install .[train]")
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    from drip.bench.select import Place, run
    from drip.bench.select_drift import write_drift
    from drip.bench.select_rounds import run_rounds

    place = Place(tmp_path, tmp_path / "out", say=lambda _: None)
    target = {"POLICY_KIND": "TARGET", "TARGET": "@keep"}
    policies = [
        {"name": "evidence", "settings": target},
        {"name": "random", "kind": "random"},
        {"name": "full", "kind": "full"},
    ]
    plan = quick(seeds=1, keep=[0.4], protocols=["iid"], epochs=3, fit_epochs=10, policies=policies)
    by_policy = {r["rounds"][0]["policy"]: r["rounds"] for r in run_rounds(plan, place, 2).rows}
    labels = {name: [r["labels"] for r in rounds] for name, rounds in by_policy.items()}
    assert labels["full"] == [400, 800] and labels["random"] == labels["evidence"]
    assert 0.25 < labels["evidence"][1] / 800 < 0.55
    assert [r["offered"] for r in by_policy["random"]] == [400, 800]
    assert by_policy["evidence"][1]["bytes"] == 64 * labels["evidence"][1]
    before = (tmp_path / "out" / "quick-rounds.jsonl").read_bytes()
    run_rounds(plan, place, 2)
    assert (tmp_path / "out" / "quick-rounds.jsonl").read_bytes() == before

    drifting = quick(
        name="drift", seeds=1, keep=[0.4], protocols=["sensor"], fit_epochs=10, policies=policies
    )
    run(drifting, place, ["first", "prepare", "decide"])
    (row,) = write_drift(drifting, place)
    assert abs(row["retention"] - 0.4) < 0.06
    assert row["retention"] == pytest.approx((row["before"] + row["after"]) / 2)
    assert "| digits | sensor | evidence | 40%" in (tmp_path / "out" / "drift.md").read_text()


def test_random_stands_beside_what_kept_as_many() -> None:
    from drip.bench.select_report import cases, summarise

    committed = ROOT / "docs" / "results" / "select" / "quick.jsonl"
    rows = [json.loads(line) for line in committed.read_text().splitlines()]
    kept = {case: [r["retention"] for r in own.values()] for case, own in cases(rows).items()}
    random = np.mean(kept["digits", "bursty", "random", 0.5, "equal"])
    compared = {}
    for entry in summarise(rows):
        if entry["protocol"] == "bursty" and entry["policy"] not in ("random", "full", "seed"):
            compared[entry["policy"]] = "vs_random" in entry
            assert ("vs_random" in entry) == (abs(entry["retention"] - random) <= 0.01)
    assert compared["default"] and not compared["evidence"]


def test_tables_go_into_a_document() -> None:
    from drip.bench.select_report import into_document

    entry = {"dataset": "digits", "protocol": "iid", "steps": "equal", "accuracy": 0.5}
    entries = [
        {**entry, "policy": "full", "keep": 1.0, "accuracy": 0.75},
        {**entry, "policy": "random", "keep": 0.4, "vs_full": {"mean": -0.25}, "verdict": "worse"},
    ]
    text = "a\n<!-- select:n -->\nold\n<!-- /select:n -->\nb\n"
    changed = into_document("n", entries, text)
    assert "| digits | iid | 40% | 75.00% | 50.00% (-25.00 <) |" in changed
    assert "old" not in changed and changed.startswith("a\n") and changed.endswith("\nb\n")
    assert into_document("n", entries, changed) == changed
    with pytest.raises(DataError, match="no place"):
        into_document("m", entries, text)
