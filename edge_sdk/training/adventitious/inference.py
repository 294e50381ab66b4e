"""Outputs of the network for whole recordings, as a stream accumulates them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.models.adventitious import STRIDE, AdventitiousNetwork
from edge_sdk.runtime.verdict.breath_sounds import either_logits, frame_sums, pooled_logits
from edge_sdk.training.adventitious.data import SoundRecording

Floats = npt.NDArray[np.float64]
_AT_ONCE = 16  # recordings in one pass


@dataclass(frozen=True)
class SoundOutputs:
    """Outputs of the network for one recording, T output frames."""

    recording: SoundRecording
    frames: Floats  # [3, T] probabilities of crackle, wheeze, breathing
    attention: Floats  # [2, T]
    clip: Floats  # [2, T]
    step_s: float  # of an output frame

    @property
    def duration_s(self) -> float:
        """Seconds of audio that the outputs cover."""
        return self.frames.shape[1] * self.step_s

    def mel_frames(self, seconds: float) -> int:
        """Log-mel frames in the first ``seconds``."""
        return STRIDE * max(1, round(seconds / self.step_s))

    def logits(self, seconds: float | None = None) -> Floats:
        """Logits ``[2]`` of crackle and wheeze in the first ``seconds``, all of them where absent."""
        end = None if seconds is None else max(1, round(seconds / self.step_s))
        return pooled_logits(frame_sums(self.attention[:, :end], self.clip[:, :end]).sum(axis=1))

    def logit(self, seconds: float | None = None) -> float:
        """Logit of an abnormal recording, see :func:`~edge_sdk.runtime.verdict.breath_sounds.either_logits`."""
        return float(either_logits(self.logits(seconds)))


@torch.no_grad()
def run_network(model: AdventitiousNetwork, recordings: Sequence[SoundRecording]) -> list[SoundOutputs]:
    """Run whole recordings, each from a fresh state; those shorter than an output frame are left out."""
    spec = model.front_end
    step_s = STRIDE * spec.hop_samples / spec.rate_hz
    order = sorted((r for r in recordings if len(r.mel) >= STRIDE), key=lambda r: len(r.mel))
    training = model.training
    model.eval()
    found: dict[str, SoundOutputs] = {}
    for begin in range(0, len(order), _AT_ONCE):
        some = order[begin : begin + _AT_ONCE]
        longest = -(-max(len(r.mel) for r in some) // STRIDE) * STRIDE
        padded = [np.pad(r.mel, ((0, longest - len(r.mel)), (0, 0)), mode="edge").T for r in some]
        logits, _ = model(torch.from_numpy(np.stack(padded).astype(np.float32)))
        frames = torch.sigmoid(logits.frames)
        for row, recording in enumerate(some):
            end = len(recording.mel) // STRIDE
            rows = (part[row, :, :end].numpy() for part in (frames, logits.attention, logits.clip))
            probabilities, attention, clip = (part.astype(np.float64) for part in rows)
            name = f"{recording.corpus}/{recording.name}"
            found[name] = SoundOutputs(recording, probabilities, attention, clip, step_s)
    model.train(training)
    keys = [f"{r.corpus}/{r.name}" for r in recordings]
    return [found[key] for key in keys if key in found]
