"""What a policy knows survives a restart."""

from __future__ import annotations

from typing import Any

import pytest
from drip._core import ffi, lib

from drip import wire
from drip.wire import Err, PolicyClass, PolicyState


def fresh(classes: int = 16, tag: int = 7) -> Any:
    policy: Any = ffi.new("drip_policy_t *")
    config: Any = ffi.new("drip_policy_config_t *")
    lib.drip_policy_defaults(config)
    assert lib.drip_policy_init(policy, config) == 0
    policy.class_count, policy.tag = classes, tag
    return policy


def used(classes: int = 16) -> Any:
    policy = fresh(classes)
    policy.count, policy.rng.state, policy.credit = 1234, 99, 5 << 16
    policy.fast, policy.slow, policy.pace.left, policy.pace.free = 1, 2, 3, 4
    policy.behind = -(9 << 16) - 5
    for c in range(classes):
        entry = policy.classes[c]
        entry.threshold, entry.owed, entry.seen, entry.kept = 100 * c - 50, -c, 10 + c, c
    return policy


def save(policy: Any, capacity: int) -> bytes:
    out = ffi.new("uint8_t[]", capacity)
    size = lib.drip_policy_save(policy, out, capacity)
    return bytes(ffi.buffer(out, size))


def test_sixteen_classes_fit_164_bytes_and_come_back() -> None:
    policy, other = used(), fresh()
    state = save(policy, 164)
    assert len(state) == 164
    assert lib.drip_policy_restore(other, state, len(state)) == 0
    other.config = policy.config
    assert bytes(ffi.buffer(other)) == bytes(ffi.buffer(policy))


def test_more_classes_keep_their_thresholds() -> None:
    policy, other = used(64), fresh(64)
    state = save(policy, 164)
    assert len(state) == 36 + 64 * 2
    assert lib.drip_policy_restore(other, state, len(state)) == 0
    assert [c.threshold for c in other.classes] == [100 * c - 50 for c in range(64)]
    assert {c.seen for c in other.classes} == {0}
    assert PolicyState.unpack(save(policy, 105)).classes == (105 - 36) // 2


def test_in_132_bytes_16_classes_keep_all_but_what_was_kept_of_them() -> None:
    other = fresh()
    state = save(used(), 148)
    assert len(state) == 36 + 16 * 6
    assert lib.drip_policy_restore(other, state, len(state)) == 0
    for c, entry in enumerate(other.classes[0:16]):
        assert (entry.threshold, entry.owed, entry.seen, entry.kept) == (
            100 * c - 50,
            -c,
            10 + c,
            0,
        )


def test_of_another_model_only_counters_come_back() -> None:
    state = save(used(), 164)
    other = fresh(tag=8)
    assert lib.drip_policy_restore(other, state, len(state)) == 0
    assert (other.count, other.pace.left, other.credit) == (1234, 3, 5 << 16)
    assert {c.threshold for c in other.classes} == {-32768}


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (0, 9, Err.VERSION),
        (2, 65, Err.CORRUPT),
        (3, 3, Err.CORRUPT),
        (2, 17, Err.SHORT),
        (19, 0x80, Err.CORRUPT),
    ],
)
def test_damaged_states_change_nothing(offset: int, value: int, code: Err) -> None:
    state = bytearray(save(used(), 164))
    state[offset] = value
    other = fresh()
    before = bytes(ffi.buffer(other))
    assert lib.drip_policy_restore(other, bytes(state), len(state)) == code
    assert lib.drip_policy_restore(other, bytes(state[:31]), 31) == Err.SHORT
    assert bytes(ffi.buffer(other)) == before


def test_impossible_counts_are_put_right() -> None:
    policy = used()
    policy.classes[3].seen, policy.classes[3].kept = 2, 900
    state, other = save(policy, 164), fresh()
    assert lib.drip_policy_restore(other, state, len(state)) == 0
    assert other.classes[3].kept == 2


def test_too_little_room_is_refused() -> None:
    out = ffi.new("uint8_t[]", 36)
    assert lib.drip_policy_save(used(), out, 31) == Err.MEMORY
    assert lib.drip_policy_save(used(), out, 36) == 36
    assert (wire.PolicyState.SIZE, PolicyClass.SIZE) == (36, 8)
