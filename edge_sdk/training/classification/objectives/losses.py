"""Losses of logits against soft targets; every one returns the mean over the batch.

Focal: arXiv:1708.02002, in the log-softmax form of MRI-Net. Asymmetric: arXiv:2009.14119. The hierarchical and the
expected-cost losses are those published with the metadata-conditioned AST.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.training.classification.objectives.targets import BOTH, label_probabilities

_FOCAL_FLOOR = 1e-4  # of the probability in the focusing factor, as published
# Cost of predicting the column's label for the row's: normal, crackle, wheeze, both.
_COST = ((0.0, 1.0, 1.0, 1.5), (2.0, 0.0, 1.2, 0.3), (2.0, 1.2, 0.0, 0.3), (2.5, 0.5, 0.5, 0.0))


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of ``[B, C]`` logits against ``[B, C]`` target distributions."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of ``[B, C]`` soft targets, label c counting ``weight[c]`` times (the scale cancels)."""
    weighted = targets * weight
    return -(weighted * F.log_softmax(logits, dim=1)).sum() / weighted.sum()


def focal(logits: Tensor, targets: Tensor, gamma: float, alpha: Tensor) -> Tensor:
    """``-α_c (1 - p_c)^γ log p_c`` over ``[B, C]``, p from a softmax; ``alpha`` is ``[C]`` or ``[1]``."""
    log_p = F.log_softmax(logits, dim=1)
    p = log_p.exp().clamp(min=_FOCAL_FLOOR)
    return -(targets * alpha * (1.0 - p) ** gamma * log_p).sum(dim=1).mean()


def binary_focal(logits: Tensor, targets: Tensor, gamma: float, alpha: Tensor) -> Tensor:
    """The same over independent logits ``[B, L]``; ``alpha`` weighs positives and negatives alike."""
    losses = torch.zeros_like(logits)
    for share, log_p in ((targets, F.logsigmoid(logits)), (1.0 - targets, F.logsigmoid(-logits))):
        losses = losses - share * (1.0 - log_p.exp().clamp(min=_FOCAL_FLOOR)) ** gamma * log_p
    return (alpha * losses).mean()


def binary_cross_entropy(logits: Tensor, targets: Tensor, pos_weight: Tensor) -> Tensor:
    """Mean over ``[B, L]`` with positives counting ``pos_weight[l]`` times."""
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)


def hierarchical(logits: Tensor, targets: Tensor, bits: Tensor, pos_weight: Tensor) -> Tensor:
    """Binary cross-entropy, halved where "both" is predicted as one of its parts, doubled where abnormal as normal.

    ``targets`` ``[B, 4]`` over labels, ``bits`` ``[B, 2]`` over logits; predicted is what has a logit above 0.
    """
    losses = F.binary_cross_entropy_with_logits(logits, bits, pos_weight=pos_weight, reduction="none").mean(dim=1)
    truth, predicted = targets.argmax(dim=1), (logits.detach() > 0).sum(dim=1)
    factor = torch.ones_like(losses)
    factor = torch.where((truth == BOTH) & (predicted == 1), 0.5, factor)
    factor = torch.where((truth != 0) & (predicted == 0), 2.0, factor)
    return (losses * factor).mean()


def expected_cost(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Expected cost of the product-of-Bernoulli probabilities; ``weight`` ``[4]`` by true label."""
    cost = torch.tensor(_COST, dtype=logits.dtype, device=logits.device) * weight[:, None]
    return ((targets @ cost) * label_probabilities(logits)).sum(dim=1).mean()


def asymmetric(logits: Tensor, targets: Tensor, gamma_negative: float, gamma_positive: float, clip: float) -> Tensor:
    """Asymmetric loss of ``[B, L]``: easy negatives (below ``clip``) do not count, others are focused harder."""
    positive = torch.sigmoid(logits)
    negative = (1.0 - positive + clip).clamp(max=1.0)
    gain = targets * torch.log(positive.clamp(min=1e-8)) * (1.0 - positive) ** gamma_positive
    gain = gain + (1.0 - targets) * torch.log(negative.clamp(min=1e-8)) * (1.0 - negative) ** gamma_negative
    return -gain.mean()


def denoising_divergence(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """KL divergence from targets whose ``smoothing`` goes to the other labels only, mean over the batch.

    Equals cross-entropy at label smoothing ``smoothing * C / (C - 1)`` less the targets' entropy, a constant for hard
    labels; the published code uses it with 0.2 for four labels.
    """
    others = targets.shape[1] - 1
    spread = targets * (1.0 - smoothing) + (1.0 - targets) * smoothing / others
    return F.kl_div(F.log_softmax(logits, dim=1), spread, reduction="batchmean")
