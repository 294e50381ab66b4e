"""The golden vector: simulated breaths whose logits tell a device that its engine computes right."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.phantom import PhantomSource

GOLDEN_SCENARIOS = ("healthy", "asthma", "pneumonia")
_SEED = 1_000_099  # of the seeds that training never uses


def golden_clips(spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    """One breath of each scenario, fitted to the window: ``[k, window_samples]``, full scale 32768."""
    return np.stack([_clip(scenario, spec) for scenario in GOLDEN_SCENARIOS])


def _clip(scenario: str, spec: FrontEndSpec) -> npt.NDArray[np.int16]:
    source = PhantomSource(scenario, seed=_SEED, duration_s=12.0, sample_rate=spec.rate_hz)
    samples = np.concatenate([block.samples for block in source])
    second = source.truth[1]
    window = fit_window(samples[second.onset : second.end], spec)
    return np.round(np.clip(window, -1.0, 32767 / 32768) * 32768).astype(np.int16)


def golden_file(clips: npt.NDArray[np.int16], logits: dict[str, npt.NDArray[np.float32]]) -> bytes:
    """The ``.npz``: ``pcm`` and ``logits_<format>`` with dashes as underscores."""
    buffer = io.BytesIO()
    arrays = {f"logits_{name.replace('-', '_')}": values for name, values in logits.items()}
    np.savez_compressed(buffer, allow_pickle=False, pcm=clips, **arrays)
    return buffer.getvalue()
