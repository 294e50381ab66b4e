"""Our own causal segmentation of breathing: depthwise-separable convolutions and a small GRU with explicit states.

For each output frame, two feature frames long, it gives the probability of audible breathing and of an inspiration's
onset, the phase, and the angle of the cycle as cosine and sine, which needs no fixed length of a breath.

The same ``forward`` runs whole recordings in training and steps of a few frames on the device: the memory of a step is
an input and an output tensor. Normalisation uses only the frames received so far.
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
from edge_sdk.signal.spec import FrontEndSpec

PHASES = ("inspiration", "expiration", "none")
"""Columns of ``phase``; ``none`` is a pause, or audio without breathing."""

CYCLE = 2  # cosine and sine of the cycle's angle: 0 at its onset, 2 pi at the next
OUTPUTS = 2 + len(PHASES) + CYCLE  # activity, onset, phases, cycle
STRIDE = 2
"""Feature frames for each output frame."""

TEMPI = 32
"""Lengths of a cycle that the network is trained to name, evenly spaced in the logarithm."""

TEMPO_S = (0.45, 7.0)
"""The shortest and the longest of them, in seconds."""

LEVEL_SCALE = 2.5  # natural-log units: about the spread of the bins around the level of all
LEAST_VARIANCE = 0.15  # of the log-mel around its causal mean; keeps silence from being blown up
_CHUNK = 256  # frames of one matrix product in the causal mean


@dataclass(frozen=True)
class SegmenterSize:
    """Widths of one size."""

    channels: int
    hidden: int  # of the GRU
    dilations: tuple[int, ...]  # of the convolutions on feature frames, 5 taps each
    strided: tuple[int, ...]  # of those on output frames


SIZES = {
    "tiny": SegmenterSize(12, 12, (1,), (1,)),
    "small": SegmenterSize(40, 48, (1, 2), (2, 4)),
    "base": SegmenterSize(64, 80, (1, 2), (2, 4)),
}
_TAPS = 5
GATE_CLIP = 5.0
"""Bound of the GRU's gates: no memory lasts longer than about 150 output frames, 6 s, without renewal."""


@dataclass(frozen=True)
class SegmentLogits:
    """Outputs for each output frame, before sigmoid and softmax; column ``t`` describes frame ``t - delay``."""

    activity: Tensor  # [B, T]
    onset: Tensor  # [B, T]
    phase: Tensor  # [B, 3, T], PHASES
    cycle: Tensor  # [B, 2, T] cosine and sine of the cycle's angle; their length is the certainty
    tempo: Tensor  # [B, TEMPI, T] length of the cycle; used in training only


def delay_frames(spec: FrontEndSpec, look_ahead_s: float) -> int:
    """Output frames by which outputs lag, so that none uses audio later than ``look_ahead_s`` after its moment.

    The moment that output ``t`` describes is the centre of output frame ``t - delay``; half an output frame and half
    an analysis window of audio after that centre belong to the look-ahead.
    """
    frames = (look_ahead_s * spec.rate_hz - spec.frame_samples / 2) / spec.hop_samples
    return int((frames - (STRIDE - 1) / 2) // STRIDE)


class CausalBlock(nn.Module):
    """Depthwise convolution over remembered and new frames, pointwise convolution, residual.

    Parameters
    ----------
    channels
        C.
    dilation
        Frames between taps.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.memory = (_TAPS - 1) * dilation  # frames
        self.depthwise = nn.Conv1d(channels, channels, _TAPS, dilation=dilation, groups=channels, bias=False)
        self.pointwise = nn.Conv1d(channels, channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, C, T]``, ``past [B, C, memory]`` → the same shapes."""
        held = torch.cat((past, x), dim=2)  # [B, C, memory + T]
        y = x + F.relu(self.norm(self.pointwise(self.depthwise(held))))  # [B, C, T]
        return y, held[:, :, -self.memory :]


class CausalMean(nn.Module):
    """Exponentially weighted mean of each mel bin over the past, unbiased from the first frame on.

    Parameters
    ----------
    seconds
        Time constant.
    hop_s
        Seconds between frames.
    """

    weights: Tensor  # [n + 1, n] of the state (first row) and of the frames (the others) for the sum at each column

    def __init__(self, seconds: float, hop_s: float) -> None:
        super().__init__()
        self.seconds, self.hop_s = seconds, hop_s
        keep = torch.exp(torch.tensor(-hop_s / seconds, dtype=torch.float64))
        lag = torch.arange(_CHUNK)[None] - torch.arange(-1, _CHUNK)[:, None]
        weights = torch.where(lag >= 0, keep ** lag.clamp(min=0), 0.0)
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, M, T]``, ``state [B, M + 1, 1]`` → mean ``[B, M, T]`` up to each frame, and the next state."""
        bins = x.shape[1]
        counted = F.pad(x, (0, 0, 0, 1), value=1.0)  # [B, M + 1, T]; the last row adds up the weights
        sums = []
        for chunk in counted.split(_CHUNK, dim=2):
            n = chunk.shape[2]
            total = torch.cat((state, chunk), dim=2) @ self.weights[: n + 1, :n]  # [B, M + 1, n]
            state = total[:, :, -1:]
            sums.append(total)
        total = torch.cat(sums, dim=2)
        return total[:, :bins] / total[:, bins:], state


class SegmenterNetwork(nn.Module):
    """Log-mel frames → activity, onset, phase and angle of the cycle, ``delay`` output frames late.

    Parameters
    ----------
    front_end
        Its ``normalisation`` must be ``none``: a stream has no whole clip.
    size
        Name in ``SIZES``.
    look_ahead_s
        Seconds of audio after the described moment that an output may use.
    mean_s
        Time constant of the causal mean and spread, in seconds.
    dropout
        On the entry, on the GRU's input and on its output, in training.

    Raises
    ------
    RecipeError
        Unknown size, or a front end that normalises whole clips.
    """

    def __init__(
        self,
        *,
        front_end: FrontEndSpec,
        size: str = "base",
        look_ahead_s: float = 0.24,
        mean_s: float = 5.0,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise RecipeError(f"segmenter: no size {size!r}; choose one of {', '.join(SIZES)}")
        if front_end.normalisation != "none":
            raise RecipeError("segmenter: set front_end.normalisation to none; the network normalises frame by frame")
        least_s = (front_end.frame_samples + (STRIDE - 1) * front_end.hop_samples) / (2 * front_end.rate_hz)
        if not least_s <= look_ahead_s <= 2.0:
            raise RecipeError(f"segmenter: look_ahead_s must be between {least_s:g} and 2 s, got {look_ahead_s}")
        self.front_end = front_end
        self.look_ahead_s = look_ahead_s
        self.delay = delay_frames(front_end, look_ahead_s)
        width, bins = SIZES[size], front_end.mel_bins
        hop_s = front_end.hop_samples / front_end.rate_hz
        self.mean, self.spread = CausalMean(mean_s, hop_s), CausalMean(mean_s, hop_s)
        channels = width.channels
        self.entry = nn.Conv1d(2 * bins + 1, channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(channels)
        self.blocks = nn.ModuleList(CausalBlock(channels, dilation) for dilation in width.dilations)
        self.down = nn.Conv1d(channels, channels, STRIDE, stride=STRIDE)
        self.strided = nn.ModuleList(CausalBlock(channels, dilation) for dilation in width.strided)
        self.dropout = nn.Dropout(dropout)
        self.gru = ClippedGRU(channels, width.hidden, GATE_CLIP)
        self.head = nn.Linear(width.hidden, OUTPUTS)
        self.tempo = nn.Linear(width.hidden, TEMPI)  # an auxiliary target of training, not exported

    @property
    def state_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shapes of the states for a batch of one; all start as zeros."""
        channels = self.entry.out_channels
        buffers = [(1, channels, block.memory) for block in (*self.causal_blocks, *self.strided_blocks)]
        return ((1, self.front_end.mel_bins + 1, 1), (1, 2, 1), *buffers, (1, 1, self.gru.hidden_size))

    @property
    def causal_blocks(self) -> list[CausalBlock]:
        """Convolutions on feature frames."""
        return [block for block in self.blocks if isinstance(block, CausalBlock)]

    @property
    def strided_blocks(self) -> list[CausalBlock]:
        """Convolutions on output frames."""
        return [block for block in self.strided if isinstance(block, CausalBlock)]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """Zero states before the first frame; the GRU's is ``[1, B, H]``, as torch needs it."""
        *shapes, last = self.state_shapes
        return [torch.zeros(shape) for shape in (*((batch, *shape[1:]) for shape in shapes), (1, batch, last[2]))]

    def logits(self, features: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """``features [B, M, STRIDE * T]`` raw log-mel and the states → ``[B, T, OUTPUTS]`` and the next states."""
        y, following = self._hidden(features, states)
        return self.head(y), following

    def _hidden(self, features: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Inputs of the heads, ``[B, T, H]``, and the next states."""
        mean_state, spread_state, *pasts, memory = states
        mean, mean_state = self.mean(features, mean_state)  # [B, M, 2 T]
        centred = features - mean
        variance, spread_state = self.spread(centred.square().mean(dim=1, keepdim=True), spread_state)  # [B, 1, 2 T]
        spread = torch.sqrt(variance + LEAST_VARIANCE)
        level = mean.mean(dim=1, keepdim=True)  # [B, 1, 2 T]
        # Minus its own past, a bin is free of the device's response, and over the spread of the dynamics of its gain
        # control; minus the level of all bins, it keeps the spectrum.
        x = torch.cat((centred / spread, (features - level) / LEVEL_SCALE, torch.log(spread)), dim=1)
        x = self.dropout(F.relu(self.norm(self.entry(x))))  # [B, C, 2 T]
        following = [mean_state, spread_state]
        remembered = iter(pasts)
        for block in self.causal_blocks:
            x, past = block(x, next(remembered))
            following.append(past)
        x = F.relu(self.down(x))  # [B, C, T]
        for block in self.strided_blocks:
            x, past = block(x, next(remembered))
            following.append(past)
        y, memory = self.gru(self.dropout(x.permute(2, 0, 1)), memory)  # [T, B, H]
        return self.dropout(y).transpose(0, 1), [*following, memory]

    def forward(self, features: Tensor, *states: Tensor) -> tuple[SegmentLogits, list[Tensor]]:
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
        y, following = self._hidden(features, states or self.initial_state(len(features)))
        activity, onset, phase, cycle = self.head(y).transpose(1, 2).split((1, 1, len(PHASES), CYCLE), dim=1)
        tempo = self.tempo(y).transpose(1, 2)
        return SegmentLogits(activity[:, 0], onset[:, 0], phase, cycle, tempo), following


def for_steps(segmenter: SegmenterNetwork) -> SegmenterNetwork:
    """A copy with equal outputs whose batch norms are folded."""
    fuse: Any = torch.nn.utils.fusion.fuse_conv_bn_eval
    folded = copy.deepcopy(segmenter).eval()
    folded.entry, folded.norm = fuse(folded.entry, folded.norm), nn.Identity()
    for block in (*folded.causal_blocks, *folded.strided_blocks):
        block.pointwise, block.norm = fuse(block.pointwise, block.norm), nn.Identity()
    return folded
