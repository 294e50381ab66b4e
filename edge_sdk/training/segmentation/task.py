"""Segmentation of respiratory cycles as a task of the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.metrics.events import event_report
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.segmenter import STRIDE, TEMPI, SegmenterNetwork, SegmentLogits
from edge_sdk.training.audio.augment import DeviceSimulator, Randomness
from edge_sdk.training.data_identity import digest_of
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.building import build_segmenter, decoder_params, segment_section
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData
from edge_sdk.training.segmentation.inference import emit, run_network
from edge_sdk.training.segmentation.sampling import WindowBatch, WindowSampler

_AFTER_TRAINING = frozenset({"title", "paper", "protocol", "development", "decision"})


@dataclass(frozen=True)
class SegmentBatch:
    """Windows of each length, and phase clips that start from a fresh state."""

    windows: tuple[WindowBatch, ...]
    clips: Tensor  # [k, M, t], t is 0 without clips
    clip_phase: Tensor  # [k] int64


class SegmentTask:
    """Onsets, activity, phases and cycles of sequences.

    Parameters
    ----------
    recipe
        With a ``segment`` section.
    data
        What the run may be trained on.
    held_out
        Recordings with cycles, of other patients; empty: nothing is validated.
    seed
        Of the simulated patients.

    Raises
    ------
    RecipeError
        The recipe has no ``segment`` section.
    """

    def __init__(
        self, recipe: Recipe, data: SegmentData, held_out: Sequence[AnnotatedRecording] = (), seed: int = 0
    ) -> None:
        self.recipe = recipe
        self.settings = segment_section(recipe)
        self._data, self._held_out = data, list(held_out)
        spec = recipe.spec
        self._sampler = WindowSampler(data, self.settings, spec, seed)
        self._clip_simulator = DeviceSimulator(recipe.augment, spec.rate_hz, spec.rate_hz)
        self._front_end = FoldedFrontEnd(spec)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch."""
        return max(1, self.settings.windows_per_epoch // self.recipe.fit.batch)

    def build(self) -> nn.Module:
        """The recipe's segmenter with fresh weights."""
        return build_segmenter(self.recipe)

    def batch(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> SegmentBatch:
        """``count`` windows, and their phase clips."""
        windows = self._sampler.draw(count, numpy_random)
        return SegmentBatch(tuple(windows), *self._clips(numpy_random, random, count))

    def loss(self, model: nn.Module, batch: SegmentBatch) -> Tensor:
        """Loss on the windows plus the weighted loss on the phase clips, scalar."""
        assert isinstance(model, SegmenterNetwork)
        settings, total, count = self.settings, torch.zeros(()), 0
        for windows in batch.windows:
            size = len(windows.features)
            logits, _ = model(windows.features)
            total = total + size * segment_loss(logits, windows, model.delay, settings)
            count += size
        total = total / count
        if settings.clip_weight and batch.clips.shape[2]:
            ahead = batch.clips[:, :, -1:].expand(-1, -1, STRIDE * model.delay)  # as at the end of a stream
            clip_logits, _ = model(torch.cat((batch.clips, ahead), dim=2))
            total = total + settings.clip_weight * clip_loss(clip_logits, batch.clip_phase, model.delay)
        return total

    def validate(self, model: nn.Module) -> float | None:
        """Event F1 at IoU 0.5 of what the decoder of the device would emit on the held-out patients."""
        if not self._held_out:
            return None
        assert isinstance(model, SegmenterNetwork)
        params = decoder_params(self.recipe)
        scored = [emit(outputs, params) for outputs in run_network(model, self._held_out)]
        return float(event_report(scored, resamples=0)["event_f1"])

    def identity(self) -> dict[str, Any]:
        """Recipe, recordings, patients and audio that shape the weights or choose the epoch."""
        shaping = {key: value for key, value in self.recipe.to_dict().items() if key not in _AFTER_TRAINING}
        del shaping["segment"]["search"]  # comes after the last epoch: another search needs no other training
        if not self._held_out:  # nor does another decoder that chose no epoch
            del shaping["segment"]["decoder"]
        recordings = [*self._data.recordings, *self._data.poor, *self._held_out]
        return {
            "recipe": shaping,
            "recordings": len(self._data.recordings),
            "patients": list(self._data.patients),
            "labels": digest_of([(r.name, r.patient, r.group, r.labels, r.excerpt.truth) for r in recordings]),
            "audio": digest_of([(r.name, r.samples, r.audio) for r in recordings], self._data.background),
        }

    def _clips(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> tuple[Tensor, Tensor]:
        bins, each = self.recipe.spec.mel_bins, self.settings.clips_per_window
        if self._data.clips is None or not self.settings.clip_weight or not each:
            return torch.zeros(1, bins, 0), torch.zeros(1, dtype=torch.int64)
        wave, phase = self._sampler.clips(count * each, numpy_random)
        half = len(wave) // 2
        wave = torch.cat((wave[:half], self._clip_simulator(wave[half:], None, None, random)))
        features = self._front_end.log_mel(wave)
        return features[:, :, : features.shape[2] // STRIDE * STRIDE], phase


def segment_loss(logits: SegmentLogits, batch: WindowBatch, delay: int, settings: SegmentSection) -> Tensor:
    """Weighted losses of onset, cycle, activity, tempo and phase, each a mean over the frames that count."""
    frames = batch.onset.shape[1] - delay

    def late(rows: Tensor) -> Tensor:  # the logits at t belong to frame t - delay
        return rows[..., delay:]

    def mean(each: Tensor, weight: Tensor) -> Tensor:
        return (each * weight).sum() / weight.sum().clamp(min=1.0)

    positive = torch.tensor(settings.onset_positive)
    onset = F.binary_cross_entropy_with_logits(
        late(logits.onset), batch.onset[:, :frames], reduction="none", pos_weight=positive
    )
    total = mean(onset, batch.onset_weight[:, :frames])
    apart = (late(logits.cycle) - batch.cycle[:, :frames].transpose(1, 2)).square().mean(dim=1)
    total = total + settings.cycle_weight * mean(apart, batch.cycle_weight[:, :frames])
    activity = F.binary_cross_entropy_with_logits(late(logits.activity), batch.activity[:, :frames], reduction="none")
    total = total + settings.activity_weight * mean(activity, batch.activity_weight[:, :frames])
    total = total + settings.tempo_weight * tempo_loss(late(logits.tempo), batch.tempo[:, :frames])
    phase = batch.phase[:, :frames]
    annotated = (phase >= 0).sum().clamp(min=1)
    phases = F.cross_entropy(late(logits.phase), phase, ignore_index=-1, reduction="sum") / annotated
    return total + settings.phase_weight * phases


def tempo_loss(logits: Tensor, tempo: Tensor) -> Tensor:
    """Cross-entropy of ``[B, TEMPI, T]`` with the length ``[B, T]`` blurred by one step; 0 where none is annotated."""
    annotated = tempo >= 0
    if not annotated.any():
        return torch.zeros(())
    rows, length = logits.transpose(1, 2)[annotated], tempo[annotated]
    near = torch.exp(-0.5 * (torch.arange(TEMPI)[None] - length[:, None]).square())
    return -((near / near.sum(dim=1, keepdim=True)) * F.log_softmax(rows, dim=1)).sum(dim=1).mean()


def clip_loss(logits: SegmentLogits, phase: Tensor, delay: int) -> Tensor:
    """Cross-entropy of the clip's phase against the other one: frame by frame, and of all frames' mean evidence."""
    row = logits.phase[:, :2, delay:]  # [B, 2, t]
    frames = F.cross_entropy(row, phase[:, None].expand(-1, row.shape[2]))
    return 0.5 * (frames + F.cross_entropy(row.mean(dim=2), phase))
