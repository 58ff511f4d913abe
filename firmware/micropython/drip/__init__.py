"""DRIP for MicroPython: score frames on the board, keep what is worth keeping, sync it to a host.

The work is done by the C core, in a native module that fits the processor or in the firmware
itself. This file finds it; when there is none it says why, and what to do about it.
"""

import sys

__version__ = "0.1.0"

# sys.implementation._mpy: version, sub-version << 8, architecture << 10.
_ARCHITECTURES = (
    None,
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
)
_BUILT = ("x64", "armv6m", "armv7m", "armv7emsp", "xtensawin", "rv32imc")
_INSTALL = "from a computer: drip micropython install PORT"


def _candidates(arch):
    """Return the names of the modules that a processor can run, the fastest first."""
    if arch.startswith("armv7") or arch == "armv6m":
        # Every ARM Cortex-M also runs what smaller ones run.
        names = ("armv7emsp", "armv7m", "armv6m")
        if arch in ("armv7emsp", "armv7emdp"):
            return names
        return names[1:] if arch != "armv6m" else names[2:]
    return (arch,)


def _explain(implementation):
    """Return why no native module can be loaded here, or None when one can."""
    name = getattr(implementation, "name", "this Python")
    if name != "micropython":
        return (
            "this is the package for MicroPython, and this is " + name + "; on a PC: `make setup`"
        )
    version = ".".join(str(part) for part in implementation.version[:3])
    mpy = getattr(implementation, "_mpy", 0)
    index = mpy >> 10 & 0x3F
    if tuple(implementation.version[:2]) < (1, 24):
        return "MicroPython " + version + " is too old: drip needs 1.24 or later"
    if index == 0 or index >= len(_ARCHITECTURES):
        return (
            "this firmware cannot load native modules: build one with drip in it "
            "(docs/MICROPYTHON.md)"
        )
    if mpy & 0xFF != 6 or mpy >> 8 & 3 != 3:
        return "MicroPython {} wants native modules of version {}.{}, these are 6.3".format(
            version, mpy & 0xFF, mpy >> 8 & 3
        )
    if not any(arch in _BUILT for arch in _candidates(_ARCHITECTURES[index])):
        return "there is no native module for " + _ARCHITECTURES[index] + " (docs/MICROPYTHON.md)"
    return None


def _load():
    """Return the module with the C core."""
    try:
        import _drip

        return _drip
    except ImportError:
        pass
    reason = _explain(sys.implementation)
    if reason:
        raise ImportError("drip: " + reason)
    tried = []
    for arch in _candidates(_ARCHITECTURES[sys.implementation._mpy >> 10 & 0x3F]):
        try:
            return __import__("drip.native_" + arch, None, None, ("score",))
        except ImportError:
            tried.append("native_" + arch + ".mpy")
        except ValueError as error:
            raise ImportError("drip: native_" + arch + ".mpy: " + str(error)) from error
    raise ImportError(
        "drip: none of " + ", ".join(tried) + " is in the folder drip; install it " + _INSTALL
    )


native = _load()

from drip.scorer import Error, Result, Scorer  # noqa: E402 - it needs what was found

__all__ = ["Device", "Error", "Link", "Log", "Result", "Scorer", "Slots", "native", "run"]


def __getattr__(name):
    """Load drip.device when it is used first: who only scores does not pay for it."""
    if name not in ("Device", "Link", "Log", "Slots", "run"):
        raise AttributeError(name)
    return getattr(__import__("drip.device", None, None, (name,)), name)
