"""The golden vector: simulated cycles and their logits, with which a device checks its engine."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metadata import MetadataSchema
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.phantom import PhantomSource
from export.cycles import CycleSet

GOLDEN_SCENARIOS = ("healthy", "asthma", "pneumonia")
_SEED = 1_000_099  # one that training never uses


def golden_clips(spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    """One cycle of each scenario, fitted to the window: ``[k, window_samples]``, full scale 32768."""
    return np.stack([_clip(scenario, spec) for scenario in GOLDEN_SCENARIOS])


def _clip(scenario: str, spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    source = PhantomSource(scenario, seed=_SEED, duration_s=12.0, sample_rate=spec.rate_hz)
    samples = np.concatenate([block.samples for block in source])
    second = source.truth[1]
    window = fit_window(samples[second.onset : second.end], spec)
    return np.round(np.clip(window, -1.0, 32767 / 32768) * 32768).astype(np.int16)


def golden_metadata(schema: MetadataSchema, count: int) -> dict[str, npt.NDArray[Any]]:
    """Metadata inputs of the golden clips: everything UNKNOWN for the first, then names and values in turn."""
    rows: list[dict[str, Any]] = [{}]
    for row in range(count - 1):
        names: dict[str, Any] = {
            field: values[row % len(values)] for field, values in schema.categorical.items() if values
        }
        scores = zip(schema.continuous, schema.mean, schema.std, strict=True)
        rows.append(names | {field: mean + (-1) ** row * std for field, mean, std in scores})
    return schema.encode(rows)


def simulated_breaths(spec: FrontEndSpec, per_scenario: int = 16) -> CycleSet:
    """Windows of simulated cycles, which calibrate an untrained model: it has no corpus."""
    pcm, labels, patients = [], [], []
    for scenario in GOLDEN_SCENARIOS:
        source = PhantomSource(scenario, seed=_SEED + 1, duration_s=6.0 * per_scenario, sample_rate=spec.rate_hz)
        samples = np.concatenate([block.samples for block in source])
        for cycle in source.truth[:per_scenario]:
            pcm.append(fit_window(samples[cycle.onset : cycle.end], spec))
            labels.append(cycle.label)
            patients.append(scenario)
    return CycleSet("phantom", "simulated", np.stack(pcm), tuple(labels), tuple(patients))


def golden_file(
    clips: npt.NDArray[np.int16],
    logits: dict[str, npt.NDArray[np.float32]],
    metadata: Mapping[str, npt.NDArray[Any]] | None = None,
) -> bytes:
    """The ``.npz``: ``pcm``, ``metadata_<input>`` and ``logits_<format>`` with dashes as underscores."""
    buffer = io.BytesIO()
    arrays = {f"logits_{name.replace('-', '_')}": values for name, values in logits.items()}
    arrays |= {f"metadata_{name}": values for name, values in (metadata or {}).items()}
    np.savez_compressed(buffer, allow_pickle=False, pcm=clips, **arrays)
    return buffer.getvalue()
