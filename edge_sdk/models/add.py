"""ADD: Adaptive Differential Denoising for Respiratory Sounds Classification (https://arxiv.org/abs/2506.02505).

A denoising layer, picture in and picture out, before the shared AST.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.ast import Ast
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.denoising import DenoisingLayer, FilterAxes, FilterMode, FilterSettings
from edge_sdk.models.layers.resize import MatrixResize
from edge_sdk.models.network import GridMix, Network, Outputs
from edge_sdk.signal.spec import FrontEndSpec

Picture = Literal["resize", "native"]
Auxiliary = Literal["denoised", "first2_aff", "none"]
Layout = Literal["code", "figure"]


@dataclass(frozen=True)
class AddSize:
    """What one size adds to the AST of the same size."""

    heads: int  # of the differential attention
    native: tuple[int, int]  # mel x frames of the features without a front end
    picture: Picture  # default of the option


SIZES = {
    "tiny": AddSize(2, (48, 186), "native"),
    "small": AddSize(4, (48, 186), "native"),
    "base": AddSize(8, (128, 798), "resize"),
}
CANVAS = (256, 1024)  # mel x frames of ``resize``, cut into patches of 16 x 16 without overlap
_FILTER_BLOCKS = 8


class Add(Network):
    """Log-mel picture, and metadata if the AST is conditioned → logits.

    Parameters
    ----------
    classes : int
        Number of logits C.
    size : str
        ``tiny`` (tests), ``small`` (two CPU cores) or ``base`` (as published).
    front_end : FrontEndSpec, optional
        Fixes the picture and with it the constant Fourier matrices; None: the size's own.
    mode, axes, alpha, unit_mask
        Of the frequency filter, see ``FilterSettings``. The published code is ``afno``, ``time``, 0.01.
    anneal : float
        Share of the epochs over which ``alpha`` rises from 0: inside the dead zone there is no gradient, and nearly
        all values start there. 0 (default) keeps it constant, as published.
    layout : str
        ``code``, or ``figure``: second filter and five layer norms as in the paper's figure.
    depth : int
        Sets the first lambda of the differential attention.
    picture : str, optional
        ``resize``: bilinear to 256 mel x 1024 frames, patches 16 x 16 (as published; default of ``base``). ``native``:
        the features as they are, with the patches of the AST's size.
    auxiliary : str
        Training-only classifier on the ``denoised`` picture (paper), on the first two frames behind the filter
        (``first2_aff``, code), or ``none``. Its logits are ``Outputs.auxiliary["aux"]``.
    backbone : mapping, optional
        Options of the AST (``patch``, ``stride``, ``conditioning``, ...).
    metadata_schema : MetadataSchema, optional
        For an AST that is conditioned on metadata.

    Raises
    ------
    RecipeError
        An option that does not exist.
    """

    training_only = ("auxiliary.",)
    fresh: tuple[str, ...] = ("layer.*", "auxiliary.*", "backbone.head.*", "backbone.conditioner.*")

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        *,
        mode: FilterMode = "mask",
        axes: FilterAxes = "time",
        alpha: float = 0.02,
        anneal: float = 0.0,
        unit_mask: bool = False,
        layout: Layout = "code",
        depth: int = 6,
        picture: Picture | None = None,
        auxiliary: Auxiliary = "denoised",
        backbone: Mapping[str, Any] | None = None,
        metadata_schema: MetadataSchema | None = None,
    ) -> None:
        super().__init__()
        plan = SIZES[size]
        picture = picture or plan.picture
        _check("mode", mode, FilterMode)
        _check("axes", axes, FilterAxes)
        _check("layout", layout, Layout)
        _check("picture", picture, Picture)
        _check("auxiliary", auxiliary, Auxiliary)
        if not (alpha >= 0.0 and 0.0 <= anneal <= 1.0):
            raise RecipeError(f"add: alpha is {alpha} and anneal {anneal}; alpha must be >= 0 and anneal within 0..1")
        source = plan.native if front_end is None else (front_end.mel_bins, front_end.frames)
        bins, frames = CANVAS if picture == "resize" else source
        self.alpha, self.anneal, self.layout, self.auxiliary_kind = alpha, anneal, layout, auxiliary
        self.resize = MatrixResize(source, (bins, frames), "bilinear", align_corners=False)
        settings = FilterSettings(mode, axes, alpha, math.gcd(bins, _FILTER_BLOCKS), unit_mask)
        self.layer = DenoisingLayer(
            frames, bins, heads=math.gcd(bins, plan.heads), depth=depth, settings=settings, figure=layout == "figure"
        )
        self.auxiliary = None if auxiliary == "none" else nn.Linear(bins, classes)
        options: dict[str, Any] = {"head": "ln-linear"}
        if picture == "resize":
            options["stride"] = 16
        self.backbone = Ast(
            classes, size, picture=(bins, frames), metadata_schema=metadata_schema, **{**options, **(backbone or {})}
        )
        self.embedding_dim = self.backbone.embedding_dim
        self.no_decay = ("layer.attention.lambda_", *(f"backbone.{name}" for name in self.backbone.no_decay))
        self.rate_scale = {f"backbone.{name}": factor for name, factor in self.backbone.rate_scale.items()}

    def denoise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, 1, M, T]`` → picture behind the (first) filter and denoised picture, ``[B, frames, mel]`` each."""
        return self.layer(self.resize(features).squeeze(1).transpose(1, 2))

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]``, metadata → ``[B, embedding_dim]``; ``mix`` acts on the AST's patches."""
        return self._embed(self.denoise(features)[1], metadata, mix)

    def _embed(self, denoised: Tensor, metadata: Any, mix: GridMix | None) -> Tensor:
        return self.backbone.embed(denoised.transpose(1, 2).unsqueeze(1), metadata, mix=mix)

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, embedding_dim]`` → logits ``[B, C]``."""
        return self.backbone.classify(embedding)

    def outputs(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Outputs:
        """One training pass; ``auxiliary["aux"]`` holds the logits ``[B, C]`` of the auxiliary head."""
        filtered, denoised = self.denoise(features)
        embedding = self._embed(denoised, metadata, mix)
        auxiliary = {} if self.auxiliary is None else {"aux": self.auxiliary(self._summary(filtered, denoised))}
        return Outputs(self.classify(embedding), embedding, auxiliary)

    def _summary(self, filtered: Tensor, denoised: Tensor) -> Tensor:
        """Input of the auxiliary head, ``[B, mel]``: it is linear, so the mean over the frames comes first."""
        if self.auxiliary_kind == "first2_aff":
            return filtered[:, :2].mean(dim=1)
        if self.layout == "code":  # the head includes gain and offset of this norm; the figure ends with a norm
            denoised = F.layer_norm(denoised, denoised.shape[2:])
        return denoised.mean(dim=1)

    def penalty(self) -> Tensor | None:
        """The AST's weighted regulariser ``[]``; None without one."""
        return self.backbone.penalty()

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """Raise the filters' threshold, and run the AST's own schedules."""
        self.backbone.on_epoch(epoch, epochs)
        if self.anneal > 0.0:
            for layer in self.layer.filters():
                layer.alpha.fill_(self.alpha * min(1.0, epoch / (self.anneal * epochs)))

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a public AST file under this network's names; see ``Ast.public_state``."""
        return {f"backbone.{name}": tensor for name, tensor in self.backbone.public_state(state).items()}

    def folded(self) -> Add:
        """For export: see ``Ast.folded``."""
        return self._with_backbone(self.backbone.folded())

    def specialised(self, metadata: Metadata) -> Add:
        """For export: see ``Ast.specialised``."""
        return self._with_backbone(self.backbone.specialised(metadata))

    def _with_backbone(self, backbone: Ast) -> Add:
        clone = copy.deepcopy(self)
        clone.backbone = backbone
        return clone


def _check(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise RecipeError(f"add: option {name} is {value!r}; choose one of {', '.join(get_args(choices))}")
