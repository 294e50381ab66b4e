"""A small causal network that finds crackles and wheezes in continuous audio, without respiratory cycles.

Strided convolutions over log-mel frames and a small GRU give, for each output frame of :data:`STRIDE` input frames,
logits of crackle, wheeze and breathing, and an attention and a clip logit for each sound. A recording's logit is the
mean of its clip logits, weighted by ``exp(attention)``: two running sums, which a stream keeps outside the graph. All
other memory is explicit: the same ``forward`` runs whole recordings in training and steps on the device.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.layers.clipped_gru import ClippedGRU
from edge_sdk.models.segmenter import CausalMean
from edge_sdk.signal.spec import FrontEndSpec

SOUNDS = ("crackle", "wheeze")
"""Order of the adventitious sounds in every output."""

STRIDE = 4
"""Input frames of one output frame."""

GATE_CLIP = 5.0
"""Bound of the GRU's gates: no memory lasts longer than about 150 output frames without renewal."""

FRAME_OUTPUTS = len(SOUNDS) + 1  # and breathing
ATTENTION_BOUND = 8.0
"""Largest attention in the logarithm; bounded by ``tanh``, so that no frame can outweigh minutes of others."""

LEAST_VARIANCE = 0.15  # of the frames around their causal mean, natural-log units squared
LEVEL_SCALE = 2.5


@dataclass(frozen=True)
class AdventitiousSize:
    """Widths of one size."""

    channels: tuple[int, int, int]
    hidden: int


SIZES = {
    "tiny": AdventitiousSize((4, 6, 8), 8),
    "small": AdventitiousSize((12, 20, 24), 32),
    "base": AdventitiousSize((16, 32, 40), 48),
    "large": AdventitiousSize((24, 48, 64), 80),
}


@dataclass(frozen=True)
class AdventitiousLogits:
    """Outputs for each output frame; column ``t`` describes the input frames up to ``STRIDE * t + STRIDE - 1``."""

    frames: Tensor  # [B, FRAME_OUTPUTS, T] logits of crackle, wheeze and breathing
    attention: Tensor  # [B, 2, T] logarithm of the weight of each frame in the clip's logit, within ATTENTION_BOUND
    clip: Tensor  # [B, 2, T] logits of crackle and wheeze in the recording

    def pooled(self, valid: Tensor | None = None) -> Tensor:
        """Logits ``[B, 2]`` of whole recordings; ``valid [B, T]`` (bool) leaves frames out."""
        weight = self.attention.exp()
        if valid is not None:
            weight = weight * valid[:, None]
        return (weight * self.clip).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6)


class CausalConv(nn.Module):
    """Convolution over bands and time, batch norm, ReLU; the past is an explicit state.

    Parameters
    ----------
    inputs, outputs
        Channels.
    size
        Taps over bands and over time; the bands are padded at both ends, so that a stride of 1 keeps their number.
    stride
        Over bands and over time.
    groups
        Of the channels.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.memory = size - stride  # frames
        self.conv = nn.Conv2d(
            inputs, outputs, size, stride=stride, padding=(size // 2, 0), groups=groups, bias=False
        )  # fmt: skip
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, C, F, T]``, ``past [B, C, F, memory]`` → ``[B, C', F', T / stride]`` and the next past."""
        held = torch.cat((past, x), dim=3)
        return F.relu(self.norm(self.conv(held))), held[..., held.shape[3] - self.memory :]


class AdventitiousNetwork(nn.Module):
    """Log-mel frames → crackle, wheeze, breathing of each output frame, and what pools to logits of the recording.

    Parameters
    ----------
    front_end
        Its ``normalisation`` must be ``none``: a stream has no whole clip.
    size
        Name in ``SIZES``.
    mean_s
        Time constant of the causal mean and spread, in seconds.
    dropout
        In training, on what enters the projection, the GRU and the heads.

    Raises
    ------
    RecipeError
        Unknown size, a front end that normalises whole clips, or fewer than 12 mel bins.
    """

    def __init__(
        self, *, front_end: FrontEndSpec, size: str = "base", mean_s: float = 5.0, dropout: float = 0.25
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise RecipeError(f"adventitious: no size {size!r}; choose one of {', '.join(SIZES)}")
        if front_end.normalisation != "none":
            raise RecipeError("adventitious: set front_end.normalisation to none; the network normalises by frame")
        if front_end.mel_bins < 12 or front_end.mel_bins % 12:
            raise RecipeError(f"adventitious: front_end.mel_bins must be a multiple of 12, got {front_end.mel_bins}")
        self.front_end = front_end
        width, bins = SIZES[size], front_end.mel_bins
        hop_s = front_end.hop_samples / front_end.rate_hz
        self.mean, self.spread = CausalMean(mean_s, hop_s), CausalMean(mean_s, hop_s)
        first, second, third = width.channels
        self.entry = CausalConv(2, first, 5, stride=2)  # [B, first, bins / 2, T / 2]
        self.early = CausalConv(first, first, 3, groups=first)
        self.widen = nn.Conv2d(first, second, 1, bias=False)
        self.widen_norm: nn.Module = nn.BatchNorm2d(second)
        self.middle = CausalConv(second, second, 3, groups=second)  # [B, second, bins / 4, T / 4]
        self.late = nn.Conv2d(second, third, 1, bias=False)
        self.late_norm: nn.Module = nn.BatchNorm2d(third)
        self.last = CausalConv(third, third, 3, groups=third)  # [B, third, bins / 12, T / 4]
        self.project = nn.Linear(third * bins // 12, width.hidden)
        self.gru = ClippedGRU(width.hidden, width.hidden, GATE_CLIP)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width.hidden, FRAME_OUTPUTS + 2 * len(SOUNDS))

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the states for a batch of one; all start as zeros."""
        bins = self.front_end.mel_bins
        blocks = ((self.entry, bins), (self.early, bins // 2), (self.middle, bins // 4), (self.last, bins // 12))
        pasts = [(1, block.conv.in_channels, rows, block.memory) for block, rows in blocks]
        return ((1, bins + 1, 1), (1, 2, 1), *pasts, (1, 1, self.gru.hidden_size))

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """Zero states before the first frame; the GRU's is ``[1, B, H]``, as torch needs it."""
        *shapes, last = self.state_shapes
        return [torch.zeros(shape) for shape in (*((batch, *shape[1:]) for shape in shapes), (1, batch, last[2]))]

    def logits(self, features: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """``features [B, M, STRIDE * T]`` raw log-mel and the states → ``[B, outputs, T]`` and the next states."""
        mean_state, spread_state, *pasts, memory = states
        mean, mean_state = self.mean(features, mean_state)  # [B, M, 4 T]
        centred = features - mean
        variance, spread_state = self.spread(centred.square().mean(dim=1, keepdim=True), spread_state)  # [B, 1, 4 T]
        level = mean.mean(dim=1, keepdim=True)
        # Minus its own past, a bin is free of the device's response; minus all bins' level, it keeps the spectrum.
        own = centred / torch.sqrt(variance + LEAST_VARIANCE)
        x = torch.stack((own, (features - level) / LEVEL_SCALE), dim=1)  # [B, 2, M, 4 T]
        x, entry = self.entry(x, pasts[0])
        x, early = self.early(x, pasts[1])
        x = F.relu(self.widen_norm(self.widen(F.max_pool2d(x, 2))))  # [B, C2, M / 4, T]
        x, middle = self.middle(x, pasts[2])
        x = F.max_pool2d(F.relu(self.late_norm(self.late(x))), (3, 1))  # [B, C3, M / 12, T]
        x, last = self.last(x, pasts[3])
        now = F.relu(self.project(self.dropout(x.flatten(1, 2).permute(2, 0, 1))))  # [T, B, H]
        y, memory = self.gru(self.dropout(now), memory)
        out = self.head(self.dropout(torch.cat((y, now), dim=2)))  # [T, B, outputs]
        return out.permute(1, 2, 0), [mean_state, spread_state, entry, early, middle, last, memory]

    def forward(self, features: Tensor, *states: Tensor) -> tuple[AdventitiousLogits, list[Tensor]]:
        """A run of frames, whole recording or step.

        Parameters
        ----------
        features
            ``[B, M, STRIDE * T]`` raw log-mel.
        states
            From :meth:`initial_state` or the last call; none: the beginning of a stream.

        Returns
        -------
        logits, states
            Outputs for each output frame, and the states for the next call.
        """
        out, following = self.logits(features, states or self.initial_state(len(features)))
        frames, attention, clip = out.split((FRAME_OUTPUTS, len(SOUNDS), len(SOUNDS)), dim=1)
        return AdventitiousLogits(frames, bounded(attention), clip), following


def bounded(attention: Tensor) -> Tensor:
    """Attention within ``±ATTENTION_BOUND``."""
    return ATTENTION_BOUND * torch.tanh(attention / ATTENTION_BOUND)


def for_steps(network: AdventitiousNetwork) -> AdventitiousNetwork:
    """A copy with equal outputs whose batch norms are folded."""
    fuse: Any = torch.nn.utils.fusion.fuse_conv_bn_eval
    folded = copy.deepcopy(network).eval()
    for block in (folded.entry, folded.early, folded.middle, folded.last):
        block.conv, block.norm = fuse(block.conv, block.norm), nn.Identity()
    folded.widen, folded.widen_norm = fuse(folded.widen, folded.widen_norm), nn.Identity()
    folded.late, folded.late_norm = fuse(folded.late, folded.late_norm), nn.Identity()
    return folded
