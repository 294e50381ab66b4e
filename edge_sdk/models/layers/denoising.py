"""The denoising layer of ADD: adaptive frequency filter, differential attention, SwiGLU; picture in, picture out.

Adaptive Differential Denoising for Respiratory Sounds Classification (https://arxiv.org/abs/2506.02505).
The Fourier transforms are products with constant matrices: no inference engine needs an FFT operator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.models.layers.resize import full_precision

FilterMode = Literal["mask", "afno"]
FilterAxes = Literal["time", "time+mel"]
_EPS = 1e-5


@dataclass(frozen=True)
class FilterSettings:
    """How the adaptive frequency filter works."""

    mode: FilterMode = "mask"  # ``mask``: shrunk mask times spectrum (paper); ``afno``: shrunk network output (code)
    axes: FilterAxes = "time"  # of the Fourier transform
    alpha: float = 0.02  # threshold of the soft shrinkage
    blocks: int = 8  # of mel channels that are mixed with each other
    unit_mask: bool = False  # ``mask`` starts at one everywhere instead of inside the dead zone


def soft_shrink(x: Tensor, alpha: Tensor) -> Tensor:
    """``sign(x) * max(|x| - alpha, 0)``, any shape; no gradient reaches ``x`` inside ``±alpha``."""
    return torch.relu(x - alpha) - torch.relu(-x - alpha)


class RealDft(nn.Module):
    """Orthonormal Fourier transform of real ``[B, N, D]`` along N, and along D too if asked, as matrix products.

    ``forward`` equals ``torch.fft.rfft`` (``rfft2`` over both axes), ``inverse`` equals ``irfft`` (``irfft2``).
    """

    cosine: Tensor  # [K, N], K = N // 2 + 1
    sine: Tensor
    inverse_cosine: Tensor  # [N, K]
    inverse_sine: Tensor
    mel_cosine: Tensor  # [D, D]
    mel_sine: Tensor

    def __init__(self, frames: int, bins: int, axes: FilterAxes) -> None:
        super().__init__()
        self.both = axes == "time+mel"
        cosine, sine = _dft(frames // 2 + 1, frames)
        once = torch.full((frames // 2 + 1, 1), 2.0, dtype=torch.float64)
        once[0] = 1.0  # the constant, and the Nyquist bin of an even length, have no mirror image
        if frames % 2 == 0:
            once[-1] = 1.0
        matrices = {
            "cosine": cosine,
            "sine": -sine,
            "inverse_cosine": (once * cosine).T,
            "inverse_sine": -(once * sine).T,
        }
        if self.both:
            matrices["mel_cosine"], matrices["mel_sine"] = _dft(bins, bins)
        for name, matrix in matrices.items():
            self.register_buffer(name, matrix.float().contiguous(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, N, D]`` → real and imaginary part, ``[B, K, D]`` each."""
        real, imaginary = self.cosine @ x, self.sine @ x
        if self.both:  # (re + i im) (cos - i sin)
            real, imaginary = (
                real @ self.mel_cosine + imaginary @ self.mel_sine,
                imaginary @ self.mel_cosine - real @ self.mel_sine,
            )
        return real, imaginary

    def inverse(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Real and imaginary part ``[B, K, D]`` → ``[B, N, D]``."""
        if self.both:
            real, imaginary = (
                real @ self.mel_cosine - imaginary @ self.mel_sine,
                imaginary @ self.mel_cosine + real @ self.mel_sine,
            )
        return self.inverse_cosine @ real + self.inverse_sine @ imaginary


def _dft(rows: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[rows, size]``, float64, orthonormal."""
    # the product is reduced before it becomes an angle: exact for any size
    turns = torch.outer(torch.arange(rows), torch.arange(size)) % size
    angle = turns.double() * (2.0 * math.pi / size)
    return torch.cos(angle) / math.sqrt(size), torch.sin(angle) / math.sqrt(size)


class BlockLinear(nn.Module):
    """Complex linear layer on blocks of channels."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        width = channels // blocks
        bound = math.sqrt(6.0 / (blocks * width * width))  # Kaiming over the four-dimensional tensor, as published
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(2, blocks, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(2, channels))

    def forward(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part ``[B, K, D]`` → the same shapes."""
        shape = (*real.shape[:2], self.blocks, 1, real.shape[2] // self.blocks)
        re, im = real.reshape(shape), imaginary.reshape(shape)
        out_re = re @ self.weight[0] - im @ self.weight[1]  # [B, K, blocks, 1, width]
        out_im = re @ self.weight[1] + im @ self.weight[0]
        return out_re.reshape(real.shape) + self.bias[0], out_im.reshape(real.shape) + self.bias[1]


class FrequencyFilter(nn.Module):
    """AFF: a small complex network transforms the picture's modulation spectrum; the shrunk result is added to it.

    Always float32: in bfloat16 the constant, tens of times the rest, would mask the modulations.
    """

    alpha: Tensor  # part of the state: a checkpoint from the middle of the annealing keeps its threshold

    def __init__(self, frames: int, bins: int, settings: FilterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.transform = RealDft(frames, bins, settings.axes)
        self.first = BlockLinear(bins, settings.blocks)
        self.second = BlockLinear(bins, settings.blocks)
        self.register_buffer("alpha", torch.tensor(settings.alpha))
        if settings.unit_mask:
            nn.init.constant_(self.second.bias[0], 1.0 + settings.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` → ``[B, N, D]``, float32."""
        with full_precision(x):
            x = x.float()
            real, imaginary = self.transform(x)  # [B, K, D]
            hidden = self.first(real, imaginary)
            out_re, out_im = self.second(torch.relu(hidden[0]), torch.relu(hidden[1]))
            out_re, out_im = soft_shrink(out_re, self.alpha), soft_shrink(out_im, self.alpha)
            if self.settings.mode == "mask":
                out_re, out_im = out_re * real - out_im * imaginary, out_re * imaginary + out_im * real
            return x + self.transform.inverse(out_re, out_im)


class RmsNorm(nn.Module):
    """Division by the root mean square of the last axis, in float32, and a learned gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` → the same shape, float32."""
        x = x.float()
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _EPS) * self.weight


class DifferentialAttention(nn.Module):
    """Difference of two attentions over the frames, per head ``softmax(q1 k1) - lambda softmax(q2 k2)``.

    Parameters
    ----------
    width : int
        D of the tokens; queries, keys and values are twice as wide.
    heads : int
        Each with a lambda of its own.
    depth : int
        Sets the first lambda, ``0.8 - 0.6 exp(-0.3 depth)``; the authors pass 6 for their only layer.
    """

    lambda_q1: nn.Parameter  # [heads, part], as the other three
    lambda_k1: nn.Parameter
    lambda_q2: nn.Parameter
    lambda_k2: nn.Parameter

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.part = heads, width // heads
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.query = nn.Linear(width, 2 * width, bias=False)
        self.key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        for projection in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(projection.weight)
        bound = math.sqrt(6.0 / self.part)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.empty(heads, self.part).uniform_(-bound, bound)))
        self.norm = RmsNorm(2 * self.part)

    def balance(self) -> Tensor:
        """Lambda of each head, ``[heads]``."""
        first = (self.lambda_q1 * self.lambda_k1).float().sum(dim=1)
        second = (self.lambda_q2 * self.lambda_k2).float().sum(dim=1)
        return torch.exp(first) - torch.exp(second) + self.lambda_init

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` → ``[B, N, D]``."""
        batch, frames, _ = x.shape
        split = (batch, frames, self.heads, 2, self.part)
        query = self.query(x).view(split).permute(3, 0, 2, 1, 4)  # [2, B, heads, N, part]
        key = self.key(x).view(split).permute(3, 0, 2, 1, 4)
        value = self.value(x).view(batch, frames, self.heads, 2 * self.part).transpose(1, 2)
        with full_precision(x):  # a small difference of two large terms
            query, key, value = query.float(), key.float(), value.float()
            first = F.scaled_dot_product_attention(query[0], key[0], value)  # [B, heads, N, 2 part]
            second = F.scaled_dot_product_attention(query[1], key[1], value)
            mixed = self.norm(first - self.balance()[:, None, None] * second) * (1.0 - self.lambda_init)
        # copied first: fused and plain attention have different memory layouts, and an exported graph fixes one
        return self.out(mixed.transpose(1, 2).clone(memory_format=torch.contiguous_format).view(batch, frames, -1))


class SwiGlu(nn.Module):
    """``down(silu(gate(x)) * up(x))``, twice the width inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` → the same shape."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class DenoisingLayer(nn.Module):
    """Filter, then differential attention and SwiGLU, over the frames of a picture ``[B, N frames, D mel]``.

    Parameters
    ----------
    frames, bins : int
        N and D; the constant Fourier matrices fix both.
    heads, depth : int
        Of the differential attention.
    settings : FilterSettings
        Of the filter.
    figure : bool
        As in the paper's figure: layer norms inside, a second filter behind, and a layer norm after each of the three.
    """

    def __init__(
        self, frames: int, bins: int, *, heads: int, depth: int, settings: FilterSettings, figure: bool = False
    ) -> None:
        super().__init__()
        self.filter = FrequencyFilter(frames, bins, settings)
        self.attention_norm = nn.LayerNorm(bins) if figure else RmsNorm(bins)
        self.attention = DifferentialAttention(bins, heads, depth)
        self.feed_forward_norm = nn.LayerNorm(bins) if figure else RmsNorm(bins)
        self.feed_forward = SwiGlu(bins)
        self.second_filter = FrequencyFilter(frames, bins, settings) if figure else None
        self.outer_norms = nn.ModuleList(nn.LayerNorm(bins) for _ in range(3 if figure else 0))

    def filters(self) -> list[FrequencyFilter]:
        """One filter, or two."""
        return [self.filter] if self.second_filter is None else [self.filter, self.second_filter]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, N, D]`` → output of the (first) filter and denoised picture, both ``[B, N, D]``."""
        filtered = self.filter(x)
        x = self.outer_norms[0](filtered) if self.outer_norms else filtered
        x = x + self.attention(self.attention_norm(x))
        x = x + self.feed_forward(self.feed_forward_norm(x))
        if self.second_filter is not None:
            x = self.outer_norms[2](self.second_filter(self.outer_norms[1](x)))
        return filtered, x
