"""Crackles and wheezes in continuous audio as a task of the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.metrics.ranking import auroc
from edge_sdk.models.adventitious import AdventitiousLogits, AdventitiousNetwork
from edge_sdk.training.adventitious.building import adventitious_section, build_adventitious
from edge_sdk.training.adventitious.data import AdventitiousData, SoundRecording
from edge_sdk.training.adventitious.inference import run_network
from edge_sdk.training.adventitious.sampling import AdventitiousSampler, Window
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.data_identity import digest_of
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection
from edge_sdk.training.recipes.recipe import Recipe

_AFTER_TRAINING = frozenset({"title", "paper", "protocol", "development", "decision"})


@dataclass(frozen=True)
class AdventitiousBatch:
    """Windows; one row of each per example, as :class:`~edge_sdk.training.adventitious.sampling.Window`."""

    frames: Tensor  # [B, M, STRIDE * T]
    valid: Tensor  # [B, T] bool
    absent: Tensor  # [B, 2, T]
    breathing: Tensor  # [B, 2, T]
    segments: Tensor  # [B, K, 4] int64
    label: Tensor  # [B, 2]
    label_weight: Tensor  # [B]


class AdventitiousTask:
    """Frames with and without crackle and wheeze, and labels of windows.

    Parameters
    ----------
    recipe
        With an ``adventitious`` section.
    data
        What the run may be trained on.
    held_out
        Recordings of other patients; empty: nothing is validated.

    Raises
    ------
    RecipeError
        The recipe has no ``adventitious`` section.
    """

    def __init__(self, recipe: Recipe, data: AdventitiousData, held_out: Sequence[SoundRecording] = ()) -> None:
        self.recipe = recipe
        self.settings = adventitious_section(recipe)
        self._data, self._held_out = data, list(held_out)
        self._sampler = AdventitiousSampler(data, self.settings, recipe.spec)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch."""
        return max(1, self.settings.windows_per_epoch // self.recipe.fit.batch)

    def build(self) -> nn.Module:
        """The recipe's network with fresh weights."""
        # The convolutions of a CPU are a third faster on this layout, which the exported graph does not have.
        network: nn.Module = build_adventitious(self.recipe)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batch(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> AdventitiousBatch:
        """``count`` windows."""
        return stacked([self._sampler.window(numpy_random) for _ in range(count)])

    def loss(self, model: nn.Module, batch: AdventitiousBatch) -> Tensor:
        """Weighted loss of frames, cycles and windows, scalar."""
        assert isinstance(model, AdventitiousNetwork)
        logits, _ = model(batch.frames)
        return adventitious_loss(logits, batch, self.settings)

    def validate(self, model: nn.Module) -> float | None:
        """AUROC of abnormal recordings of the held-out patients."""
        if not self._held_out:
            return None
        assert isinstance(model, AdventitiousNetwork)
        outputs = run_network(model, self._held_out)
        truth = np.array([row.recording.abnormal for row in outputs])
        return auroc(truth, np.array([row.logit() for row in outputs]))

    def identity(self) -> dict[str, Any]:
        """Recipe, recordings, patients and audio that shape the weights or choose the epoch."""
        shaping = {key: value for key, value in self.recipe.to_dict().items() if key not in _AFTER_TRAINING}
        for name in ("calibration", "cycles", "error", "breaths", "breath_own", "breath_running"):  # after training
            del shaping["adventitious"][name]
        recordings = [*self._data.all, *self._data.noise, *self._held_out]
        labels = [(r.name, r.corpus, r.patient, r.device, r.spans_s, r.sounds, r.strong, r.label) for r in recordings]
        return {
            "labels": digest_of(labels),
            "audio": digest_of([(r.name, r.audio) for r in recordings], self._data.background),
            "recipe": shaping,
            "recordings": [len(self._data.recordings), len(self._data.extra), len(self._data.noise)],
            "patients": sorted({r.patient for r in self._data.all}),
        }


def stacked(windows: Sequence[Window]) -> AdventitiousBatch:
    """Windows as one batch of tensors."""
    columns = {
        field.name: torch.from_numpy(np.stack([np.asarray(getattr(window, field.name)) for window in windows]))
        for field in fields(Window)
    }
    columns["frames"] = columns["frames"].transpose(1, 2).contiguous()
    columns["label_weight"] = columns["label_weight"].float()
    return AdventitiousBatch(**columns)


def adventitious_loss(logits: AdventitiousLogits, batch: AdventitiousBatch, settings: AdventitiousSection) -> Tensor:
    """Cross-entropies: frames without a sound, breathing, sounds within their bounds, sounds in cycles, windows."""
    sounds, breath = logits.frames[:, :2], logits.frames[:, 2]  # [B, 2, T], [B, T]
    absent = (F.softplus(sounds) * batch.absent).sum() / batch.absent.sum().clamp(min=1.0)
    target, weight = batch.breathing.unbind(dim=1)
    each = F.binary_cross_entropy_with_logits(breath, target, reduction="none")
    breathing = (each * weight).sum() / weight.sum().clamp(min=1.0)
    clip = F.binary_cross_entropy_with_logits(logits.pooled(batch.valid), batch.label, reduction="none").mean(dim=1)
    windows = (clip * batch.label_weight).sum() / batch.label_weight.sum().clamp(min=1.0)
    strong, weak = _segment_losses(sounds, batch.segments)
    return (
        settings.frame_weight * absent
        + settings.breath_weight * breathing
        + settings.strong_weight * strong
        + settings.weak_weight * weak
        + settings.clip_weight * windows
    )


def _segment_losses(sounds: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of annotated sounds frame by frame, and of the linear softmax of every sound's frames."""
    row, column = torch.nonzero(segments[..., 1] > 0, as_tuple=True)
    if not len(row):
        nothing = sounds.sum() * 0.0
        return nothing, nothing
    begin, end, sound, is_strong = segments[row, column].unbind(dim=1)
    probability = torch.sigmoid(sounds)

    def over(values: Tensor) -> Tensor:
        """Sum over the frames of each segment."""
        sums = F.pad(values.cumsum(dim=2), (1, 0))
        return sums[row, sound, end] - sums[row, sound, begin]

    # Linear softmax: frames weigh as much as they are sure, so that one crackle in a cycle suffices.
    pooled = (over(probability.square()) / over(probability).clamp(min=1e-4)).clamp(1e-4, 1.0 - 1e-4)
    frames = over(F.softplus(-sounds)) / (end - begin)
    strong = (frames * is_strong).sum() / is_strong.sum().clamp(min=1)
    return strong, -torch.log(pooled).mean()
