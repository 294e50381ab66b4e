"""LungAdapter: Efficient Adapting Audio Spectrogram Transformer for Lung Sound Classification (Interspeech 2024).

Small trained adapters inside a frozen AST. Neither code nor the placement of the adapters was published; this
reconstruction has the published share of trained parameters (2.8 %): one bottleneck beside attention and one beside
the MLP of every block.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.ast import Ast
from edge_sdk.models.layers.ast_encoder import Block
from edge_sdk.signal.spec import FrontEndSpec

Placement = Literal["parallel", "sequential"]


class Adapter(nn.Module):
    """``scale * up(GELU(down(norm(x))))``, zero until it is trained."""

    def __init__(self, dim: int, bottleneck: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.down = nn.Linear(dim, bottleneck)
        self.up = nn.Linear(bottleneck, dim)
        self.scale = nn.Parameter(torch.tensor(0.1))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` → ``[B, N, D]``."""
        return self.scale * self.up(nn.functional.gelu(self.down(self.norm(x))))


class AdaptedBlock(Block):
    """An existing block, frozen, with an adapter at each of its two branches."""

    def __init__(self, block: Block, bottleneck: int, placement: Placement, norm_eps: float) -> None:
        nn.Module.__init__(self)
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        dim = block.attn.proj.out_features
        self.placement = placement
        self.adapter_attention = Adapter(dim, bottleneck, norm_eps)
        self.adapter_mlp = Adapter(dim, bottleneck, norm_eps)

    def attention_branch(self, x: Tensor, kept: int | None = None) -> Tensor:
        """Addition of attention and its adapter to the residual, ``[B, N, D]`` or the first ``kept`` tokens of it."""
        added = super().attention_branch(x, kept)
        return added + self.adapter_attention(x[:, : added.shape[1]] if self.placement == "parallel" else added)

    def mlp_branch(self, x: Tensor, modulation: Tensor | None) -> Tensor:
        """Addition of the MLP and its adapter to the residual, ``[B, N, D]``."""
        added = super().mlp_branch(x, modulation)
        return added + self.adapter_mlp(x if self.placement == "parallel" else added)


class LungAdapter(Ast):
    """A frozen AST in which only adapters, the final norm, conditioning and head are trained.

    Parameters
    ----------
    classes, size, front_end
        As ``Ast``.
    bottleneck : int, optional
        Width of the adapters; None: 64 at ``base``, a twelfth of the width elsewhere.
    placement : str
        ``parallel``: beside each branch, on its input; ``sequential``: after it.
    options
        All of ``Ast``.
    """

    fresh = (*Ast.fresh, "encoder.blocks.*.adapter_*")

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        *,
        bottleneck: int | None = None,
        placement: Placement = "parallel",
        **options: Any,
    ) -> None:
        if placement not in ("parallel", "sequential"):
            raise RecipeError(f"model option placement is {placement!r}, must be parallel or sequential")
        if options.get("trainable_blocks") is not None:
            raise RecipeError("lung_adapter freezes every block; remove model.options.trainable_blocks")
        super().__init__(classes, size, front_end, **{"head": "ln-linear", **options})
        plan = self.encoder.plan
        width = bottleneck or max(plan.dim // 12, 2)
        self.encoder.requires_grad_(False)
        self.encoder.norm.requires_grad_(True)
        for index, block in enumerate(self.encoder.blocks):
            assert isinstance(block, Block)
            self.encoder.blocks[index] = AdaptedBlock(block, width, placement, plan.norm_eps)
        self.train(self.training)

    def train(self, mode: bool = True) -> LungAdapter:
        """Training mode for the trained parts; the frozen parts stay in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        for module in self.encoder.modules():
            if isinstance(module, Adapter):
                module.train(mode)
        return self
