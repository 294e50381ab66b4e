"""Writing files that are either whole or absent, also when the disk fills up half way."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edge_sdk.errors import CheckpointError
from edge_sdk.files import whole_file


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` beside ``path``, then rename: whatever goes wrong, an older file of that name stays whole.

    Raises
    ------
    CheckpointError
        The file could not be written; the message says why and what of the old one is left.
    """
    write_atomically(path, lambda partial: torch.save(content, partial))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it; see :func:`save_atomically`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, alone=True) as draft:
            write(draft)
    except (OSError, RuntimeError) as error:  # torch reports a short write of its zip as RuntimeError
        kept = "the previous one is intact" if path.is_file() else "nothing was left behind"
        raise CheckpointError(f"{path} could not be written ({_reason(error)}); {kept}") from error


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    full = number in (errno.ENOSPC, errno.EDQUOT) or "unexpected pos" in text or "No space left" in text
    return "the disk is full: free some space and give the same command again to go on" if full else text
