"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, alone: bool = False, to_disk: bool = False) -> Iterator[Path]:
    """A draft beside ``path`` to write into; it takes its name at the end, or vanishes where the writing fails.

    Parameters
    ----------
    path
        In a folder that exists. What was there before stays until the new file is whole.
    alone
        Nobody else writes this file: a draft that a kill left behind is written over. Else every writer has its own,
        and the last one wins.
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
        with suppress(OSError):  # the error that matters is the one under way
            draft.unlink(missing_ok=True)
        raise
