"""The training state on disk: written after each epoch, refused where it belongs to another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge_sdk.errors import CheckpointError
from edge_sdk.training.data_identity import differences
from edge_sdk.training.run_folder import run_file


def write_state(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the file whole; raises ``CheckpointError`` and leaves an older state as it was."""
    with run_file(path) as draft:
        torch.save({"identity": identity, **state}, draft)


def read_state(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read the state of the run that ``identity`` describes.

    Raises
    ------
    CheckpointError
        Unreadable, or of another recipe, seed, labels or audio; the message has what differs.
    """
    fix = f"delete {path} or choose another --out to start afresh"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"training state {path} cannot be read ({error}); {fix}") from error
    difference = differences(state.get("identity", {}), identity)
    if difference:
        raise CheckpointError(f"training state {path} is of another run ({difference} differ); {fix}")
    return state
