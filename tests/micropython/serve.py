"""Runs in MicroPython: a device on its own REPL line. Arguments: name=value."""

import sys

import drip


def sensor_of(count):
    """Return a sensor that gives so many frames, half of one at a time."""
    halves = 0

    def sensor(frame):
        nonlocal halves
        if halves == 2 * count:
            return False
        half = len(frame) // 2
        for i in range(halves % 2 * half, (halves % 2 + 1) * half):
            frame[i] = (7 * (halves // 2) + i) % 17
        halves += 1
        return halves % 2 == 0

    return sensor


def serve(model, card=None, slots=None, sensor="0"):
    """Serve until the power is cut. Arguments: names of files, and how many frames come."""
    log = drip.Log(open(card, "r+b")) if card else None  # noqa: PTH123, SIM115
    kept = drip.Slots(slots, 16384) if slots else None
    drip.run(sensor_of(int(sensor)), model, log=log, link=drip.Link(), slots=kept, arena=65536)


if __name__ == "__main__":
    serve(**dict(pair.split("=", 1) for pair in sys.argv[1:]))
