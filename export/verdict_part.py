"""The verdict as a part of a bundle: the step graph of its network, its calibration, its figures and its origin."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.schema import VerdictEntry
from edge_sdk.runtime.bundle.verdict_part import verdict_model
from edge_sdk.runtime.verdict.adventitious import golden_outputs
from edge_sdk.training.adventitious.building import checkpoint_adventitious
from edge_sdk.training.adventitious.run import CALIBRATION, FIGURES
from edge_sdk.training.checkpoint import load_checkpoint
from export.onnx.sound_graph import export_adventitious
from export.training_record import training_record

VERDICT_FILE = "verdict.onnx"


@dataclass(frozen=True)
class VerdictPart:
    """A network of crackles and wheezes with its calibration, ready for a bundle."""

    entry: VerdictEntry
    content: bytes
    training: dict[str, Any] = field(default_factory=dict)  # its origin


def verdict_part(path: Path) -> VerdictPart:
    """Export the checkpoint of ``stetho train adventitious``.

    Raises
    ------
    ExportError
        The file does not exist, or the checkpoint holds no calibration.
    CheckpointError
        The file is not a checkpoint, or another model's.
    BundleError
        The calibration has a setting out of its range.
    """
    if not path.is_file():
        raise ExportError(f"verdict {path} does not exist; give a checkpoint of 'stetho train adventitious'")
    checkpoint = load_checkpoint(path)
    network, recipe = checkpoint_adventitious(checkpoint)
    calibration = checkpoint.metrics.get(CALIBRATION)
    if not calibration:
        raise ExportError(
            f"{path} holds no calibration of a verdict; 'stetho train adventitious --cv 3 --out CV' calibrates, "
            "then train with --set adventitious.calibration=CV/cv.json"
        )
    content = export_adventitious(network, name=recipe.name).SerializeToString()
    entry = VerdictEntry(
        file=VERDICT_FILE,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        params=calibration["params"],
        familiarity=calibration["familiarity"],
        detector=calibration["detector"],
        breaths=calibration.get("breaths", msgspec.UNSET),
        accuracy=calibration.get(FIGURES, {}),
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / VERDICT_FILE).write_bytes(content)
        golden = golden_outputs(verdict_model(Path(folder), entry).sounds)
    parameters = sum(p.numel() for p in network.parameters())
    training = {
        **{name: checkpoint.recipe[name] for name in ("name", "development") if checkpoint.recipe.get(name)},
        "parameters": parameters,
        **training_record(checkpoint.provenance),
    }
    return VerdictPart(replace(entry, golden=golden), content, training)
