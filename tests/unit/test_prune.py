"""Data pruning: every score and choice against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from drip.errors import UsageError
from drip.prune import (
    Cost,
    ForgetCounter,
    LossMemory,
    Pruner,
    cross_entropy,
    el2n,
    grand_last_layer,
    make_pruner,
    planned_cost,
)


def selected(pruner: Pruner, epoch: int) -> list[int]:
    return sorted(pruner.select(epoch).indices.tolist())


def test_cross_entropy_is_the_negative_log_of_the_true_class() -> None:
    logits = np.log([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]])
    assert cross_entropy(logits, np.array([0, 2])) == pytest.approx([-math.log(0.7), math.log(4)])


def test_cross_entropy_stands_large_logits() -> None:
    assert cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])) == pytest.approx([1000.0])


def test_el2n_is_the_length_of_the_error() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    assert el2n(p, np.array([0, 0])) == pytest.approx([math.sqrt(0.09 + 0.04 + 0.01), math.sqrt(2)])


def test_grand_of_the_last_layer_is_what_finite_differences_give() -> None:
    rng = np.random.default_rng(3)
    h, w, b, y = rng.normal(size=4), rng.normal(size=(4, 3)), rng.normal(size=3), np.array([1])

    def loss(flat: np.ndarray) -> float:
        logits = h @ flat[:12].reshape(4, 3) + flat[12:]
        return float(cross_entropy(logits[np.newaxis], y)[0])

    flat = np.concatenate([w.ravel(), b])
    steps = np.eye(15) * 1e-6
    gradient = [(loss(flat + s) - loss(flat - s)) / 2e-6 for s in steps]
    logits = h @ w + b
    p = np.exp(logits) / np.exp(logits).sum()
    score = grand_last_layer(h[np.newaxis], p[np.newaxis], y)
    assert score == pytest.approx([np.linalg.norm(gradient)], rel=1e-6)


def test_memory_updates_the_variance_with_the_old_mean_first() -> None:
    memory = LossMemory(2, a=0.5)
    memory.update(np.array([0]), np.array([4.0]))
    # v = 0.5 (4 - 0)^2 = 8, then m = 2.
    assert (memory.v[0], memory.m[0]) == (8.0, 2.0)
    memory.update(np.array([0]), np.array([3.0]))
    # v = 0.5 * 8 + 0.5 (3 - 2)^2 = 4.5, then m = 0.5 * 2 + 0.5 * 3 = 2.5.
    assert (memory.v[0], memory.m[0]) == (4.5, 2.5)
    assert (memory.v[1], memory.m[1]) == (0.0, 0.0)


def test_forgetting_is_counted_between_visits() -> None:
    counter = ForgetCounter(4)
    for right in ([1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 1]):
        counter.update(np.arange(4), np.array(right, bool))
    # Sample 0 is forgotten twice, 1 and 3 never, 2 was never right: one more than the most.
    assert counter.scores().tolist() == [2, 0, 3, 0]


def test_forgetting_sees_only_visits() -> None:
    counter = ForgetCounter(2)
    counter.update(np.array([0, 1]), np.array([True, True]))
    counter.update(np.array([1]), np.array([False]))
    counter.update(np.array([0]), np.array([True]))
    assert counter.scores().tolist() == [0, 1]


def test_first_period_is_full_and_later_ones_keep_k() -> None:
    pruner = make_pruner("uniform", 10, 6, 1, prune=0.7, period=2)
    sizes = [len(pruner.select(epoch).indices) for epoch in range(6)]
    assert sizes == [10, 10, 3, 3, 3, 3]
    assert sizes == [pruner.expected(epoch) for epoch in range(6)]


def test_uniform_draws_anew_every_period_and_only_then() -> None:
    pruner = make_pruner("uniform", 1000, 8, 1, prune=0.5, period=2)
    chosen = [selected(pruner, epoch) for epoch in range(8)]
    assert chosen[2] == chosen[3] != chosen[4] == chosen[5] != chosen[6]
    # Fresh: about half of a choice is in the next one.
    assert 180 < len(set(chosen[2]) & set(chosen[4])) < 320


def test_order_changes_within_a_period() -> None:
    pruner = make_pruner("uniform", 100, 6, 1, prune=0.5, period=2)
    pruner.select(0), pruner.select(1)
    assert pruner.select(2).indices.tolist() != pruner.select(3).indices.tolist()


def test_epsilon_greedy_takes_the_hardest_and_draws_the_rest_elsewhere() -> None:
    pruner = make_pruner("eps-greedy", 100, 4, 1, prune=0.6, period=1, a=1.0, eps=0.25)
    pruner.observe_all(np.arange(100.0))
    chosen = selected(pruner, 1)
    # K = 40: the 30 hardest, and 10 of the other 70.
    assert set(range(70, 100)) <= set(chosen)
    assert len(set(chosen)) == 40


def test_epsilon_of_one_is_uniform_and_of_zero_is_greedy() -> None:
    greedy = make_pruner("eps-greedy", 10, 4, 1, prune=0.5, period=1, a=1.0, eps=0.0)
    greedy.observe_all(np.arange(10.0))
    assert selected(greedy, 1) == [5, 6, 7, 8, 9]
    chance = make_pruner("eps-greedy", 1000, 4, 1, prune=0.5, period=1, a=1.0, eps=1.0)
    chance.observe_all(np.arange(1000.0))
    assert 180 < sum(i >= 500 for i in selected(chance, 1)) < 320


def test_ucb_prefers_the_uncertain_among_equals() -> None:
    pruner = make_pruner("ucb", 3, 9, 1, prune=0.67, period=1, a=0.5, c=1.0)
    pruner.observe_all(np.array([2.0, 4.0, 3.0]))
    pruner.observe_all(np.array([4.0, 3.0, 3.0]))
    # m = 0.5 (0.5 u1) + 0.5 u2 and v = 0.5 (0.5 u1^2) + 0.5 (u2 - 0.5 u1)^2 by hand:
    assert pruner.memory.m.tolist() == [2.5, 2.5, 2.25]  # type: ignore[attr-defined]
    assert pruner.memory.v.tolist() == [5.5, 4.5, 3.375]  # type: ignore[attr-defined]
    assert selected(pruner, 1) == [0]


def test_ties_go_to_the_smaller_index() -> None:
    pruner = make_pruner("ucb", 6, 3, 1, prune=0.5, period=1, a=0.5, c=1.0)
    pruner.observe_all(np.ones(6))
    assert selected(pruner, 1) == [0, 1, 2]


def test_stale_scores_come_from_visits_alone() -> None:
    stale = make_pruner("ucb", 4, 4, 1, prune=0.5, period=1, a=1.0, c=0.0, refresh=False)
    assert not any(stale.wants_losses(epoch) for epoch in range(4))
    stale.observe_visited(np.array([3, 1, 0, 2]), np.array([1.0, 5.0, 4.0, 2.0]))
    assert selected(stale, 1) == [0, 1]
    stale.observe_visited(np.array([0, 1]), np.array([0.5, 5.0]))
    assert selected(stale, 2) == [1, 2]


def test_fresh_scores_ignore_visits() -> None:
    fresh = make_pruner("ucb", 4, 4, 1, prune=0.5, period=2, a=1.0, c=0.0)
    assert [fresh.wants_losses(epoch) for epoch in range(4)] == [False, False, True, False]
    fresh.observe_visited(np.arange(4), np.array([9.0, 9.0, 0.0, 0.0]))
    fresh.observe_all(np.array([0.0, 1.0, 2.0, 3.0]))
    assert selected(fresh, 2) == [2, 3]


def test_infobatch_weighs_the_easy_ones_that_stay() -> None:
    pruner = make_pruner("infobatch", 10_000, 8, 1, r=0.5, delta=0.875)
    losses = np.where(np.arange(10_000) < 8000, 0.1, 2.0)
    assert len(pruner.select(0).indices) == 10_000
    pruner.observe_visited(np.arange(10_000), losses)
    choice = pruner.select(1)
    easy = choice.indices < 8000
    # All 2,000 above the mean of 0.48 stay at weight 1; about half of the 8,000 stay at 2.
    assert int((~easy).sum()) == 2000
    assert 3800 < int(easy.sum()) < 4200
    assert set(choice.weights[easy].tolist()) == {2.0}
    assert set(choice.weights[~easy].tolist()) == {1.0}


def test_infobatch_keeps_the_expected_gradient() -> None:
    losses = np.random.default_rng(0).exponential(size=200)
    sums = []
    for seed in range(400):
        pruner = make_pruner("infobatch", 200, 8, seed, r=0.3)
        pruner.observe_visited(np.arange(200), losses)
        choice = pruner.select(1)
        sums.append(float((choice.weights * losses[choice.indices]).sum()))
    spread = np.std(sums) / math.sqrt(len(sums))
    assert abs(np.mean(sums) - losses.sum()) < 4 * spread


def test_infobatch_is_full_first_and_last() -> None:
    pruner = make_pruner("infobatch", 100, 40, 1)
    pruner.observe_visited(np.arange(100), np.r_[np.zeros(80), np.ones(20)])
    full = [epoch for epoch in range(40) if len(pruner.select(epoch).indices) == 100]
    assert full == [0, 35, 36, 37, 38, 39]
    assert set(pruner.select(39).weights.tolist()) == {1.0}


def test_rs2_sees_everything_before_anything_twice() -> None:
    pruner = make_pruner("rs2", 100, 8, 1, prune=0.75)
    first = [i for epoch in range(4) for i in pruner.select(epoch).indices.tolist()]
    second = [i for epoch in range(4, 8) for i in pruner.select(epoch).indices.tolist()]
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second


def test_static_keeps_the_highest_scores_for_good() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0])
    pruner = make_pruner("static", 4, 3, 1, prune=0.5, scores=scores)
    assert [selected(pruner, epoch) for epoch in range(3)] == [[0, 2]] * 3
    chance = make_pruner("static", 100, 3, 1, prune=0.5)
    assert selected(chance, 0) == selected(chance, 2)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", {}),
        ("uniform", {"prune": 0.5, "period": 2}),
        ("eps-greedy", {"prune": 0.5, "period": 2, "a": 0.5, "eps": 0.5}),
        ("ucb", {"prune": 0.5, "period": 2, "a": 0.5, "c": 1.0}),
        ("infobatch", {}),
        ("rs2", {"prune": 0.5}),
        ("static", {"prune": 0.5}),
    ],
)
def test_a_resumed_pruner_chooses_as_an_uninterrupted_one(method: str, settings: dict) -> None:
    def losses(epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).exponential(size=50)

    def epoch_of(pruner: Pruner, epoch: int) -> list[int]:
        if pruner.wants_losses(epoch):
            pruner.observe_all(losses(epoch))
        choice = pruner.select(epoch)
        pruner.observe_visited(choice.indices, losses(epoch)[choice.indices])
        return choice.indices.tolist()

    whole = make_pruner(method, 50, 8, 7, **settings)
    expected = [epoch_of(whole, epoch) for epoch in range(8)]
    first = make_pruner(method, 50, 8, 7, **settings)
    got = [epoch_of(first, epoch) for epoch in range(5)]
    second = make_pruner(method, 50, 8, 7, **settings)
    second.restore({key: value.copy() for key, value in first.state().items()})
    got += [epoch_of(second, epoch) for epoch in range(5, 8)]
    assert got == expected
    assert (
        expected[6] != [epoch_of(make_pruner(method, 50, 8, 8, **settings), e) for e in range(7)][6]
    )


def test_cost_counts_a_forward_pass_as_a_third() -> None:
    assert Cost(10, 6).total == pytest.approx(12.0)
    assert (Cost(1, 2) + Cost(3, 4)) == Cost(4, 6)
    # 8 epochs of 100 at 50 %: 2 full, 6 halves, and a pass before epochs 2, 4 and 6.
    pruner = make_pruner("ucb", 100, 8, 1, prune=0.5, period=2, a=0.5, c=1.0)
    assert planned_cost(pruner) == Cost(500, 300)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("none", {}),
        ("uniform", {"prune": 1.0, "period": 1}),
        ("uniform", {"prune": 0.5, "period": 0}),
        ("uniform", {}),
        ("ucb", {"prune": 0.5, "period": 1, "a": 0.0, "c": 1.0}),
        ("eps-greedy", {"prune": 0.5, "period": 1, "a": 0.5, "eps": 1.5}),
        ("infobatch", {"r": 1.0}),
        ("static", {"prune": 0.5, "scores": np.zeros(3)}),
    ],
)
def test_impossible_settings_are_refused(method: str, settings: dict) -> None:
    with pytest.raises(UsageError):
        make_pruner(method, 10, 4, 1, **settings)
