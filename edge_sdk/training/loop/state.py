"""The training state on disk: written after each epoch, refused where it belongs to another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge_sdk.errors import CheckpointError
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
        Unreadable, or of another recipe, seed or set of examples.
    """
    fix = f"delete {path} or choose another --out to start afresh"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"training state {path} cannot be read ({error}); {fix}") from error
    stored = state.get("identity", {})
    different = sorted(key for key in identity if plain(stored.get(key)) != plain(identity[key]))
    if different:
        raise CheckpointError(f"training state {path} is of another run ({', '.join(different)} differ); {fix}")
    return state


def plain(value: Any) -> Any:
    """Tuples become lists, so that values compare equal before and after a file."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
