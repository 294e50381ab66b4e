"""DASS: Distilled Audio State Space Models Are Stronger and More Duration-Scalable Learners.

https://arxiv.org/abs/2407.04082: the backbone "v05_noz" of VMamba (https://arxiv.org/abs/2401.10166) on spectrograms.
With ``gaussian`` it is the network of Lung-SRAD (https://arxiv.org/abs/2606.11922). Maps are channel-last,
``[B, H, W, C]`` with H = frequency and W = time: projections and norms then need no transposes, and the scan moves
whole pixels. Attribute names are those of the public checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from edge_sdk.errors import RecipeError
from edge_sdk.models.layers.activations import Gelu, gelu, softplus
from edge_sdk.models.layers.selective_scan import FORMS, ScanForm, linear_scan
from edge_sdk.models.layers.spectral import GaussianBlend, GaussianOptions
from edge_sdk.models.network import GridMix, Network
from edge_sdk.signal.spec import FrontEndSpec

DIRECTIONS = 4  # rows, columns, rows backwards, columns backwards


@dataclass(frozen=True)
class DassSize:
    """Plan of one size."""

    dims: tuple[int, ...]  # channels of each stage
    depths: tuple[int, ...]  # blocks of each stage
    drop_path: float  # of the last block; grows linearly from 0


SIZES = {
    "tiny": DassSize(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), drop_path=0.0),
    "small": DassSize(dims=(24, 48, 96, 192), depths=(1, 2, 3, 1), drop_path=0.1),
    "base": DassSize(dims=(96, 192, 384, 768), depths=(2, 2, 8, 2), drop_path=0.2),
    "medium": DassSize(dims=(96, 192, 384, 768), depths=(2, 2, 20, 2), drop_path=0.3),
}


class _Permute(nn.Module):
    """A change of layout; without weights, it keeps the indices of the public ``Sequential`` layers."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def _channels_first() -> _Permute:
    return _Permute(0, 3, 1, 2)


def _channels_last() -> _Permute:
    return _Permute(0, 2, 3, 1)


def _halve(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)


class DropPath(nn.Module):
    """Leave a residual branch out, example by example; scale the others up to the same mean."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """``[B, ...]`` → the same shape."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        mask = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) < keep
        return x * mask.to(x.dtype) / keep


class _Mlp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


def cross_scan(maps: Tensor) -> Tensor:
    """``[B, H, W, C]`` → ``[B, 4, H*W, C]``: by rows, by columns, and both from the end."""
    batch, height, width, channels = maps.shape
    rows = maps.reshape(batch, height * width, channels)
    columns = maps.transpose(1, 2).reshape(batch, height * width, channels)
    both = torch.stack([rows, columns], dim=1)  # [B, 2, L, C]
    return torch.cat([both, both.flip(2)], dim=1)


def cross_merge(scanned: Tensor, height: int, width: int) -> Tensor:
    """``[B, 4, H*W, C]`` → ``[B, H, W, C]``: every direction back in its place, then their sum."""
    batch, _, _, channels = scanned.shape
    both = scanned[:, :2] + scanned[:, 2:].flip(2)  # [B, 2, L, C]
    rows = both[:, 0].reshape(batch, height, width, channels)
    columns = both[:, 1].reshape(batch, width, height, channels)
    return rows + columns.transpose(1, 2)


class SelectiveScan2d(nn.Module):
    """SS2D without gate, one state a channel: project, mix neighbours, scan in four directions, project."""

    def __init__(self, channels: int, scan: ScanForm) -> None:
        super().__init__()
        self.rank = math.ceil(channels / 16)  # of the step size's projection
        self.scan = scan
        self.in_proj = nn.Linear(channels, channels, bias=False)
        self.conv2d = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, self.rank + 2, channels))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, channels, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, channels))
        self.A_logs = nn.Parameter(torch.zeros(DIRECTIONS * channels, 1))  # A = -1
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * channels))
        self.out_norm = nn.LayerNorm(channels)
        self.out_proj = nn.Linear(channels, channels, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        bound = 1.0 / math.sqrt(self.x_proj_weight.shape[2])
        nn.init.uniform_(self.x_proj_weight, -bound, bound)
        bound = self.rank**-0.5
        nn.init.uniform_(self.dt_projs_weight, -bound, bound)
        low, high = math.log(1e-3), math.log(1e-1)
        step = torch.exp(torch.rand_like(self.dt_projs_bias) * (high - low) + low).clamp_min(1e-4)
        with torch.no_grad():
            self.dt_projs_bias.copy_(step + torch.log(-torch.expm1(-step)))  # inverse of softplus

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, H, W, C]`` → ``[B, H, W, C]``."""
        mixed = self.conv2d(self.in_proj(maps).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # [B, H, W, C]
        # Flat, so that ONNX Runtime's optimiser keeps the permutation at the convolution, where it costs nothing.
        mixed = F.silu(mixed.flatten(1, 2)).view(maps.shape)
        with _full_precision(mixed):
            scanned = self._scan(mixed.float())
        return self.out_proj(self.out_norm(scanned.to(mixed.dtype)))

    def _scan(self, u: Tensor) -> Tensor:
        """The four recurrences over ``[B, H, W, C]``, summed; in float32, since half precision does not train."""
        height, width, channels = u.shape[1:]
        # The projection acts on single pixels: once for all directions, and only its few outputs are reordered.
        projected = self._reorder(F.linear(u, self.x_proj_weight.flatten(0, 1).float()))  # [B, 4, L, R + 2]
        rank, into, out = projected.split([self.rank, 1, 1], dim=-1)  # [B, 4, L, R], [B, 4, L, 1] twice
        weight = torch.cat([self.dt_projs_weight, self.dt_projs_bias.unsqueeze(2)], dim=2).float()  # [4, C, R + 1]
        step = softplus(torch.matmul(F.pad(rank, (0, 1), value=1.0), weight.transpose(1, 2)))  # [B, 4, L, C]
        decay = torch.exp(step * -torch.exp(self.A_logs.float()).view(DIRECTIONS, 1, channels))
        drive = step * (into * cross_scan(u))
        states = linear_scan(decay, drive, self.scan)  # [B, 4, L, C]
        skip = u * self.Ds.float().view(DIRECTIONS, channels).sum(dim=0)  # the same pixel in every direction
        return cross_merge(out * states, height, width) + skip

    @staticmethod
    def _reorder(projected: Tensor) -> Tensor:
        """``[B, H, W, 4 * F]`` → ``[B, 4, L, F]``, the features of each direction in its own order."""
        batch, height, width, features = projected.shape
        each = projected.reshape(batch, height, width, DIRECTIONS, features // DIRECTIONS)
        rows = each[..., 0::2, :].permute(0, 3, 1, 2, 4).flatten(2, 3)  # [B, 2, L, F]: directions 0 and 2
        columns = each[..., 1::2, :].permute(0, 3, 2, 1, 4).flatten(2, 3)  # directions 1 and 3
        forwards = torch.stack([rows[:, 0], columns[:, 0]], dim=1)
        return torch.cat([forwards, torch.stack([rows[:, 1], columns[:, 1]], dim=1).flip(2)], dim=1)


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    kind = x.device.type
    if not is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return nullcontext()  # no autocast region in exported graphs
    return torch.autocast(kind, enabled=False)


class VssBlock(nn.Module):
    """Visual state space block: scan branch, then MLP branch, both pre-norm with residual."""

    def __init__(self, channels: int, drop_path: float, scan: ScanForm) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.op = SelectiveScan2d(channels, scan)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = _Mlp(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, H, W, C]`` → the same shape."""
        maps = maps + self.drop_path(self.op(self.norm(maps)))
        return maps + self.drop_path(self.mlp(self.norm2(maps)))


class _Stage(nn.Module):
    blocks: nn.Sequential
    downsample: nn.Sequential

    def __init__(self, channels: int, following: int | None, drop_paths: list[float], scan: ScanForm) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(VssBlock(channels, p, scan) for p in drop_paths))
        self.downsample = nn.Sequential()
        if following is not None:
            halve = _halve(channels, following)
            self.downsample = nn.Sequential(_channels_first(), halve, _channels_last(), nn.LayerNorm(following))


class _Classifier(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)


class Dass(Network):
    """Log-mel picture of any size → logits.

    Parameters
    ----------
    classes : int
        Number of logits C.
    size : str
        ``tiny`` (tests), ``small`` (two CPU cores), ``base`` (DASS-small of the paper) or ``medium`` (DASS-medium).
    front_end : FrontEndSpec, optional
        Part of every model's signature; there is no positional embedding that would depend on it.
    scan : str
        Form of the recurrence, see `edge_sdk.models.layers.selective_scan.FORMS`.
    gaussian : mapping, optional
        Smoothing of selected stages' outputs (`GaussianOptions`); None: plain DASS.
    drop_path : float, optional
        Share of left-out branches at the last block; None: the size's own.
    """

    fresh = ("classifier.head.*",)  # tensors that a public file need not have

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        scan: ScanForm = "chunked",
        gaussian: Mapping[str, Any] | None = None,
        drop_path: float | None = None,
    ) -> None:
        super().__init__()
        del front_end
        if scan not in FORMS:
            raise RecipeError(f"dass: scan is {scan!r}, must be one of {', '.join(FORMS)}")
        plan = SIZES[size]
        dims = plan.dims
        self.patch_embed = nn.Sequential(
            _halve(1, dims[0] // 2), _channels_last(), nn.LayerNorm(dims[0] // 2), _channels_first(), Gelu(),
            _halve(dims[0] // 2, dims[0]), _channels_last(), nn.LayerNorm(dims[0]),
        )  # fmt: skip
        last = plan.drop_path if drop_path is None else drop_path
        rates = np.linspace(0.0, last, sum(plan.depths)).tolist()
        self.layers = nn.ModuleList()
        for index, depth in enumerate(plan.depths):
            following = dims[index + 1] if index + 1 < len(dims) else None
            self.layers.append(_Stage(dims[index], following, rates[:depth], scan))
            rates = rates[depth:]
        self.classifier = _Classifier(dims[-1], classes)
        self.embedding_dim = dims[-1]
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.blends = self._blends(dims, gaussian)
        kept = ("A_logs", "Ds", "dt_projs_bias")
        self.no_decay = tuple(name for name, _ in self.named_parameters() if name.endswith(kept))

    @staticmethod
    def _blends(dims: tuple[int, ...], gaussian: Mapping[str, Any] | None) -> nn.ModuleDict:
        if gaussian is None:
            return nn.ModuleDict()
        options = GaussianOptions(**gaussian)
        return nn.ModuleDict({str(s): GaussianBlend(dims[s - 1], options) for s in options.stages})

    def stage_maps(self, features: Tensor, *, mix: GridMix | None = None) -> list[Tensor]:
        """``[B, 1, M, T]`` → each stage's output ``[B, C, H, W]``, for `layers.spectral.spectral_response`."""
        maps = self.patch_embed(features)  # [B, H, W, C]
        if mix is not None:
            maps = mix(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        outputs = []
        for number, stage in enumerate(self.layers, start=1):
            assert isinstance(stage, _Stage)
            maps = stage.blocks(maps)  # [B, H, W, C] of this stage
            if str(number) in self.blends:
                maps = self.blends[str(number)](maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            outputs.append(maps.permute(0, 3, 1, 2))
            maps = stage.downsample(maps)
        return outputs

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, D]``: last stage, norm, mean over the grid; ``mix`` gets the stem's grid."""
        maps = self.stage_maps(features, mix=mix)[-1].permute(0, 2, 3, 1)
        return self.classifier.norm(maps).mean(dim=(1, 2))

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, D]`` → logits ``[B, classes]``."""
        return self.classifier.head(embedding)

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Public weights (DASS on AudioSet, VMamba on ImageNet) under this network's names and shapes.

        Parameters
        ----------
        state : mapping
            As published: names may begin with ``module.v.``; 1x1 convolutions may be 2-D or 4-D; the first convolution
            may have three colour channels, which are summed; a head of other classes is left out.
        """
        own = self.classifier.head.weight.shape
        public: dict[str, Tensor] = {}
        for name, tensor in state.items():
            name = name.removeprefix("module.").removeprefix("v.")
            if name == "patch_embed.0.weight" and tensor.shape[1] == 3:
                tensor = tensor.sum(dim=1, keepdim=True)
            if name.endswith("proj.weight") or ".mlp." in name or name == "classifier.head.weight":
                tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
            public[name] = tensor
        weight = public.get("classifier.head.weight")
        if weight is not None and weight.shape != own:
            public = {name: tensor for name, tensor in public.items() if not name.startswith("classifier.head.")}
        return public

    def penalty(self) -> Tensor | None:
        """The Gaussian options' loss term ``[]`` of the last training pass; None without one."""
        terms = [term for blend in self._gaussians() if (term := blend.take_penalty()) is not None]
        return torch.stack(terms).mean() if terms else None

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """Set the Gaussian's width of this epoch."""
        for blend in self._gaussians():
            blend.on_epoch(epoch)

    def _gaussians(self) -> list[GaussianBlend]:
        return [blend for blend in self.blends.values() if isinstance(blend, GaussianBlend)]
