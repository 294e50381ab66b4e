"""Knowledge distillation (arXiv:1503.02531): any trained checkpoint teaches a network on the same audio."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.network import Network, Outputs
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint
from edge_sdk.training.classification.batch import Batch
from edge_sdk.training.recipes.objective_settings import DistillSection

_log = logging.getLogger(__name__)


class Teacher:
    """A frozen checkpoint with its own front end; deliberately no module, so that it is neither trained nor stored.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of any model, size and front end.
    student : FrontEndSpec
        Front end of the student, for the rate of its audio.
    """

    def __init__(self, checkpoint: Checkpoint, student: FrontEndSpec) -> None:
        self.spec = checkpoint.front_end
        self.labels = checkpoint.labels
        self.decoder = checkpoint.decoder
        self._student = student
        self._front_end = FoldedFrontEnd(self.spec).eval().requires_grad_(False)
        network = checkpoint.build().requires_grad_(False)
        if not isinstance(network, Network):
            raise RecipeError(f"model {checkpoint.model!r} cannot teach: it has no embedding; derive it from Network")
        self._network: Network = network
        if student.rate_hz < self.spec.rate_hz:
            _log.warning(
                "the teacher works at %d Hz and gets audio of %d Hz: nothing above %d Hz reaches it",
                self.spec.rate_hz, student.rate_hz, student.rate_hz // 2,
            )  # fmt: skip

    @property
    def embedding_dim(self) -> int:
        """Width D of its embedding."""
        return self._network.embedding_dim

    @torch.no_grad()
    def __call__(self, wave: Tensor) -> Outputs:
        """``[B, N]`` audio at the student's rate → the teacher's logits and embedding."""
        self._front_end.to(wave.device)
        self._network.to(wave.device)
        return self._network.outputs(self._front_end(self.window(wave)))

    def window(self, wave: Tensor) -> Tensor:
        """``[B, N]`` at the student's rate → ``[B, N']``, the teacher's window: repeated, or its middle."""
        if self._student.rate_hz != self.spec.rate_hz:
            from torchaudio.functional import resample

            wave = resample(wave, self._student.rate_hz, self.spec.rate_hz)
        wanted, have = self.spec.window_samples, wave.shape[1]
        if have >= wanted:
            first = (have - wanted) // 2
            return wave[:, first : first + wanted]
        return wave.repeat(1, -(-wanted // have))[:, :wanted]


class Distillation(nn.Module):
    """Adds the divergence from a teacher's outputs to the loss on the labels.

    ``(1 - weight) * loss + weight * T² * divergence(teacher || student at temperature T) + features * distance``: the
    divergence is KL over labels for softmax heads and between Bernoullis, logit by logit, for the others; the distance
    is mean squared, between normalised embeddings, the student's through a linear projection that only training needs.

    Parameters
    ----------
    settings : DistillSection
        Weights and temperature.
    teacher : Teacher
        Network whose outputs are the targets.
    embedding_dim : int
        Of the student.
    """

    def __init__(self, settings: DistillSection, teacher: Teacher, embedding_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.teacher = teacher
        self.projection = nn.Linear(embedding_dim, teacher.embedding_dim) if settings.features else None

    def forward(self, loss: Tensor, outputs: Outputs, batch: Batch) -> Tensor:
        """``loss`` on the labels and the student's ``outputs`` of the batch → the loss that is minimised."""
        if batch.wave is None:
            raise RecipeError("distillation needs the audio of the batch: the task must keep Batch.wave")
        teacher = self.teacher(batch.wave)
        settings = self.settings
        targets = _soft_targets(teacher.logits.float(), self.teacher.decoder, settings.temperature)
        embedding = teacher.embedding.float()
        if batch.mixed is not None:
            targets, embedding = batch.mixed(targets), batch.mixed(embedding)
        divergence = _divergence(outputs.logits / settings.temperature, targets, self.teacher.decoder)
        loss = (1.0 - settings.weight) * loss + settings.weight * settings.temperature**2 * divergence
        if self.projection is not None:
            distance = _distance(self.projection(outputs.embedding).float(), embedding)
            loss = loss + settings.features * distance
        return loss


def make_distillation(
    settings: DistillSection, student: FrontEndSpec, labels: Sequence[str], decoder: str, embedding_dim: int
) -> Distillation:
    """Load the teacher of a recipe for a student of this front end, labels, decoder and embedding width.

    Raises
    ------
    CheckpointError
        No usable checkpoint.
    RecipeError
        The teacher has other labels or another kind of head, or is a model without an embedding.
    """
    checkpoint = load_checkpoint(Path(settings.teacher))
    if tuple(checkpoint.labels) != tuple(labels) or checkpoint.decoder != decoder:
        raise RecipeError(
            f"teacher {settings.teacher} predicts {', '.join(checkpoint.labels)} through a {checkpoint.decoder} head, "
            f"the student {', '.join(labels)} through a {decoder} head; give a teacher of the same labels and decoder"
        )
    return Distillation(settings, Teacher(checkpoint, student), embedding_dim)


def _soft_targets(logits: Tensor, decoder: str, temperature: float) -> Tensor:
    scaled = logits / temperature
    return F.softmax(scaled, dim=1) if decoder == "softmax" else torch.sigmoid(scaled)


def _divergence(logits: Tensor, targets: Tensor, decoder: str) -> Tensor:
    if decoder == "softmax":
        return F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="batchmean")
    cross = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    entropy = -(torch.xlogy(targets, targets) + torch.xlogy(1.0 - targets, 1.0 - targets))
    return (cross - entropy).sum(dim=1).mean()


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 0 to 4."""
    return (F.normalize(found, dim=1) - F.normalize(wanted, dim=1)).pow(2).sum(dim=1).mean()
