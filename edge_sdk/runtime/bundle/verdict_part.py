"""The verdict of a bundle: its entry in ``bundle.json`` becomes what streams share, and is verified."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edge_sdk.errors import BundleError
from edge_sdk.runtime.bundle.files import BundleCheck, file_inside
from edge_sdk.runtime.bundle.schema import MANIFEST, VerdictEntry
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.verdict.adventitious import SoundModel, SoundParams, golden_outputs
from edge_sdk.runtime.verdict.breath_sounds import BreathParams
from edge_sdk.runtime.verdict.familiarity import FamiliarityParams
from edge_sdk.runtime.verdict.monitor import VerdictModel
from edge_sdk.runtime.verdict.params import VerdictParams


def verdict_model(folder: Path, entry: VerdictEntry) -> VerdictModel:
    """Load the network and the calibration that an entry names.

    Raises
    ------
    BundleError
        A file is missing, a setting is out of range, or the graph is of another kind.
    EngineError
        The graph cannot be loaded.
    """
    try:
        params = VerdictParams.from_dict(entry.params)
        familiarity = FamiliarityParams.from_dict(entry.familiarity)
        detector = SoundParams.from_dict(entry.detector)
        breaths = None if isinstance(entry.breaths, msgspec.UnsetType) else BreathParams.from_dict(entry.breaths)
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST}: {error}; export the bundle again") from error
    model = SoundModel(OrtEngine(file_inside(folder, entry.file)), entry.file)
    return VerdictModel(model, params, familiarity, detector, breaths)


def verdict_check(folder: Path, entry: VerdictEntry, model: VerdictModel) -> BundleCheck:
    """Run the network on its golden signal and compare the outputs."""
    name = "golden verdict"
    if not entry.golden:
        return BundleCheck(name, True, "the bundle holds none")
    found, expected = np.array(golden_outputs(model.sounds)), np.array(entry.golden)
    error = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if error <= entry.golden_tolerance:
        return BundleCheck(name, True, f"largest difference {error:.2g} (allowed {entry.golden_tolerance:g})")
    return BundleCheck(
        name, False,
        f"{folder}: {entry.file} comes out {error:.3g} off (allowed {entry.golden_tolerance:g}); this engine does not "
        "compute the network of the verdict correctly: upgrade onnxruntime or export the bundle again",
    )  # fmt: skip
