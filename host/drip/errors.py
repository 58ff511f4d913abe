"""Every error that a user of DRIP can meet: one tree, one exit code per class.

A message is one line that says what is wrong; ``hint`` says what to do about it. The command line
prints both and exits with ``exit_code``; tracebacks appear only with ``--debug``.
"""

from __future__ import annotations


class DripError(Exception):
    """Base of all errors DRIP raises on purpose.

    Args:
        message: One line, what is wrong, naming the file or port.
        hint: One line, what the user can do; empty when there is nothing to say.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DripError):
    """The command line or a function was called with arguments that make no sense."""

    exit_code = 2


class ConfigError(DripError):
    """``drip.toml`` is missing, malformed or contradicts itself."""

    exit_code = 3


class DataError(DripError):
    """A data set, frame or label file cannot be used."""

    exit_code = 4


class ModelError(DripError):
    """A Keras, ``.tflite`` or ``.drip`` model is corrupt, unsupported or of another version."""

    exit_code = 5


class VerifyError(DripError):
    """Two things that must agree bit for bit do not."""

    exit_code = 6


class CardError(DripError):
    """A card or card image is missing, damaged or not formatted for DRIP."""

    exit_code = 7


class LinkError(DripError):
    """The port cannot be opened, nothing answers, or what answers is not a DRIP device."""

    exit_code = 8


class SchemaError(LinkError):
    """The device speaks another version of the protocol for what was asked."""

    exit_code = 9


class DeviceError(DripError):
    """The device refused a request.

    Args:
        message: One line, what was asked and what the device said.
        code: The device's error code, a member of ``drip.wire.Err`` (negative).
        hint: One line, what the user can do.
    """

    exit_code = 10

    def __init__(self, message: str, code: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class StoreError(DripError):
    """The store on disk cannot be read or written (full disk, damage, another version)."""

    exit_code = 11


class MissingDependencyError(DripError):
    """An optional part (TensorFlow, the compiled core, a tool) is not installed."""

    exit_code = 12


class BuildError(DripError):
    """A board's image could not be built or uploaded."""

    exit_code = 13


def install_hint(extra: str) -> str:
    """How an optional part of DRIP is installed, for hints.

    DRIP is installed from a checkout; the package ``drip`` of the package index is another
    project's.

    Args:
        extra: Name of the extra in pyproject.toml.
    """
    return f"in a checkout of DRIP: pip install '.[{extra}]'"
