"""Settings of losses, optimisers and published augmentations; defaults are those of our own compact recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec


class PatchMixSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Patch-Mix contrastive learning (arXiv:2305.14032) and its dual-axis form (arXiv:2606.11922)."""

    axis: Literal["patch", "time", "frequency", "dual", "random", "both"] = "patch"  # see ``patch_mix.AXES``
    alpha: float = 1.0  # weight of the contrastive term beside the loss on the labels
    beta: float = 1.0  # the kept share is drawn from Beta(beta, beta), once for the batch and axis
    temperature: float = 0.06
    key: Literal["grad_block", "grad_flow", "project_block", "project_flow"] = "grad_block"  # the clean side
    diff_label: bool = False  # leave other examples of the same label out of the denominator
    projector_norm: Literal["batch", "layer"] = "batch"  # layer: independent of the batch size


class BiasDenoisingSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Loss on a network's auxiliary heads: total = beta * auxiliary + (1 - beta) * main (ADD-RSC)."""

    beta: float = 0.5
    smoothing: float = 0.2
    # kl: 0.8 on the truth and the rest on the others, as the authors' code
    form: Literal["cross_entropy", "kl"] = "cross_entropy"


class DistillSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Training on the outputs of checkpoints, each with its own front end on the same audio."""

    teacher: str  # checkpoint file, or several joined by commas; {fold}, {seed}: numbers of a cross-validation
    weight: float = 0.5  # of the teacher's outputs; the labels keep the rest
    temperature: float = 2.0
    features: float = 0.0  # weight of matching the teacher's embedding through a training-only linear projection

    @property
    def files(self) -> tuple[Path, ...]:
        """The checkpoints of ``teacher``."""
        return tuple(Path(name.strip()) for name in self.teacher.split(",") if name.strip())


class ObjectiveSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The training objective. Label smoothing and mixup are in ``fit``: they shape the targets."""

    kind: Literal["cross_entropy", "focal", "hierarchical", "composite", "asymmetric"] = "cross_entropy"
    # cross_entropy and focal take the form of the decoder: over labels (softmax) or per logit (multilabel, binary)
    class_weight: Literal["none", "inverse", "sqrt"] = "none"  # softmax heads: 1 / count, or its root, mean 1
    focal_gamma: float = 2.0
    focal_alpha: tuple[float, ...] = (0.5,)  # one for all labels, or one each
    sensitivity_bias: float = 1.0  # multilabel and binary: pos_weight = negatives / positives * this
    pos_weight: tuple[float, ...] = ()  # per logit, instead of counting; before sensitivity_bias
    gamma_negative: float = 4.0  # asymmetric loss (arXiv:2009.14119)
    gamma_positive: float = 1.0
    clip: float = 0.05  # probability below which a negative does not count
    patch_mix: PatchMixSection | None = None
    bias_denoising: BiasDenoisingSection | None = None
    distill: DistillSection | None = None


class SamSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sharpness-aware minimisation (arXiv:2010.01412), or its adaptive form (arXiv:2102.11600)."""

    rho: float = 0.05  # radius; the adaptive form wants about ten times as much
    adaptive: bool = False


class OptimiserSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the weights move. Learning rate, weight decay, clipping and warm-up are in ``fit``."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"  # adam: weight decay as an L2 term of the gradient
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.9  # sgd
    spare_vectors: bool = False  # no weight decay on biases, norms, positions, embeddings and masks
    schedule: Literal["one_cycle", "cosine", "constant", "cosine_epoch", "htsat"] = "one_cycle"  # see ``optim.py``
    final_rate: float = 0.01  # of cosine, as a share of the peak
    sam: SamSection | None = None


class PaperAugmentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Augmentations as the papers publish them; every default is off."""

    gain_p: float = 0.0  # AST + SAM: 0.5
    gain: tuple[float, float] = (0.9, 1.1)
    gaussian_p: float = 0.0  # AST + SAM: 0.5
    gaussian_sigma: float = 1e-4  # of full scale
    noise_p: float = 0.0  # white noise at a share of the loudest sample
    noise_share: tuple[float, float] = (0.001, 0.015)
    speed_p: float = 0.0  # pitch and duration together; the excerpt is repeated or cut to its window
    speed: tuple[float, float] = (0.9, 1.1)
    loudness_p: float = 0.0
    loudness_db: tuple[float, float] = (-6.0, 6.0)
    vtlp_p: float = 0.0  # vocal-tract-length perturbation: a piecewise linear warp of the spectrum
    vtlp: tuple[float, float] = (0.9, 1.1)
    vtlp_bend: float = 0.6  # of the Nyquist frequency, where the warp bends back to reach it
    spec_p: float = 0.0  # SpecAugment, per batch; the reference's faulty coin gives 0.841
    spec_frequency_masks: int = 2  # the ICBHI policy of Patch-Mix and ADD
    spec_frequency_width: int = 48  # widest, in mel bins
    spec_time_masks: int = 2
    spec_time_width: int = 160  # widest, in frames
    spec_fill: Literal["mean", "zero"] = "mean"  # mean of each picture
