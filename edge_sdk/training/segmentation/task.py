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
from edge_sdk.models.segmenter import SegmenterNetwork, SegmentLogits
from edge_sdk.training.audio.augment import DeviceSimulator, Randomness
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.building import build_segmenter, decoder_params, segment_section
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData
from edge_sdk.training.segmentation.inference import emit, run_network
from edge_sdk.training.segmentation.sampling import WindowSampler

_AFTER_TRAINING = frozenset({"title", "paper", "protocol", "development", "decision"})


@dataclass(frozen=True)
class SegmentBatch:
    """Sequences, and phase clips that start from a fresh state; one row of each per example."""

    features: Tensor  # [B, M, T]
    activity: Tensor  # [B, T]
    onset: Tensor  # [B, T]
    offset: Tensor  # [B, T]
    phase: Tensor  # [B, T] int64, -1 without annotation
    weight: Tensor  # [B, T]
    clips: Tensor  # [B, k, M, t], t is 0 without clips
    clip_phase: Tensor  # [B, k] int64


class SegmentTask:
    """Activity, onsets and phases of sequences.

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
        self._simulator = DeviceSimulator(recipe.augment, spec.rate_hz, self._sampler.samples)
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
        """``count`` windows with device simulation, and their phase clips."""
        drawn = self._sampler.draw(count, numpy_random)
        wave = drawn.wave.clone()
        loose = torch.nonzero(~drawn.exact)[:, 0]
        if len(loose):
            noise = self._sampler.noise(len(loose), numpy_random)
            heart = self._sampler.heart(len(loose), numpy_random)
            wave[loose] = self._simulator(wave[loose], noise, heart, random)
        clips, clip_phase = self._clips(numpy_random, random, count)
        return SegmentBatch(
            self._front_end.log_mel(wave), drawn.activity, drawn.onset, drawn.offset, drawn.phase, drawn.weight,
            clips, clip_phase,
        )  # fmt: skip

    def loss(self, model: nn.Module, batch: SegmentBatch) -> Tensor:
        """Loss on the sequences plus the weighted loss on the phase clips, scalar."""
        assert isinstance(model, SegmenterNetwork)
        settings = self.settings
        logits, _ = model(batch.features)
        total = segment_loss(logits, batch, model.delay, settings)
        if settings.clip_weight and batch.clips.shape[3]:
            clips = batch.clips.flatten(0, 1)
            ahead = clips[:, :, -1:].expand(-1, -1, max(0, model.delay))  # as at the end of a stream
            clip_logits, _ = model(torch.cat((clips, ahead), dim=2))
            total = total + settings.clip_weight * clip_loss(clip_logits, batch.clip_phase.flatten(), model.delay)
        return total

    def validate(self, model: nn.Module) -> float | None:
        """Event F1 at IoU 0.5 of what the decoder of the device would emit on the held-out patients."""
        if not self._held_out:
            return None
        assert isinstance(model, SegmenterNetwork)
        params = decoder_params(self.recipe)
        spec = self.recipe.spec
        scored = [emit(outputs, model.delay, spec, params) for outputs in run_network(model, self._held_out)]
        return float(event_report(scored, resamples=0)["event_f1"])

    def identity(self) -> dict[str, Any]:
        """Recipe, recordings and patients that shape the weights."""
        shaping = {key: value for key, value in self.recipe.to_dict().items() if key not in _AFTER_TRAINING}
        del shaping["segment"]["search"]  # comes after the last epoch: another search needs no other training
        if not self._held_out:  # nor does another decoder that chose no epoch
            del shaping["segment"]["decoder"]
        return {
            "recipe": shaping,
            "recordings": len(self._data.recordings),
            "patients": list(self._data.patients),
        }

    def _clips(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> tuple[Tensor, Tensor]:
        bins, each = self.recipe.spec.mel_bins, self.settings.clips_per_window
        if self._data.clips is None or not self.settings.clip_weight or not each:
            return torch.zeros(count, 1, bins, 0), torch.zeros(count, 1, dtype=torch.int64)
        wave, phase = self._sampler.clips(count * each, numpy_random)
        half = len(wave) // 2
        wave = torch.cat((wave[:half], self._clip_simulator(wave[half:], None, None, random)))
        return self._front_end.log_mel(wave).unflatten(0, (count, each)), phase.view(count, each)


def aligned(logits: Tensor, targets: Tensor, delay: int) -> tuple[Tensor, Tensor]:
    """Logits and targets ``[..., T]`` of the same moments: the logits at ``t`` belong to frame ``t - delay``."""
    frames = logits.shape[-1]
    if delay >= 0:
        return logits[..., delay:], targets[..., : frames - delay]
    return logits[..., :delay], targets[..., -delay:]


def segment_loss(logits: SegmentLogits, batch: SegmentBatch, delay: int, settings: SegmentSection) -> Tensor:
    """Weighted cross-entropies of activity, onset, offset and phase, each a mean over the frames that count."""
    weight = aligned(logits.activity, batch.weight, delay)[1]
    counted = weight.sum().clamp(min=1.0)
    positive = torch.tensor(settings.onset_positive)

    def cost(row: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
        row, targets = aligned(row, targets, delay)
        each = F.binary_cross_entropy_with_logits(row, targets, reduction="none", pos_weight=pos_weight)
        return (each * weight).sum() / counted

    activity = cost(logits.activity, batch.activity)
    onset, offset = cost(logits.onset, batch.onset, positive), cost(logits.offset, batch.offset, positive)
    phase_logits, phase = aligned(logits.phase, batch.phase, delay)
    annotated = (phase >= 0).sum().clamp(min=1)
    phases = F.cross_entropy(phase_logits, phase, ignore_index=-1, reduction="sum") / annotated
    edges = settings.onset_weight * onset + settings.offset_weight * offset
    return activity + edges + settings.phase_weight * phases


def clip_loss(logits: SegmentLogits, phase: Tensor, delay: int) -> Tensor:
    """Cross-entropy of the clip's phase against the other one: frame by frame, and of all frames' mean evidence."""
    row = logits.phase[:, :2, max(0, delay) :]  # [B, 2, t]
    frames = F.cross_entropy(row, phase[:, None].expand(-1, row.shape[2]))
    return 0.5 * (frames + F.cross_entropy(row.mean(dim=2), phase))
