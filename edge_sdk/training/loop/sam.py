"""Sharpness-aware minimisation (arXiv:2010.01412) and its adaptive form ASAM (arXiv:2102.11600), in two plain steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edge_sdk.errors import CheckpointError

_log = logging.getLogger(__name__)
_EPS = 1e-12


class SAM:
    """Wraps an optimiser; after a gradient at w, ``first_step`` climbs and ``second_step`` descends from w again.

    ::

        loss(w).backward(); sam.first_step()      # w → w + ε, gradients cleared
        loss(w + ε).backward(); sam.second_step()  # back to w, the base optimiser steps with the second gradient

    Gradient accumulation: backward over all micro-batches, one ``first_step``, backward over the same ones, one
    ``second_step``. Under DDP run the first backward in ``no_sync`` (m-SAM: each rank climbs its own slope) and always
    make the second pass: all ranks skip a step together. Gradients must be unscaled; use bf16 autocast, which
    needs no scaler. The weights are moved and restored in place and bit for bit.

    Parameters
    ----------
    base : Optimizer
        Takes the descent step; schedulers attach to it.
    rho : float
        Radius: ‖ε‖ = rho, in the adaptive form ‖ε / |w|‖ = rho.
    adaptive : bool
        ε = rho · w² g / ‖|w| g‖ instead of rho · g / ‖g‖.
    guarded : nn.Module, optional
        Its ``state_dict`` raises while its weights are perturbed.
    """

    def __init__(
        self, base: Optimizer, rho: float, *, adaptive: bool = False, guarded: nn.Module | None = None
    ) -> None:
        if not rho > 0:
            raise ValueError(f"rho must be positive, got {rho}; leave the sam section out to train without it")
        self.base = base
        self.rho = rho
        self.adaptive = adaptive
        self.skipped = 0  # steps left out because a gradient was not finite
        self._moved: list[Tensor] = []
        self._saved: list[Tensor] | None = None  # the weights while they are perturbed
        self._bad = False  # the first gradient was not finite
        if guarded is not None:
            # a plain function: copies of the model (its average) then do not copy this object
            guarded.register_state_dict_pre_hook(lambda *_: self._refuse())

    @property
    def perturbed(self) -> bool:
        """Whether the weights are at w + ε."""
        return self._saved is not None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the base optimiser."""
        return self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> bool:
        """Climb to w + ε and clear the gradients; false (and no climb) where the gradient is not finite."""
        if self.perturbed:
            raise RuntimeError("first_step twice without second_step or restore between them")
        weights, gradients = self._with_gradient()
        if self.adaptive:
            strength = torch._foreach_abs(weights)
            scaled = torch._foreach_mul(strength, gradients)
            norm = _norm(scaled)
            gradients = list(torch._foreach_mul(strength, scaled))
        else:
            norm = _norm(gradients)
        self._bad = not bool(torch.isfinite(norm))
        self._moved, self._saved = weights, [weight.clone() for weight in weights]
        if not self._bad and weights:
            torch._foreach_add_(weights, torch._foreach_mul(gradients, self.rho / (float(norm) + _EPS)))
        self.base.zero_grad()
        return not self._bad

    @torch.no_grad()
    def second_step(self) -> bool:
        """Back to w, then the base optimiser's step; false (weights as before) where a gradient was not finite."""
        if not self.perturbed:
            raise RuntimeError("second_step without first_step")
        self.restore()
        finite = not self._bad and bool(torch.isfinite(_norm(self._with_gradient()[1])))
        finite = _on_every_rank(finite, self._moved)
        if finite:
            self.base.step()
        else:
            self.skipped += 1
            _log.warning("a gradient was not finite; step skipped, %d so far", self.skipped)
        self.base.zero_grad()
        self._bad, self._moved = False, []
        return finite

    @torch.no_grad()
    def restore(self) -> None:
        """Weights back to w, bit for bit; nothing where they are not perturbed. Gradients stay."""
        if self._saved is not None:
            for weight, saved in zip(self._moved, self._saved, strict=True):
                weight.copy_(saved)
            self._saved = None

    def zero_grad(self) -> None:
        """Of the base optimiser."""
        self.base.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Of the base optimiser, with the count of skipped steps.

        Raises
        ------
        CheckpointError
            The weights are perturbed.
        """
        self._refuse()
        return {"base": self.base.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the output of ``state_dict``."""
        self.restore()
        self.base.load_state_dict(state["base"])
        self.skipped = int(state["skipped"])

    def _with_gradient(self) -> tuple[list[Tensor], list[Tensor]]:
        parameters = [p for group in self.base.param_groups for p in group["params"] if p.grad is not None]
        return parameters, [p.grad for p in parameters]

    def _refuse(self) -> None:
        if self.perturbed:
            raise CheckpointError(
                "the weights are perturbed between the two steps of SAM; save after second_step(), or restore() first"
            )


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all tensors, in float32."""
    if not tensors:
        return torch.zeros(())
    device = tensors[0].device
    norms = torch._foreach_norm([tensor.float() for tensor in tensors])
    return torch.stack([norm.to(device) for norm in norms]).norm()


def _on_every_rank(flag: bool, weights: list[Tensor]) -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    device = weights[0].device if weights else torch.device("cpu")
    agreed = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MIN)
    return bool(agreed)
