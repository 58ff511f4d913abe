"""Settings of a board by name, and its counters as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from drip import wire
from drip.device import monitor
from drip.device import settings as board_config
from drip.errors import LinkError, UsageError
from drip.wire import Config


@pytest.mark.parametrize(
    ("text", "key", "value", "shown"),
    [
        ("threshold=30%", Config.THRESHOLD, 19660, "30%"),
        ("threshold = 0 %", Config.THRESHOLD, 0, "0%"),
        ("THRESHOLD=calibrated", Config.THRESHOLD, 65536, "calibrated"),
        ("random-share=100%", Config.RANDOM_SHARE, 65535, "100%"),
        ("score_kind=margin", Config.SCORE_KIND, 3, "margin"),
        ("score_kind=calibrated", Config.SCORE_KIND, 0, "calibrated"),
        ("policy_kind=every-kth", Config.POLICY_KIND, 4, "every_kth"),
        ("full_mode=overwrite_acked", Config.FULL_MODE, 1, "overwrite_acked"),
        ("events=on", Config.EVENTS, 1, "on"),
        ("commit_ms=2s", Config.COMMIT_MS, 2000, "2000ms"),
        ("commit_ms=250ms", Config.COMMIT_MS, 250, "250ms"),
        ("commit_ms=250", Config.COMMIT_MS, 250, "250ms"),
        ("commit_bytes=64K", Config.COMMIT_BYTES, 65536, "65536"),
        ("seed=4294967295", Config.SEED, 2**32 - 1, "4294967295"),
        ("every_k=7", Config.EVERY_K, 7, "7"),
        ("class_floor=62", Config.CLASS_FLOOR, 62, "62"),
    ],
)
def test_values_as_people_write_them(text: str, key: Config, value: int, shown: str) -> None:
    assert board_config.parse_assignments([text]) == {key: value}
    assert board_config.show(key, value) == shown
    again = board_config.parse(key, shown)
    assert again == value


def test_what_is_shown_of_a_share_is_near_it() -> None:
    for share in range(0, 65536, 97):
        shown = board_config.show(Config.THRESHOLD, share)
        assert abs(board_config.parse(Config.THRESHOLD, shown) - share) <= 33


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("treshold=30%", "did you mean threshold"),
        ("threshold=0.3", "a percentage from 0% to 100% or calibrated"),
        ("threshold=101%", "percentage"),
        ("threshold=-1%", "percentage"),
        ("threshold=nan%", "percentage"),
        ("threshold=%", "percentage"),
        ("score_kind=5", "cam_evidence"),
        ("events=1", "on or off"),
        ("commit_ms=1h", "duration"),
        ("commit_ms=-5", "duration"),
        ("commit_bytes=much", "size"),
        ("commit_bytes=8G", "size"),
        ("seed=4294967296", "whole number"),
        ("seed=", "whole number"),
        ("class_floor=63", "up to 62"),
    ],
)
def test_mistakes_say_what_is_possible(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        board_config.parse_assignments([text])
    assert hint in caught.value.hint


def test_settings_of_newer_firmware_are_shown() -> None:
    assert board_config.name_of(99) == "key_99"
    assert board_config.show(99, 5) == "5"
    assert board_config.show(Config.SCORE_KIND, 77) == "77"


# ---------------------------------------------------------------- readings


class Board:
    """As much of a client as a reading needs."""

    name = "port"

    def __init__(self, *statuses: wire.Status | LinkError) -> None:
        self._statuses = list(statuses)
        self.device = wire.Hello(port=b"test".ljust(16, b"\0"), firmware=0x010203)
        self.settings: list[dict[int, int]] = []

    def config_set(self, settings: dict[int, int]) -> None:
        self.settings.append(settings)

    def hello(self) -> wire.Hello:
        return self.device

    def status(self) -> wire.Status:
        found = self._statuses.pop(0)
        if isinstance(found, LinkError):
            raise found
        return found


def status(**fields: Any) -> wire.Status:
    return wire.Status(**{"boot_id": 1, **fields})


def test_rate_and_share_count_from_the_reading_before() -> None:
    board: Any = Board(
        status(uptime_ms=10_000, frames_seen=100, frames_kept=50),
        status(uptime_ms=12_000, frames_seen=140, frames_kept=60),
        status(uptime_ms=12_000, frames_seen=140, frames_kept=60),
        status(boot_id=2, uptime_ms=1_000, frames_seen=5, frames_kept=5),
    )
    first = monitor.read(board)
    assert (first.frames_per_s, first.kept_share) == (10.0, 0.5)
    second = monitor.read(board, first)
    assert (second.frames_per_s, second.kept_share) == (20.0, 0.25)
    third = monitor.read(board, second)
    assert (third.frames_per_s, third.kept_share) == (0.0, None)
    # After a restart there is nothing to count from.
    last = monitor.read(board, third)
    assert (last.frames_per_s, last.kept_share) == (5.0, 1.0)


def test_lines_for_people_have_units() -> None:
    board: Any = Board(
        status(
            uptime_ms=3_600_000,
            frames_seen=1000,
            frames_kept=250,
            log_end=3 << 20,
            log_acked=1 << 20,
            log_capacity=8 << 20,
            card_state=wire.CardState.READY,
            infer_us=12_300,
            histogram=(0,) * 15 + (9,),
            link_errors=2,
            last_error=wire.Err.FULL,
        )
    )
    lines = monitor.describe(monitor.read(board))
    assert lines["running for"] == "1 h 0 min, boot 1"
    assert lines["frames"] == "1000 seen, 250 kept (25.0 %)"
    assert lines["card"] == "ready [██········] 25.0 %: 2.0 MiB of 8.0 MiB wait"
    assert lines["decision takes"] == "12.3 ms"
    assert lines["scores, 0 to 100 %"] == f"[{' ' * 15}█]"
    assert lines["board"] == f"{'00' * 16} (test, firmware 1.2.3)"
    assert (lines["errors"], lines["last error"]) == ("2 on the line, 0 of the card", "full")


def test_what_a_card_has_given_up_is_shown_when_there_is_something() -> None:
    board: Any = Board(status(), status(records_evicted=7, log_damaged=2))
    calm = monitor.describe(monitor.read(board))
    assert not {"evicted", "damage"} & set(calm)
    lines = monitor.describe(monitor.read(board))
    assert lines["evicted"] == "7 records made room for others"
    assert lines["damage"] == "2 places on the card, found when it was mounted"


def test_faults_of_the_processor_and_its_stack_are_shown() -> None:
    fault = {"fault_pc": 0x08001234, "fault_lr": 0x0800C00D, "fault_cause": 0x100}
    board: Any = Board(status(), status(faults=2, stack_free=1428, **fault))
    assert not {"faults", "stack"} & set(monitor.describe(monitor.read(board)))
    lines = monitor.describe(monitor.read(board))
    assert lines["faults"] == (
        "2 since power-on; the last at 0x08001234, called from 0x0800c00d, cause 0x100"
    )
    assert lines["stack"] == "1428 bytes were never used"


def test_newer_states_and_no_card() -> None:
    board: Any = Board(status(card_state=200))
    reading = monitor.read(board)
    assert reading.card_fill is None
    assert monitor.describe(reading)["card"] == "unknown (200)"


def test_a_board_that_goes_away_is_waited_for() -> None:
    first = Board(status(uptime_ms=1000), LinkError("it has gone"))
    again = Board(status(uptime_ms=2000))
    boards = [first, LinkError("no such port"), again]

    @contextmanager
    def open_board() -> Iterator[Any]:
        found = boards.pop(0)
        if isinstance(found, LinkError):
            raise found
        yield found

    waits: list[float] = []
    steps = monitor.follow(open_board, 0.5, waits.append)
    assert isinstance(next(steps), monitor.Reading)
    assert [str(next(steps)) for _ in range(2)] == ["it has gone", "no such port"]
    last = next(steps)
    assert isinstance(last, monitor.Reading)
    assert last.status.uptime_ms == 2000
    assert waits == [0.5, 0.5, 0.5]
    steps.close()
    # Events are asked for while somebody listens, and no longer.
    assert first.settings == [{wire.Config.EVENTS: 1}]
    assert again.settings == [{wire.Config.EVENTS: 1}, {wire.Config.EVENTS: 0}]
    boards.append(LinkError("nobody"))
    with pytest.raises(LinkError, match="nobody"):
        next(monitor.follow(open_board, 0.5, waits.append))
