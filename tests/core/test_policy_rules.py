"""Tracking, pacing, bursts, floors, random share, redundancy and drift of the policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drip._core import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from drip import wire
from drip.wire import Drop, PolicyKind, Reason

KEPT_BY_SCORE = Reason.THRESHOLD
BINS = wire.HISTOGRAM_BINS


class Policy:
    """A policy with its calibration: classes, thresholds (percentiles) and what else is given."""

    def __init__(
        self,
        *,
        thresholds: list[int] | None = None,
        target_ratio: int = 19661,
        redundancy: int = 0,
        shares: list[int] | None = None,
        knots: list[int] | None = None,
        classes: int = 3,
        **settings: int,
    ) -> None:
        self.policy: Any = ffi.new("drip_policy_t *")
        config: Any = ffi.new("drip_policy_config_t *")
        lib.drip_policy_defaults(config)
        config.kind, config.random_share = PolicyKind.TARGET, 0
        for name, value in settings.items():
            setattr(config, name, value)
        assert lib.drip_policy_init(self.policy, config) == 0
        self.policy.class_count = classes
        self.score: Any = ffi.new("drip_score_t *")
        self.score.classes = classes
        thresholds = [45875] * classes if thresholds is None else thresholds
        self.thresholds = self.score.thresholds = ffi.new("uint16_t[]", thresholds)
        self.calibration = self.score.calibration = ffi.new("drip_blob_calibration_t *")
        self.calibration.target_ratio = target_ratio
        self.calibration.redundancy = redundancy
        if shares is not None:
            self.shares = self.score.shares = ffi.new("uint16_t[]", shares)
        if knots is not None:
            self.knots = self.score.knots = ffi.new("int32_t[]", knots * classes)
        self.result: Any = ffi.new("drip_score_result_t *")

    def decide(self, percentile: int, c: int = 0, raw: int = 0) -> int:
        self.result.percentile, self.result.class_1, self.result.raw = percentile, c, raw
        return int(lib.drip_policy_decide(self.policy, self.score, self.result))

    def run(self, percentiles: Any, classes: Any = None) -> Any:
        classes = np.zeros(len(percentiles), int) if classes is None else classes
        return np.array(
            [self.decide(int(p), int(c)) for p, c in zip(percentiles, classes, strict=True)]
        )


def uniform(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 65536, count)


# ------------------------------------------------------------------ size


def test_all_of_it_fits_one_kibibyte() -> None:
    assert ffi.sizeof("drip_policy_t") <= 1024


# ------------------------------------------------------------------ tracker


def test_the_tracker_starts_at_the_calibrated_quantile_and_moves_by_the_stated_steps() -> None:
    policy = Policy(thresholds=[40000, 0, 65535], target=19661)
    assert policy.decide(39999) == 0
    # A class that was not seen of late moves with the full gain: 379 + 1041 quarters of a rank.
    down = (1420 * 19661) >> 16
    start = 40000 // 4
    after = policy.policy.classes[0].threshold
    assert start - after in (down, down + 1)  # rounded at random
    assert policy.decide(40000) == KEPT_BY_SCORE
    step = 379 + 1041 * 16 // 17
    owed = 19661 + 19661 // 64  # the frame that is missing is paid back over 64
    assert policy.policy.classes[0].threshold - after in (
        step - step * owed // 65536 - 1,
        step - step * owed // 65536,
    )
    assert policy.policy.held == 4 * after
    assert policy.policy.classes[1].threshold == -32768  # another class has not started


@pytest.mark.parametrize(("target", "first"), [(65536, 0), (32768, 32768), (6554, 58982)])
def test_another_target_shifts_the_start(target: int, first: int) -> None:
    policy = Policy(thresholds=[45875] * 3, target_ratio=19661, target=target)
    policy.decide(0)
    assert abs(policy.policy.held - first) <= 4


@pytest.mark.parametrize("target", [0.05, 0.2, 0.39, 0.61, 0.9])
def test_the_share_is_kept_whatever_the_scores_do(target: float) -> None:
    """Scores drift from calibration to far above and below it; classes change their shares."""
    rng = np.random.default_rng(5)
    count = 6000
    move = np.linspace(0, 3, count)
    raw = rng.normal(0, 1000, count) + 4000 * np.sin(2 * np.pi * move)
    classes = np.where(rng.random(count) < np.linspace(0.95, 0.05, count), 0, 1)
    knots = [round(v) for v in np.quantile(rng.normal(0, 1000, 4000), np.linspace(0, 1, 33))]
    policy = Policy(knots=knots, target=round(target * 65536))
    table = ffi.new("int32_t[]", knots)
    kept = np.array(
        [
            policy.decide(lib.drip_score_percentile(table, round(r)), int(c), round(r)) != 0
            for r, c in zip(raw, classes, strict=True)
        ]
    )
    for part in np.array_split(kept, 3):
        assert abs(part.mean() - target) < 0.02
    for c in (0, 1):
        assert abs(kept[classes == c].mean() - target) < 0.02


def test_scores_that_are_all_alike_are_kept_at_the_target_share_too() -> None:
    kept = Policy(target=13107).run(np.full(4000, 65535)) != 0
    assert abs(kept.mean() - 0.2) < 0.01


def test_a_fixed_threshold_does_not_follow() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD)
    assert np.mean(policy.run(uniform(4000) // 2 + 32768) != 0) > 0.55


# ------------------------------------------------------------------ ranks


def test_ranks_go_on_beyond_calibration() -> None:
    knots = [100 * i for i in range(33)]
    policy = Policy(knots=knots)
    table = ffi.new("int32_t[]", knots)

    def rank(raw: int) -> int:
        policy.result.raw, policy.result.class_1 = raw, 0
        policy.result.percentile = lib.drip_score_percentile(table, raw)
        return int(lib.drip_score_rank(policy.score, policy.result))

    assert [rank(0), rank(1600), rank(3200)] == [0, 32768, 65535]
    assert rank(3201) == 65536 + 16384 // 800
    assert rank(4000) == 65536 + 16384
    assert rank(2**31 - 1) == 65536 + 32767
    assert rank(-1) == -1 - 16384 // 800
    assert rank(-400) == -1 - 8192
    assert rank(-(2**31)) == -32768
    ranks = [rank(raw) for raw in range(-900, 4200, 7)]
    assert ranks == sorted(ranks)


def test_ranks_of_a_class_whose_scores_were_all_alike() -> None:
    policy = Policy(knots=[7] * 33)
    policy.result.raw, policy.result.percentile = 8, 65535
    assert lib.drip_score_rank(policy.score, policy.result) == 65536 + 16384
    policy.result.raw, policy.result.percentile = 5, 0
    assert lib.drip_score_rank(policy.score, policy.result) == -32768


# ------------------------------------------------------------------ band


def test_a_band_keeps_nothing_above_it() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=20000, threshold_high=40000)
    reasons = [policy.decide(p) for p in (19999, 20000, 40000, 40001)]
    assert reasons == [0, KEPT_BY_SCORE, KEPT_BY_SCORE, 0]
    assert policy.policy.drop == Drop.SCORE
    assert abs(np.mean(Policy(threshold_high=40000).run(uniform(6000)) != 0) - 0.3) < 0.02


# ------------------------------------------------------------------ random share


@pytest.mark.parametrize("kind", [PolicyKind.THRESHOLD, PolicyKind.TARGET])
def test_the_random_share_lies_inside_the_budget_and_knows_nothing_of_the_score(
    kind: PolicyKind,
) -> None:
    policy = Policy(kind=kind, random_share=6554, target=19661)
    percentiles, classes = uniform(20000), uniform(20000, 1) % 3
    reasons = policy.run(percentiles, classes)
    assert abs(np.mean(reasons != 0) - 0.3) < 0.01
    drawn = reasons & Reason.RANDOM_SHARE != 0
    assert abs(drawn.mean() - 0.1) < 0.007
    # The mean of n uniform numbers has a standard deviation of 0.289 / sqrt(n).
    assert abs(percentiles[drawn].mean() / 65536 - 0.5) < 4 * 0.289 / np.sqrt(drawn.sum())
    shares = np.bincount(classes[drawn], minlength=3) / drawn.sum()
    assert np.abs(shares - 1 / 3).max() < 4 * 0.47 / np.sqrt(drawn.sum())


# ------------------------------------------------------------------ floors


def test_the_first_frames_of_each_class_are_kept() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=65535, floor_count=3)
    reasons = [policy.decide(0, c) for c in (0, 1, 0, 0, 0, 1, 0, 2)]
    assert [r == Reason.FLOOR for r in reasons] == [1, 1, 1, 1, 0, 1, 0, 1]
    assert policy.policy.drop == Drop.NONE


def test_a_class_keeps_its_share_even_when_no_score_reaches_the_threshold() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=65535, floor_share=6554)
    classes = uniform(5000) % 3
    kept = policy.run(np.zeros(5000), classes) == Reason.FLOOR
    for c in range(3):
        seen = np.arange(1, (classes == c).sum() + 1)
        assert np.all(np.cumsum(kept[classes == c]) >= np.floor(0.0996 * seen) - 1)
        assert abs(kept[classes == c].mean() - 0.1) < 0.005


def test_a_floor_asks_for_nothing_where_enough_is_kept() -> None:
    policy = Policy(target=19661, floor_share=3277)
    reasons = policy.run(uniform(5000))
    assert np.mean(reasons & Reason.FLOOR != 0) < 0.002
    assert abs(np.mean(reasons != 0) - 0.3) < 0.02


# ------------------------------------------------------------------ bursts


def burst_stream() -> Any:
    """What calibration knows, then 200 frames of new, important things, then the known again."""
    known = uniform(3000)
    new = 52000 + uniform(200, 2) % 13000
    return np.concatenate([known, new, uniform(3000, 3)])


def test_new_conditions_are_kept_from_a_bounded_credit() -> None:
    stream = burst_stream()
    plain = Policy(target=13107).run(stream)
    policy = Policy(target=13107, burst=100)
    reasons = policy.run(stream)
    new = slice(3000, 3200)
    kept = np.mean(plain[new] != 0), np.mean(reasons[new] != 0)
    assert kept[0] < 0.35 and kept[1] > 0.6
    assert np.all(reasons[:2900] & Reason.BURST == 0)
    # Never more than the credit above the target, and the credit comes back out of the target.
    over = np.cumsum((reasons != 0) - 0.2)
    assert over.max() < 100 + 40
    assert abs(np.mean(reasons != 0) - np.mean(plain != 0)) < 0.02
    assert 30 << 16 < policy.policy.credit < 45 << 16  # 3000 frames refill 37


def test_the_credit_ends() -> None:
    policy = Policy(target=13107, burst=10)
    policy.run(uniform(2000))
    reasons = policy.run(np.full(100, 65535))
    assert 8 <= np.sum(reasons & Reason.BURST != 0) <= 14


# ------------------------------------------------------------------ pacing


@pytest.mark.parametrize("bend", [1.0, 0.3, 3.0])
def test_the_card_is_full_on_the_day(bend: float) -> None:
    """Frames come at a rate that changes by `bend` half way; the card fills when it should."""
    days, card = 2, 8000
    ticks = int(days * 86400 * 62500 / 65536)
    policy = Policy(pace_s=days * 86400, target=32768)
    rng = np.random.default_rng(1)
    free, now, filled = float(card), 0.0, []
    frame = 600
    while now < ticks:
        now += (6.0 if now < ticks / 2 else 6.0 / bend) * rng.exponential()
        lib.drip_policy_pace(policy.policy, int(now), int(free), frame)
        reason = policy.decide(int(rng.integers(0, 65536)))
        if reason:
            assert reason & Reason.PACED
            free = max(0.0, free - frame / 512)
        filled.append((now, free))
    half = next(f for t, f in filled if t > ticks / 2)
    assert abs(half / card - 0.5) < 0.03
    assert 0 <= free / card < 0.03


def test_pacing_starts_again_when_the_host_has_taken_segments() -> None:
    policy = Policy(pace_s=65536, target=32768)
    for tick in range(0, 40000, 100):
        lib.drip_policy_pace(policy.policy, tick, 1000, 512)
    assert policy.policy.pace.left == 62500 - 39900
    lib.drip_policy_pace(policy.policy, 40000, 9000, 512)
    assert policy.policy.pace.left == 62500 - 100
    # 9000 blocks; a frame of one block every 100 ticks for 62400 ticks: all of them fit.
    assert policy.policy.pace.share == 65536


def test_the_share_that_pacing_aims_at() -> None:
    policy = Policy(pace_s=65536, target=32768)
    for tick in range(0, 3300, 10):
        lib.drip_policy_pace(policy.policy, tick, 1000, 512)
    pace = policy.policy.pace
    wanted = 65536 * 1000 / ((62500 - 3290) * pace.rate_frames / pace.rate_ticks)
    assert abs(pace.share / wanted - 1) < 1e-3
    assert abs(pace.rate_frames / pace.rate_ticks - 0.1) < 0.007
    lib.drip_policy_pace(policy.policy, 3300, 0, 512)
    assert pace.share == 66  # never nothing


# ------------------------------------------------------------------ redundancy


def thumb(value: int) -> Any:
    return [value] * 25 + [0] * 3


def look(policy: Policy, value: int) -> None:
    policy.policy.thumb_cells = 25
    policy.policy.thumb.cell = thumb(value)


def test_what_is_like_a_frame_kept_lately_is_dropped_and_counted() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=1000, redundancy=0)
    policy.policy.config.redundancy = 32  # two units of mean distance
    outcome = []
    for value, percentile in [(0, 2000), (1, 2000), (2, 2000), (3, 2000), (9, 500), (9, 2000)]:
        look(policy, value)
        outcome.append((policy.decide(percentile), policy.policy.drop))
    keep = (KEPT_BY_SCORE, Drop.NONE)
    duplicate = (0, Drop.REDUNDANT)
    assert outcome == [keep, duplicate, keep, duplicate, (0, Drop.SCORE), keep]
    assert policy.policy.redundant == 2


def test_the_memory_of_kept_frames_is_a_ring_of_eight() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=0)
    policy.policy.config.redundancy = 16
    for value in range(0, 90, 10):  # nine frames: the first one is forgotten
        look(policy, value)
        assert policy.decide(0) == KEPT_BY_SCORE
    for value, kept in [(10, False), (80, False), (0, True)]:
        look(policy, value)
        assert (policy.decide(0) != 0) == kept


def test_calibration_says_what_a_duplicate_is_and_the_random_share_stays() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=0, redundancy=20)
    policy.policy.config.redundancy = 65536
    for value, kept in [(0, True), (1, False), (2, True)]:
        look(policy, value)
        assert (policy.decide(0) != 0) == kept
    policy.policy.config.random_share = 65535
    look(policy, 2)
    assert policy.decide(0) & Reason.RANDOM_SHARE
    assert policy.policy.drop == Drop.NONE


def test_without_a_look_nothing_is_redundant() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=0)
    policy.policy.config.redundancy = 65535
    assert [policy.decide(0) for _ in range(3)] == [KEPT_BY_SCORE] * 3


# ------------------------------------------------------------------ drift


def psi_reference(counts: Any, shares: Any) -> float:
    a = np.maximum(np.asarray(counts) / np.sum(counts), 33 / 65536)
    e = np.maximum(np.asarray(shares) / 65536, 33 / 65536)
    return float(((a - e) * np.log(a / e)).sum())


def test_the_stability_index_is_numpys() -> None:
    rng = np.random.default_rng(3)
    for bins in (2, 16, 64):
        for sharpness in (0.1, 1, 10, 1000):
            counts = rng.multinomial(1024, rng.dirichlet(np.full(bins, sharpness)))
            shares = (rng.dirichlet(np.full(bins, sharpness)) * 65535).astype(int)
            got = lib.drip_policy_psi(
                ffi.new("uint16_t[]", counts.tolist()), ffi.new("uint16_t[]", shares.tolist()), bins
            )
            reference = 1000 * psi_reference(counts, shares)
            assert abs(got - reference) <= 2 + 0.005 * reference
    even = ffi.new("uint16_t[]", [64] * BINS)
    assert lib.drip_policy_psi(even, ffi.new("uint16_t[]", [4096] * BINS), BINS) == 0
    assert lib.drip_policy_psi(ffi.new("uint16_t[16]"), even, BINS) == 0


def test_drift_is_told_once_until_it_has_gone() -> None:
    shares = [4096] * BINS + [21845] * 3
    policy = Policy(shares=shares)
    p = policy.policy
    policy.run(uniform(1024), np.arange(1024) % 3)
    assert (p.drift_due, p.drifted) == (0, 0)
    assert p.psi_score < 60 and p.psi_class < 5
    policy.run(uniform(540, 1) // 4 + 49152, np.arange(540) % 3)
    assert (p.drift_due, p.drifted) == (1, 1)
    assert p.psi_score > 250 and p.psi_class < 5
    p.drift_due = 0
    policy.run(uniform(540, 1) // 4 + 49152, np.zeros(540))
    assert p.drift_due == 0 and p.psi_class > 100
    policy.run(uniform(4096, 2), np.arange(4096) % 3)
    assert p.drifted == 0
    policy.run(uniform(1024, 2), np.zeros(1024))
    assert p.drift_due == 1


def test_the_status_tells_shares_of_the_classes() -> None:
    policy = Policy(kind=PolicyKind.THRESHOLD, threshold=60000)
    classes = [0] * 60 + [1] * 30 + [2] * 10
    policy.run([65535 if i % 3 == 0 else 0 for i in range(100)], classes)
    status: Any = ffi.new("drip_status_t *")
    lib.drip_policy_status(policy.policy, status)
    assert status.class_count == 3 and status.window == 100
    assert list(status.class_share[0:4]) == [153, 76, 25, 0]
    assert list(status.class_kept[0:3]) == [85, 85, 102]


@given(
    st.integers(0, 2**32 - 1),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(list(PolicyKind)),
            "threshold": st.integers(0, 65536),
            "threshold_high": st.integers(0, 65535),
            "target": st.integers(0, 65536),
            "random_share": st.integers(0, 65535),
            "burst": st.integers(0, 16383),
            "floor_share": st.integers(0, 65535),
            "floor_count": st.integers(0, 30),
            "redundancy": st.integers(0, 65536),
            "drift_limit": st.integers(0, 65535),
            "pace_s": st.integers(0, 2**32 - 1),
            "every_k": st.integers(1, 2**32 - 1),
        }
    ),
)
def test_no_settings_and_scores_break_what_the_rules_promise(
    seed: int, settings: dict[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    least = settings.pop("redundancy")
    policy = Policy(shares=[4096] * BINS + [21845] * 3, redundancy=30, **settings)
    p = policy.policy
    p.config.redundancy = least
    for _ in range(30):
        p.thumb_cells = 25
        p.thumb.cell = [*rng.integers(0, 256, 25).tolist(), 0, 0, 0]
        tick, free, size = (int(v) for v in rng.integers(0, 2**32, 3))
        lib.drip_policy_pace(p, tick, free, size % 65600 + 1)
        reason = policy.decide(int(rng.integers(0, 65536)), int(rng.integers(0, 3)))
        assert 0 <= reason < 128
        assert (p.drop == Drop.NONE) == (reason != 0)
        assert 0 <= p.credit <= settings["burst"] << 16
        assert p.pace.share == 0 or 66 <= p.pace.share <= 65536
    for entry in p.classes[0:3]:
        assert -8192 <= entry.threshold <= 24577 or entry.threshold == -32768
        assert entry.kept <= entry.seen
