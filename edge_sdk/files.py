"""Files: written atomically (complete or absent, whatever happens), and the folders of the SDK."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from edge_sdk.errors import StorageError

_log = logging.getLogger(__name__)

OWN_FOLDERS = {
    "cache": ("STETHO_CACHE", "XDG_CACHE_HOME", ".cache"),
    "state": ("STETHO_STATE", "XDG_STATE_HOME", ".local/state"),
}
"""What the SDK keeps → variable that names the folder, the desktop's variable and folder in HOME for such things."""


@contextmanager
def whole_file(path: Path, *, alone: bool = False, to_disk: bool = False) -> Iterator[Path]:
    """Yield a draft beside ``path`` to write into; it is renamed to ``path`` at the end, or deleted after an error.

    Parameters
    ----------
    path
        In a folder that exists. An old file stays until the new one is complete.
    alone
        No other process writes this file: a draft that a killed process left behind is overwritten. Else every writer
        has its own draft, and the last one wins.
    to_disk
        Wait until the content survives a power cut.

    Raises
    ------
    OSError
        The draft cannot be renamed, or the disk is full.
    """
    writer = "part" if alone else f"{os.getpid()}-{threading.get_ident()}"
    draft = path.with_name(f".{path.name}.{writer}")
    try:
        yield draft
        if to_disk:
            with draft.open("r+b") as file:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error matters
            draft.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file through :func:`whole_file`, so that it survives a power cut.

    Raises
    ------
    OSError
        The file cannot be written; an old one is unchanged.
    """
    with whole_file(path, to_disk=True) as draft:
        draft.write_bytes(content)


def own_folder(what: Literal["cache", "state"]) -> Path:
    """Folder for the SDK's caches or state; it need not exist, see :func:`storing_in`.

    ``cache``: ``$STETHO_CACHE``, else ``$XDG_CACHE_HOME/stetho``, else ``~/.cache/stetho``; ``state`` likewise.

    Raises
    ------
    StorageError
        No variable names it, and the user has no home folder.
    """
    own, desktop, below_home = OWN_FOLDERS[what]
    if named := os.environ.get(own):
        return Path(named)
    if base := os.environ.get(desktop):
        return Path(base) / "stetho"
    try:
        return Path.home() / below_home / "stetho"
    except RuntimeError as error:
        raise StorageError(f"no folder for the {what}: this user has no home; set {own} to one") from error


@contextmanager
def storing_in(what: Literal["cache", "state"], folder: Path) -> Iterator[None]:
    """Create ``folder``, one of the SDK's own or inside it, for what is written in the ``with`` block.

    Raises
    ------
    StorageError
        It cannot be created, or a file in it cannot be written; the message names the variable to set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        own = OWN_FOLDERS[what][0]
        raise StorageError(
            f"{folder} cannot be written ({error.strerror or error}); set {own} to a folder that can be"
        ) from error


def native_name(path: Path) -> str | bytes:
    """Name of a file for libraries that encode it themselves: the bytes themselves where it is not valid text."""
    try:
        str(path).encode(sys.getfilesystemencoding())
    except UnicodeEncodeError:
        return os.fsencode(path)
    return str(path)


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that comes from a file may be longer than any file's can be."""
    try:
        return path.is_file()
    except OSError:
        return False


def lock(file: IO[bytes]) -> bool:
    """Lock an open file against other processes until it is closed; False where another one has it.

    A file system (or an operating system) without locks is noted, and counts as locked.
    """
    try:
        fcntl = importlib.import_module("fcntl")  # absent on Windows
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        _log.warning("%s cannot be locked (%s); let one command at a time write it", file.name, error)
    return True
