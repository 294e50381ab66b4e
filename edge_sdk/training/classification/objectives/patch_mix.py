"""Patch-Mix contrastive learning (arXiv:2305.14032) and its dual-axis form for scanning networks (arXiv:2606.11922).

The dual-axis rules are a reconstruction: the paper names the idea, not its constants.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.models.network import Network
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.classification.batch import Batch
from edge_sdk.training.recipes.objective_settings import PatchMixSection

AXES = {
    "patch": "single cells of the grid, anywhere",
    "time": "whole columns: all frequencies of some instants",
    "frequency": "whole rows: some frequencies at all times",
    "dual": "two views, one by columns and one by rows, each with its own share; two more passes",
    "random": "columns or rows, a coin for each batch",
    "both": "columns and rows in one view; one more pass",
}


class GridMixer:
    """Overwrites cells of each grid with those of its partner; the hook that ``Network.embed`` takes as ``mix``.

    Parameters
    ----------
    axis : str
        ``patch``, ``time``, ``frequency`` or ``both``.
    keep : tuple of float
        Drawn shares to keep: one, or for ``both`` one of time and one of frequency.
    order : Tensor
        ``[B]`` partner of each example.
    random : Randomness
        Chooses the cells, the same for the whole batch.
    """

    def __init__(self, axis: str, keep: tuple[float, ...], order: Tensor, random: Randomness) -> None:
        self.axis = axis
        self.order = order
        self._keep = keep
        self._random = random
        self.share: float | None = None  # of the grid that stayed the example's own; known after the call

    def __call__(self, grid: Tensor) -> Tensor:
        """``[B, D, H, W]`` (H frequency, W time) → the same shape."""
        mask = self._mask(grid.shape[2], grid.shape[3])
        self.share = 1.0 - float(mask.double().mean())
        return torch.where(mask.to(grid.device), grid[self.order.to(grid.device)], grid)

    def _mask(self, rows: int, columns: int) -> Tensor:
        """``[H, W]`` true where the partner's cell goes."""
        if self.axis == "patch":
            return self._chosen(rows * columns, self._keep[0]).view(rows, columns)
        mask = torch.zeros(rows, columns, dtype=torch.bool)
        if self.axis in ("time", "both"):
            mask = mask | self._chosen(columns, self._keep[0])[None, :]
        if self.axis in ("frequency", "both"):
            mask = mask | self._chosen(rows, self._keep[-1])[:, None]
        return mask

    def _chosen(self, extent: int, keep: float) -> Tensor:
        number = int(extent * (1.0 - keep))
        order = torch.randperm(extent, generator=self._random.generator)
        chosen = torch.zeros(extent, dtype=torch.bool)
        chosen[order[:number]] = True
        return chosen


class Projector(nn.Module):
    """Embedding → space of the contrast: linear, norm, ReLU, linear, all of the embedding's width."""

    def __init__(self, width: int, norm: str = "batch") -> None:
        super().__init__()
        middle = nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, width), middle, nn.ReLU(), nn.Linear(width, width))

    def forward(self, embedding: Tensor) -> Tensor:
        """``[B, D]`` → ``[B, D]``."""
        return self.layers(embedding)


def contrastive_loss(
    query: Tensor, key: Tensor, order: Tensor, share: float, temperature: float, same_label: Tensor | None = None
) -> Tensor:
    """InfoNCE with two positives: oneself by ``share``, the partner by the rest.

    Parameters
    ----------
    query, key : Tensor
        ``[B, D]`` of the mixed and of the clean pass; compared by cosine.
    order : Tensor
        ``[B]`` partner of each example.
    share : float
        Share of the example's own grid that stayed.
    temperature : float
        Of the softmax over the batch.
    same_label : Tensor, optional
        ``[B, B]`` pairs of equal label; those that are no positives leave the denominator.
    """
    with torch.autocast(query.device.type, enabled=False):  # a temperature of 0.06 would enlarge the errors of bf16
        scores = F.normalize(query.float(), dim=1) @ F.normalize(key.float(), dim=1).T / temperature  # [B, B]
    own = torch.arange(len(query), device=query.device)
    order = order.to(query.device)
    if same_label is not None:
        left_out = same_label.clone()
        left_out[own, own] = False
        left_out[own, order] = False
        scores = scores.masked_fill(left_out, float("-inf"))
    log_p = F.log_softmax(scores, dim=1)
    return -(share * log_p[own, own] + (1.0 - share) * log_p[own, order]).mean()


class PatchMix(nn.Module):
    """The contrastive term of one batch, given the embedding of its clean pass.

    Parameters
    ----------
    settings : PatchMixSection
        Axis, temperature, which side gets a gradient.
    width : int
        Embedding dimension of the network.
    """

    def __init__(self, settings: PatchMixSection, width: int) -> None:
        super().__init__()
        self.settings = settings
        self.projector = Projector(width, settings.projector_norm)

    def forward(self, model: Network, batch: Batch, clean: Tensor) -> Tensor:
        """One or two more passes of ``model``; ``clean`` is the embedding ``[B, D]`` without mixing."""
        order = torch.randperm(len(batch.features), generator=batch.random.generator)
        key = self._key(clean)
        same_label = None
        if self.settings.diff_label:
            label = batch.targets.argmax(dim=1)
            same_label = label[:, None] == label[None, :]
        losses = []
        for mixer in self._views(order, batch.random):
            mixed = self.projector(model.embed(batch.features, batch.metadata, mix=mixer))
            if mixer.share is None:
                raise TypeError(f"{type(model).__name__}.embed does not call its mix hook; Patch-Mix cannot train it")
            losses.append(contrastive_loss(mixed, key, order, mixer.share, self.settings.temperature, same_label))
        return torch.stack(losses).mean()

    def _views(self, order: Tensor, random: Randomness) -> list[GridMixer]:
        axis = self.settings.axis
        if axis == "dual":
            return [GridMixer(a, (self._keep(random),), order, random) for a in ("time", "frequency")]
        if axis == "random":
            axis = "time" if float(random.uniform(1, 0.0, 1.0)) < 0.5 else "frequency"
        keep = tuple(self._keep(random) for _ in range(2 if axis == "both" else 1))
        return [GridMixer(axis, keep, order, random)]

    def _keep(self, random: Randomness) -> float:
        """From Beta(beta, beta)."""
        shape = torch.full((2,), self.settings.beta)
        gamma = torch._standard_gamma(shape, generator=random.generator)
        return float(gamma[0] / gamma.sum().clamp(min=1e-12))

    def _key(self, clean: Tensor) -> Tensor:
        kind = self.settings.key
        key = self.projector(clean) if kind.startswith("project") else clean
        return key if kind.endswith("flow") else key.detach()
