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


_RUMBLE = (30.0, 0.9, 0.005)  # Hz, level, level of the breath: a contact microphone that is moved
_STRESS_LEVELS = (0.5, 0.02)
_STRESS_HZ = (15.0, 22.0, 45.0, 70.0)


def golden_clips(spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    """One cycle of each scenario, a rumble and full scale, each of the window: ``[k, window_samples]``.

    Cycles alone do not show a front end that computes in TF32 or float16 on a GPU. Full scale is 32768.
    """
    cycles = [_clip(scenario, spec) for scenario in GOLDEN_SCENARIOS]
    return _integers(np.stack([*cycles, _rumble(cycles[-1], *_RUMBLE, spec), _full_scale(spec)]))


def stress_clips(spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    """Clips that are harder than the golden ones and not among them: ``[n, window_samples]``."""
    cycles = [_clip(scenario, spec) for scenario in GOLDEN_SCENARIOS]
    rng = np.random.default_rng(_SEED)
    noise = rng.uniform(-1.0, 1.0, spec.window_samples)
    rumbles = [_rumble(cycles[i % len(cycles)], hz, *_STRESS_LEVELS, spec) for i, hz in enumerate(_STRESS_HZ)]
    return _integers(np.stack([*rumbles, noise, np.zeros(spec.window_samples)]))


def stress_metadata(schema: MetadataSchema, count: int) -> dict[str, npt.NDArray[Any]]:
    """Metadata inputs of the stress clips: everything UNKNOWN."""
    return schema.encode([{}] * count)


def _rumble(
    breath: npt.NDArray[np.floating[Any]], hz: float, level: float, breath_level: float, spec: FrontEndSpec
) -> npt.NDArray[np.floating[Any]]:
    """A breath far below a tone that lies under the band: their ratio is beyond TF32's 10 bits."""
    time_s = np.arange(spec.window_samples) / spec.rate_hz
    return np.asarray(breath_level * breath + level * np.sin(2 * np.pi * hz * time_s))


def _full_scale(spec: FrontEndSpec) -> npt.NDArray[np.floating[Any]]:
    """A square wave at both ends of the scale: no audio has more energy in the band."""
    time_s = np.arange(spec.window_samples) / spec.rate_hz
    return np.asarray(np.where(np.sin(2 * np.pi * 97.0 * time_s) >= 0, 1.0, -1.0))


def _integers(clips: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    return np.round(np.clip(clips, -1.0, 32767 / 32768) * 32768).astype(np.int16)


def _clip(scenario: str, spec: FrontEndSpec) -> npt.NDArray[np.floating[Any]]:
    source = PhantomSource(scenario, seed=_SEED, duration_s=12.0, sample_rate=spec.rate_hz)
    samples = np.concatenate([block.samples for block in source])
    second = source.truth[1]
    return fit_window(samples[second.onset : second.end], spec)


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
