"""Lines that fail, and accidents that wait for their moment; shared by the property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from drip.bench.line import Faults, LineEnd
from drip.errors import LinkError

BANNER = b"\r\n\0ets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET)\r\n>>> \0\x03\x00\x02A"

faults = st.builds(
    Faults,
    flip=st.sampled_from([0.0, 1e-4, 1e-3]),
    drop=st.sampled_from([0.0, 1e-4, 1e-3]),
    double=st.sampled_from([0.0, 1e-4]),
    burst=st.sampled_from([0.0, 2e-5]),
    stall=st.sampled_from([0.0, 5e-5]),
    repeat=st.sampled_from([0.0, 1e-4]),
    reorder=st.sampled_from([0.0, 1e-4]),
)


class CrashError(Exception):
    """The host's program ends here."""


class Moments:
    """When which accident happens.

    Args:
        plan: Kinds and moments; what a moment counts is up to the caller.
    """

    def __init__(self, plan: list[tuple[str, int]]) -> None:
        self._waiting: dict[str, list[int]] = {}
        for kind, at in sorted(plan, key=lambda item: item[1]):
            self._waiting.setdefault(kind, []).append(at)

    def due(self, kind: str, now: int) -> bool:
        """Whether an accident of this kind happens now; each happens once."""
        waiting = self._waiting.get(kind, [])
        if not waiting or now < waiting[0]:
            return False
        del waiting[0]
        return True

    def clear(self) -> None:
        """Nothing happens any more."""
        self._waiting.clear()

    def strike(self, end: LineEnd, now: int) -> None:
        """Let happen what is due while the host looks at the line.

        Raises:
            LinkError: The cable is out.
            CrashError: The host's program ends.
        """
        device = end.device
        if self.due("power", now):
            device.boot()
        if self.due("banner", now):
            device.to_host.inject(device.now_us, BANNER)
            device.to_device.inject(device.now_us, BANNER)
        if self.due("cable", now):
            device.to_host.clear()
            raise LinkError("the cable is out", "plug it in")
        if self.due("crash", now):
            raise CrashError
