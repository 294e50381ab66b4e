"""Our own causal segmentation of breathing: depthwise-separable convolutions and a small GRU with explicit states.

The same ``forward`` runs whole recordings in training and steps of a few frames on the device: the memory of a step is
an input and an output tensor. Normalisation uses only the frames received so far.
"""

from __future__ import annotations

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

OUTPUTS = 2 + len(PHASES)  # activity, onset, phases
_SCALE = 2.0  # natural-log units: about the spread of breath sounds around their causal mean
_CHUNK = 256  # frames of one matrix product in the causal mean


@dataclass(frozen=True)
class SegmenterSize:
    """Widths of one size."""

    channels: int
    hidden: int  # of the GRU
    dilations: tuple[int, ...]  # of the convolutions, 5 taps each


SIZES = {
    "tiny": SegmenterSize(12, 12, (1, 2)),
    "small": SegmenterSize(40, 40, (1, 2, 4)),
    "base": SegmenterSize(72, 80, (1, 2, 4)),
}
_TAPS = 5
GATE_CLIP = 5.0
"""Bound of the GRU's gates: no memory lasts longer than about 150 frames, 3 s, without renewal."""


@dataclass(frozen=True)
class SegmentLogits:
    """Outputs for each frame, before sigmoid and softmax; column ``t`` describes frame ``t - delay``."""

    activity: Tensor  # [B, T]
    onset: Tensor  # [B, T]
    phase: Tensor  # [B, 3, T], PHASES
    offset: Tensor  # [B, T], ends of cycles; used in training only


def delay_frames(spec: FrontEndSpec, look_ahead_s: float) -> int:
    """Frames by which outputs lag, so that an output uses no audio later than ``look_ahead_s`` after its moment.

    The moment that output ``t`` describes is the centre of frame ``t - delay``; half a frame of audio after that
    centre belongs to the look-ahead. Without look-ahead the delay is negative: the end of the newest frame.
    """
    return int((look_ahead_s * spec.rate_hz - spec.frame_samples / 2) // spec.hop_samples)


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
    chunk
        Frames of one matrix product.
    """

    weights: Tensor  # [n + 1, n] of the state (first row) and of the frames (the others) for the sum at each column

    def __init__(self, seconds: float, hop_s: float, chunk: int = _CHUNK) -> None:
        super().__init__()
        self.seconds, self.hop_s, self.chunk = seconds, hop_s, chunk
        keep = torch.exp(torch.tensor(-hop_s / seconds, dtype=torch.float64))
        lag = torch.arange(chunk)[None] - torch.arange(-1, chunk)[:, None]
        weights = torch.where(lag >= 0, keep ** lag.clamp(min=0), 0.0)
        self.register_buffer("weights", weights.float(), persistent=False)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``x [B, M, T]``, ``state [B, M + 1, 1]`` → mean ``[B, M, T]`` up to each frame, and the next state."""
        bins = x.shape[1]
        counted = F.pad(x, (0, 0, 0, 1), value=1.0)  # [B, M + 1, T]; the last row adds up the weights
        sums = []
        # A step is one chunk and is not split: each node of its graph costs as much as its arithmetic.
        for chunk in (counted,) if x.shape[2] <= self.chunk else counted.split(self.chunk, dim=2):
            n = chunk.shape[2]
            total = torch.cat((state, chunk), dim=2) @ self.weights[: n + 1, :n]  # [B, M + 1, n]
            state = total[:, :, -1:]
            sums.append(total)
        total = sums[0] if len(sums) == 1 else torch.cat(sums, dim=2)
        return total[:, :bins] / total[:, bins:], state


class SegmenterNetwork(nn.Module):
    """Log-mel frames → activity, onset and phase of each frame, ``delay`` frames late.

    Parameters
    ----------
    front_end
        Its ``normalisation`` must be ``none``: a stream has no whole clip.
    size
        Name in ``SIZES``.
    look_ahead_s
        Seconds of audio after the described moment that an output may use.
    mean_s
        Time constant of the causal mean, in seconds.
    dropout
        On the GRU's input and output, in training.

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
        look_ahead_s: float = 0.25,
        mean_s: float = 4.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise RecipeError(f"segmenter: no size {size!r}; choose one of {', '.join(SIZES)}")
        if front_end.normalisation != "none":
            raise RecipeError("segmenter: set front_end.normalisation to none; the network normalises frame by frame")
        if not 0.0 <= look_ahead_s <= 2.0:
            raise RecipeError(f"segmenter: look_ahead_s must be between 0 and 2 s, got {look_ahead_s}")
        self.front_end = front_end
        self.look_ahead_s = look_ahead_s
        self.delay = delay_frames(front_end, look_ahead_s)
        width, bins = SIZES[size], front_end.mel_bins
        self.mean = CausalMean(mean_s, front_end.hop_samples / front_end.rate_hz)
        self.entry = nn.Conv1d(2 * bins, width.channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(width.channels)
        self.blocks = nn.ModuleList(CausalBlock(width.channels, dilation) for dilation in width.dilations)
        self.dropout = nn.Dropout(dropout)
        self.gru = ClippedGRU(width.channels, width.hidden, GATE_CLIP)
        self.head = nn.Linear(width.hidden, OUTPUTS)
        self.taught = nn.Linear(width.hidden, 1)  # ends of cycles: an auxiliary target of training, not exported

    @property
    def state_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Shapes of the states for a batch of one; all start as zeros."""
        channels = self.entry.out_channels
        buffers = [(1, channels, block.memory) for block in self._blocks]
        return ((1, self.front_end.mel_bins + 1, 1), *buffers, (1, 1, self.gru.hidden_size))

    @property
    def _blocks(self) -> list[CausalBlock]:
        return [block for block in self.blocks if isinstance(block, CausalBlock)]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """Zero states before the first frame; the GRU's is ``[1, B, H]``, as torch needs it."""
        first, *buffers, last = self.state_shapes
        shapes = [(batch, *shape[1:]) for shape in (first, *buffers)]
        return [torch.zeros(shape) for shape in (*shapes, (1, batch, last[2]))]

    def logits(self, features: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """``features [B, M, T]`` raw log-mel and the states → ``[B, T, OUTPUTS]`` and the next states."""
        y, following = self._hidden(features, states)
        return self.head(y), following

    def _hidden(self, features: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Inputs of the heads, ``[B, T, H]``, and the next states."""
        mean, sums = self.mean(features, states[0])  # [B, M, T]
        level = mean.mean(dim=1, keepdim=True)  # [B, 1, T]
        # Minus its own past, a bin is free of the device's response; minus that of all bins, it keeps the spectrum.
        x = torch.cat((features - mean, features - level), dim=1) / _SCALE  # [B, 2 * M, T]
        x = F.relu(self.norm(self.entry(x)))  # [B, C, T]
        following = [sums]
        for block, past in zip(self._blocks, states[1:-1], strict=True):
            x, past = block(x, past)
            following.append(past)
        y, memory = self.gru(self.dropout(x.permute(2, 0, 1)), states[-1])  # [T, B, H]
        return self.dropout(y).transpose(0, 1), [*following, memory]

    def forward(self, features: Tensor, *states: Tensor) -> tuple[SegmentLogits, list[Tensor]]:
        """A run of frames, whole recording or step.

        Parameters
        ----------
        features
            ``[B, M, T]`` raw log-mel.
        states
            From :meth:`initial_state` or the last call; none: the beginning of a stream.

        Returns
        -------
        logits, states
            Outputs for each frame, and the states for the next call.
        """
        y, following = self._hidden(features, states or self.initial_state(len(features)))
        out = self.head(y)  # [B, T, OUTPUTS]
        offset = self.taught(y)[..., 0]
        return SegmentLogits(out[..., 0], out[..., 1], out[..., 2:].transpose(1, 2), offset), following


class SegmenterStep(nn.Module):
    """The graph that is exported: ``(features [1, M, n], *states) → (activity, onset, phase, *next states)``.

    Activity and onset are probabilities ``[1, n]``; phase is ``[1, 3, n]`` and sums to one over ``PHASES``.
    """

    def __init__(self, segmenter: SegmenterNetwork) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, features: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """``features [1, M, n]`` and the states → probabilities and the next states."""
        out, following = self.segmenter.logits(features, states)
        activity, onset, phase = out.transpose(1, 2).split((1, 1, len(PHASES)), dim=1)
        return (torch.sigmoid(activity[:, 0]), torch.sigmoid(onset[:, 0]), torch.softmax(phase, dim=1), *following)


def for_steps(segmenter: SegmenterNetwork, frames: int) -> SegmenterNetwork:
    """A copy with equal outputs, batch norms folded, and constants no larger than steps of ``frames`` need."""
    import copy

    fuse: Any = torch.nn.utils.fusion.fuse_conv_bn_eval
    folded = copy.deepcopy(segmenter).eval()
    folded.entry, folded.norm = fuse(folded.entry, folded.norm), nn.Identity()
    folded.mean = CausalMean(folded.mean.seconds, folded.mean.hop_s, frames)
    for block in folded._blocks:
        block.pointwise, block.norm = fuse(block.pointwise, block.norm), nn.Identity()
    return folded
