"""What a recipe minimises: the loss on the labels, and what is added to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.network import Network
from edge_sdk.runtime.decoding import logit_count
from edge_sdk.training.classification.batch import Batch
from edge_sdk.training.classification.distill import Distillation
from edge_sdk.training.classification.objectives import losses
from edge_sdk.training.classification.objectives.losses import soft_cross_entropy
from edge_sdk.training.classification.objectives.patch_mix import PatchMix
from edge_sdk.training.classification.objectives.targets import class_weights, logit_targets, positive_weights, smoothed
from edge_sdk.training.recipes.objective_settings import BiasDenoisingSection, ObjectiveSection

LabelLoss = Callable[[Tensor, Tensor], Tensor]
"""Logits ``[B, L]`` and shares of labels ``[B, C]`` → mean loss."""


class Objective(nn.Module):
    """``objective(model, batch)`` → scalar loss; its parameters are trained, its state is no part of a checkpoint.

    Parameters
    ----------
    label_loss : LabelLoss
        On the logits of the clean pass.
    bias_denoising : BiasDenoisingSection, optional
        Loss on the network's auxiliary heads.
    patch_mix : PatchMix, optional
        Contrastive term.
    distillation : Distillation, optional
        Loss against a teacher's outputs.
    """

    def __init__(
        self,
        label_loss: LabelLoss,
        *,
        bias_denoising: BiasDenoisingSection | None = None,
        patch_mix: PatchMix | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        self._label_loss = label_loss
        self._bias_denoising = bias_denoising
        self.patch_mix = patch_mix
        self.distillation = distillation

    def forward(self, model: Network, batch: Batch) -> Tensor:
        """The loss of one batch; ``model`` in training mode."""
        outputs = model.outputs(batch.features, batch.metadata)
        outputs = replace(outputs, logits=outputs.logits.float())  # bf16 ends where losses begin
        penalty = model.penalty()
        loss = self._label_loss(outputs.logits, batch.targets)
        if self._bias_denoising is not None:
            auxiliary = self._auxiliary(outputs.auxiliary, batch.targets, type(model).__name__)
            beta = self._bias_denoising.beta
            loss = beta * auxiliary + (1.0 - beta) * loss
        if self.distillation is not None:
            loss = self.distillation(loss, outputs, batch)
        if self.patch_mix is not None:
            loss = loss + self.patch_mix.settings.alpha * self.patch_mix(model, batch, outputs.embedding)
        return loss if penalty is None else loss + penalty

    def _auxiliary(self, heads: dict[str, Tensor], targets: Tensor, name: str) -> Tensor:
        settings = self._bias_denoising
        if settings is None or not heads:
            raise RecipeError(f"{name} has no auxiliary head; remove objective.bias_denoising from the recipe")
        if settings.form == "kl":
            terms = [losses.denoising_divergence(head.float(), targets, settings.smoothing) for head in heads.values()]
        else:
            spread = smoothed(targets, settings.smoothing)
            terms = [soft_cross_entropy(head.float(), spread) for head in heads.values()]
        return torch.stack(terms).mean()


def make_objective(
    section: ObjectiveSection,
    decoder: str,
    labels: Sequence[str],
    *,
    class_counts: Sequence[int] | None = None,
    embedding_dim: int | None = None,
    distillation: Distillation | None = None,
) -> Objective:
    """Build the objective of a recipe.

    Parameters
    ----------
    section : ObjectiveSection
        Settings of the objective.
    decoder : str
        ``softmax``, ``multilabel`` or ``binary``: the meaning of the logits.
    labels : sequence of str
        The classes, normal first.
    class_counts : sequence of int, optional
        Training examples by label; needed for class and positive weights.
    embedding_dim : int, optional
        Of the network; needed for Patch-Mix.
    distillation : Distillation, optional
        From ``distill.make_distillation``; needed where the section has a ``distill`` part.

    Raises
    ------
    RecipeError
        A loss that the decoder does not admit, or one of the above is missing.
    """
    try:
        logits = logit_count(decoder, labels)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if section.bias_denoising is not None and decoder != "softmax":
        raise RecipeError(f"objective.bias_denoising needs a softmax head, not {decoder}")
    patch_mix = None
    if section.patch_mix is not None:
        if embedding_dim is None:
            raise RecipeError("objective.patch_mix needs the network's embedding_dim; pass it to make_objective")
        patch_mix = PatchMix(section.patch_mix, embedding_dim)
    if (section.distill is None) != (distillation is None):
        raise RecipeError("objective.distill and a loaded teacher belong together; use distill.make_distillation")
    return Objective(
        _label_loss(section, decoder, logits, class_counts),
        bias_denoising=section.bias_denoising,
        patch_mix=patch_mix,
        distillation=distillation,
    )


def _label_loss(section: ObjectiveSection, decoder: str, logits: int, counts: Sequence[int] | None) -> LabelLoss:
    alpha = torch.tensor(section.focal_alpha)
    if section.kind == "focal" and len(alpha) not in (1, logits):
        raise RecipeError(f"objective.focal_alpha: give one number or {logits}, not {len(alpha)}")
    if decoder == "softmax":
        return _softmax_loss(section, alpha, counts)
    if section.class_weight != "none":
        raise RecipeError(f"objective.class_weight is for softmax heads; a {decoder} head has sensitivity_bias")
    if section.kind in ("hierarchical", "composite") and decoder != "multilabel":
        raise RecipeError(f"objective.kind {section.kind} needs the multilabel decoder, not {decoder}")
    if section.kind == "focal":
        return lambda z, t: losses.binary_focal(z, logit_targets(t, decoder), section.focal_gamma, alpha.to(z.device))
    if section.kind == "asymmetric":
        loss = partial(
            losses.asymmetric,
            gamma_negative=section.gamma_negative,
            gamma_positive=section.gamma_positive,
            clip=section.clip,
        )
        return lambda z, t: loss(z, logit_targets(t, decoder))
    if section.kind == "composite":
        weight = class_weights(_needed(counts, "composite"), "inverse")
        weight[1:] *= section.sensitivity_bias
        return lambda z, t: losses.expected_cost(z, t, weight.to(z.device))
    pos_weight = _pos_weight(section, decoder, logits, counts)
    if section.kind == "hierarchical":
        return lambda z, t: losses.hierarchical(z, t, logit_targets(t, decoder), pos_weight.to(z.device))
    return lambda z, t: losses.binary_cross_entropy(z, logit_targets(t, decoder), pos_weight.to(z.device))


def _softmax_loss(section: ObjectiveSection, alpha: Tensor, counts: Sequence[int] | None) -> LabelLoss:
    if section.kind == "focal":
        return lambda z, t: losses.focal(z, t, section.focal_gamma, alpha.to(z.device))
    if section.kind != "cross_entropy":
        raise RecipeError(f"objective.kind {section.kind} needs the multilabel decoder; set decoder: multilabel")
    if section.class_weight == "none":
        return soft_cross_entropy
    weight = class_weights(_needed(counts, "class_weight"), section.class_weight)
    return lambda z, t: losses.weighted_cross_entropy(z, t, weight.to(z.device))


def _pos_weight(section: ObjectiveSection, decoder: str, logits: int, counts: Sequence[int] | None) -> Tensor:
    if section.pos_weight:
        if len(section.pos_weight) != logits:
            raise RecipeError(f"objective.pos_weight: {len(section.pos_weight)} numbers for {logits} logits")
        weight = torch.tensor(section.pos_weight)
    else:
        weight = positive_weights(_needed(counts, "pos_weight"), decoder)
    return weight * section.sensitivity_bias


def _needed(counts: Sequence[int] | None, what: str) -> Sequence[int]:
    if counts is None:
        raise RecipeError(f"objective: {what} is counted from the training examples; pass class_counts")
    return counts
