"""Targets over labels → targets of the logits that a decoder reads, and the weights that balance them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CRACKLE, WHEEZE, BOTH = 1, 2, 3  # columns of the four labels; normal is 0


def smooth_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """``[B]`` class indices → ``[B, C]`` targets that give ``smoothing`` to all classes alike."""
    return smoothed(F.one_hot(labels, classes).float(), smoothing)


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Give ``smoothing`` of ``[B, C]`` targets to all labels alike."""
    return targets * (1.0 - smoothing) + smoothing / targets.shape[1]


def logit_targets(targets: Tensor, decoder: str) -> Tensor:
    """``[B, C]`` shares of labels → ``[B, L]`` targets in [0, 1] of the logits.

    Softmax: unchanged. Multilabel: crackle and wheeze, "both" counts for either. Binary: 1 - normal.
    """
    if decoder == "softmax":
        return targets
    if decoder == "binary":
        return 1.0 - targets[:, :1]
    both = targets[:, BOTH]
    return torch.stack([targets[:, CRACKLE] + both, targets[:, WHEEZE] + both], dim=1)


def label_probabilities(logits: Tensor) -> Tensor:
    """``[B, 2]`` crackle and wheeze logits → ``[B, 4]`` product-of-Bernoulli probabilities of the labels."""
    crackle, wheeze = torch.sigmoid(logits).unbind(dim=1)
    absent_c, absent_w = 1.0 - crackle, 1.0 - wheeze
    return torch.stack([absent_c * absent_w, crackle * absent_w, absent_c * wheeze, crackle * wheeze], dim=1)


def class_weights(counts: Sequence[int], kind: str) -> Tensor:
    """``[C]`` weights of mean 1: equal (``none``), ∝ 1 / count (``inverse``) or its root (``sqrt``)."""
    power = {"none": 0.0, "sqrt": 0.5, "inverse": 1.0}[kind]
    weight = torch.tensor(counts, dtype=torch.float64).clamp(min=1.0) ** -power
    return (weight / weight.mean()).float()


def positive_weights(counts: Sequence[int], decoder: str) -> Tensor:
    """``[L]`` negatives / positives of each logit, from counts by label."""
    total = torch.tensor(counts, dtype=torch.float64)
    positives = logit_targets(torch.eye(len(counts), dtype=torch.float64), decoder).T @ total  # [L]
    return ((total.sum() - positives) / positives.clamp(min=1.0)).float()
