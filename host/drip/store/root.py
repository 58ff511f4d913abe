"""Where a store lies: a folder of this computer, or anything that fsspec reaches."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from drip.data.files import write_atomic
from drip.disk import disk_error, make_folder
from drip.errors import StoreError

__all__ = ["Root", "find_root"]

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")


@dataclass(frozen=True)
class Root:
    """A place for the files of a store.

    Attributes:
        name: As the user wrote it.
        local: Folder of this computer for the spool and the lock: the store's own where it is a
            folder, else one that belongs to this URL.
        fs: fsspec file system, None for a folder of this computer.
        base: Path of the store in ``fs``.
    """

    name: str
    local: Path
    fs: Any = None
    base: str = ""

    @property
    def arrow(self) -> Any:
        """The ``pyarrow.fs`` file system to read with, None for the local one."""
        if self.fs is None:
            return None
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self.fs))

    def path(self, name: str) -> str:
        """Path of a file as ``arrow`` takes it."""
        if self.fs is None:
            return str(self.local / name)
        return posixpath.join(self.base, name)

    def parquet_files(self, folder: str) -> list[str]:
        """Paths of the Parquet files of a folder, in the order of their making."""
        if self.fs is None:
            return [str(file) for file in sorted((self.local / folder).glob("*.parquet"))]
        with _reaching(self):
            # Listings are cached by fsspec; another program may have added files.
            self.fs.invalidate_cache()
            return sorted(self.fs.glob(posixpath.join(self.base, folder, "*.parquet")))

    def read(self, name: str) -> bytes | None:
        """The content of a small file, None when it is not there.

        Raises:
            OSError: It cannot be read (local).
            StoreError: The place cannot be reached.
        """
        if self.fs is None:
            file = self.local / name
            return file.read_bytes() if file.exists() else None
        with _reaching(self):
            try:
                return bytes(self.fs.cat_file(self.path(name)))
            except FileNotFoundError:
                return None

    def write(self, name: str, fill: Callable[[IO[bytes]], object]) -> None:
        """Write a file, whole or not at all.

        Raises:
            StoreError: It cannot be written; nothing has changed.
        """
        if self.fs is None:
            target = self.local / name
            try:
                make_folder(target.parent)
                write_atomic(target, fill)
            except OSError as error:
                raise disk_error(target.parent, error) from error
            return
        # One put of the whole content: an object store shows it complete or not at all.
        content = io.BytesIO()
        fill(content)
        with _reaching(self):
            self.fs.makedirs(posixpath.dirname(self.path(name)), exist_ok=True)
            self.fs.pipe_file(self.path(name), content.getvalue())

    def is_empty(self) -> bool:
        """Whether nothing lies there yet."""
        if self.fs is None:
            return not self.local.is_dir() or not any(self.local.iterdir())
        with _reaching(self):
            return not self.fs.exists(self.base) or not self.fs.ls(self.base, detail=False)


def find_root(path: str | os.PathLike[str]) -> Root:
    """The place that a path or URL names.

    Args:
        path: A folder, or a URL of any file system that fsspec knows (``s3://bucket/frames``).

    Raises:
        StoreError: No such file system, or its driver is not installed.
    """
    text = os.fspath(path)
    scheme = _URL.match(text)
    if scheme is None:
        return Root(text, Path(text))
    if scheme.group(1) in ("file", "local"):
        return Root(text, Path(text[scheme.end() :]))
    import fsspec

    try:
        fs, base = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise StoreError(f"cannot open {text}: {error}", "install that package with pip") from error
    except Exception as error:  # every driver has its own errors
        raise StoreError(f"cannot open {text}: {_one_line(error)}", "check the URL") from error
    digest = hashlib.sha256(f"{scheme.group(1)}://{base}".encode()).hexdigest()[:16]
    return Root(text, _state_folder() / "stores" / digest, fs, base.rstrip("/"))


def _state_folder() -> Path:
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "drip"
    return Path(os.environ.get("XDG_STATE_HOME", str(Path.home() / ".local/state"))) / "drip"


@contextlib.contextmanager
def _reaching(root: Root) -> Iterator[None]:
    """Turn what a driver raises into one line for the user."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # every driver has its own errors
        raise StoreError(
            f"cannot reach {root.name}: {_one_line(error)}",
            "check the address, the credentials and the network, then repeat the command",
        ) from error


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100]
