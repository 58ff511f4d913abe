"""Calling a function on a Ray cluster: a thin adapter, no scheduler of our own.

``RAY_ADDRESS`` names the cluster; without it Ray starts workers on this computer. Workers need this
package and see their own disks, and what a function takes and gives travels pickled.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from drip.errors import LinkError, MissingDependencyError, install_hint

__all__ = ["call"]

_T = TypeVar("_T")
_CONNECT_S = 5.0
_HINT = "check RAY_ADDRESS and the cluster; unset it to use this computer"


def call(function: Callable[..., _T], *args: Any, **options: Any) -> _T:
    """Call a function on a worker and wait for what it returns or raises.

    Args:
        function: Of a module that the workers can import.
        *args: Of the function.
        **options: Of the function.

    Raises:
        MissingDependencyError: Ray is not installed.
        LinkError: There is no cluster at ``RAY_ADDRESS``, or the worker has died.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("the engine ray needs Ray", install_hint("ray")) from error
    mine = not ray.is_initialized()
    if mine:
        _check_address()
    try:
        if mine:
            ray.init(log_to_driver=False, logging_level="ERROR")
        found: _T = ray.get(ray.remote(function).remote(*args, **options))
        return found
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except (ConnectionError, ray.exceptions.RayError) as error:
        where = os.environ.get("RAY_ADDRESS", "this computer")
        text = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise LinkError(f"Ray on {where}: {text}", _HINT) from error
    finally:
        if mine:
            ray.shutdown()


def _check_address() -> None:
    """Ray itself would try for minutes, and say so at length."""
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LinkError(f"no Ray cluster at {address}: {reason}", _HINT) from error
