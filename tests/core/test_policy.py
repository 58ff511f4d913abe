"""Keep or drop, for every rule."""

from __future__ import annotations

from typing import Any

import pytest
from drip._core import ffi, lib

from drip.wire import Err, PolicyKind, Reason

THRESHOLDS = [0, 30000, 65535]


class Policy:
    """A policy of fixed thresholds with defaults except for the settings named."""

    def __init__(self, **settings: int) -> None:
        self.policy: Any = ffi.new("drip_policy_t *")
        config: Any = ffi.new("drip_policy_config_t *")
        lib.drip_policy_defaults(config)
        config.kind = PolicyKind.THRESHOLD
        for name, value in settings.items():
            setattr(config, name, value)
        self.code = lib.drip_policy_init(self.policy, config)
        self.thresholds = ffi.new("uint16_t[]", THRESHOLDS)

    def decide(self, percentile: int, c: int = 0, calibrated: bool = True) -> int:
        score: Any = ffi.new("drip_score_t *")
        score.classes = 3
        score.thresholds = self.thresholds if calibrated else ffi.NULL
        result: Any = ffi.new("drip_score_result_t *")
        result.percentile = percentile
        result.class_1 = c
        return int(lib.drip_policy_decide(self.policy, score, result))

    def decide_blind(self) -> int:
        return int(lib.drip_policy_decide(self.policy, ffi.NULL, ffi.NULL))


def test_defaults() -> None:
    config: Any = ffi.new("drip_policy_config_t *")
    lib.drip_policy_defaults(config)
    assert (config.kind, config.threshold, config.seed) == (PolicyKind.TARGET, 65536, 1)
    # As the model was calibrated, both.
    assert (config.target, config.redundancy) == (0, 65536)
    assert round(config.random_share / 65536, 3) == 0.05


@pytest.mark.parametrize(
    ("percentile", "c", "keep"),
    [(0, 0, 1), (29999, 1, 0), (30000, 1, 1), (65534, 2, 0), (65535, 2, 1)],
)
def test_the_threshold_of_the_predicted_class_decides(percentile: int, c: int, keep: int) -> None:
    policy = Policy(random_share=0)
    assert policy.decide(percentile, c) == keep * Reason.THRESHOLD


def test_a_threshold_in_the_settings_holds_for_all_classes() -> None:
    policy = Policy(random_share=0, threshold=40000)
    for c in range(3):
        assert policy.decide(39999, c) == 0
        assert policy.decide(40000, c) == Reason.THRESHOLD


def test_without_calibration_every_frame_is_kept() -> None:
    policy = Policy(random_share=0)
    assert policy.decide(0, calibrated=False) == Reason.THRESHOLD
    assert policy.decide(0, c=7) == Reason.THRESHOLD  # a class the thresholds do not have


def test_without_a_model_a_rule_that_needs_scores_keeps_every_frame() -> None:
    assert Policy().decide_blind() == Reason.NO_MODEL
    assert Policy(kind=PolicyKind.ALL).decide_blind() == Reason.SCHEDULE
    assert Policy(kind=PolicyKind.NONE).decide_blind() == 0


def test_the_random_share_is_drawn_from_all_frames_by_seed() -> None:
    share = 6554
    reasons = [Policy(threshold=60000, random_share=share, seed=5)]
    runs = []
    for policy in (*reasons, Policy(threshold=60000, random_share=share, seed=5)):
        runs.append([policy.decide(65535 if i % 2 else 0) for i in range(20000)])
    assert runs[0] == runs[1]
    for odd in (0, 1):
        drawn = [r & Reason.RANDOM_SHARE for r in runs[0][odd::2]]
        assert abs(sum(map(bool, drawn)) / 10000 - 0.1) < 0.012
    assert {r & Reason.THRESHOLD for r in runs[0][1::2]} == {Reason.THRESHOLD}
    assert {r & Reason.THRESHOLD for r in runs[0][0::2]} == {0}
    other = Policy(threshold=60000, random_share=share, seed=6)
    assert runs[0] != [other.decide(65535 if i % 2 else 0) for i in range(20000)]


def test_a_random_share_of_0_and_of_65535_are_never_and_always() -> None:
    never = Policy(threshold=65535, random_share=0)
    always = Policy(threshold=65535, random_share=65535)
    assert {never.decide(0) for _ in range(3000)} == {0}
    assert {always.decide(0) for _ in range(70000)} == {Reason.RANDOM_SHARE}


def test_all_and_none() -> None:
    everything, nothing = Policy(kind=PolicyKind.ALL), Policy(kind=PolicyKind.NONE)
    for percentile in (0, 65535):
        assert everything.decide(percentile) == Reason.SCHEDULE
        assert nothing.decide(percentile) == 0


def test_every_kth_starts_with_the_first_frame() -> None:
    policy = Policy(kind=PolicyKind.EVERY_KTH, every_k=3)
    assert [policy.decide(65535) for _ in range(8)] == [Reason.SCHEDULE, 0, 0] * 2 + [4, 0]
    each = Policy(kind=PolicyKind.EVERY_KTH, every_k=1)
    assert [each.decide(0) for _ in range(4)] == [Reason.SCHEDULE] * 4


@pytest.mark.parametrize(
    "settings", [{"kind": 0}, {"kind": 6}, {"threshold": 65537}, {"every_k": 0}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    assert Policy(**settings).code == Err.ARGUMENT
