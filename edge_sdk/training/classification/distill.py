"""Knowledge distillation (arXiv:1503.02531): any trained checkpoint teaches a network on the same audio."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
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
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import CHECKPOINT_FILE

FOLD, SEED = "{fold}", "{seed}"
"""Stand for the numbers of the fold and of a cross-validation's seed in the name of a teacher."""

HELD_OUT = "held_out_patients"
"""Entry of a fold checkpoint's metrics: the patients it was not trained on."""

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
    teachers : sequence of Teacher
        Networks whose outputs are the targets: the mean of their probabilities at the temperature.
    embedding_dim : int
        Of the student.
    """

    def __init__(self, settings: DistillSection, teachers: Sequence[Teacher], embedding_dim: int) -> None:
        super().__init__()
        if settings.features and len(teachers) > 1:
            raise RecipeError(
                "objective.distill.features matches the embedding of one teacher; give one, or features=0"
            )
        self.settings = settings
        self.teachers = tuple(teachers)
        self.projection = nn.Linear(embedding_dim, teachers[0].embedding_dim) if settings.features else None

    def forward(self, loss: Tensor, outputs: Outputs, batch: Batch) -> Tensor:
        """``loss`` on the labels and the student's ``outputs`` of the batch → the loss that is minimised."""
        if batch.wave is None:
            raise RecipeError("distillation needs the audio of the batch: the task must keep Batch.wave")
        settings, decoder = self.settings, self.teachers[0].decoder
        taught = [teacher(batch.wave) for teacher in self.teachers]
        targets = torch.stack(
            [_soft_targets(one.logits.float(), decoder, settings.temperature) for one in taught]
        ).mean(dim=0)
        if batch.mixed is not None:
            targets = batch.mixed(targets)
        divergence = _divergence(outputs.logits / settings.temperature, targets, decoder)
        loss = (1.0 - settings.weight) * loss + settings.weight * settings.temperature**2 * divergence
        if self.projection is not None:
            embedding = taught[0].embedding.float()
            wanted = embedding if batch.mixed is None else batch.mixed(embedding)
            loss = loss + settings.features * _distance(self.projection(outputs.embedding).float(), wanted)
        return loss


def make_distillation(
    settings: DistillSection, student: FrontEndSpec, labels: Sequence[str], decoder: str, embedding_dim: int
) -> Distillation:
    """Load the teachers of a recipe for a student of this front end, labels, decoder and embedding width.

    Raises
    ------
    CheckpointError
        No usable checkpoint.
    RecipeError
        No teacher is named, or one has other labels or another kind of head, or is a model without an embedding.
    """
    if not settings.files:
        raise RecipeError("objective.distill.teacher names no checkpoint; give one, or several joined by commas")
    teachers = []
    for path in settings.files:
        checkpoint = load_checkpoint(path)
        if tuple(checkpoint.labels) != tuple(labels) or checkpoint.decoder != decoder:
            raise RecipeError(
                f"teacher {path} predicts {', '.join(checkpoint.labels)} through a {checkpoint.decoder} head, "
                f"the student {', '.join(labels)} through a {decoder} head; "
                "give a teacher of the same labels and decoder"
            )
        teachers.append(Teacher(checkpoint, student))
    return Distillation(settings, teachers, embedding_dim)


def taught_by_fold(recipe: Recipe, fold: int, held_out: Collection[str]) -> Recipe:
    """The recipe with the teachers of one fold of a cross-validation, who must not know its held-out patients.

    Raises
    ------
    RecipeError
        A teacher may know a held-out patient.
    CheckpointError
        No usable checkpoint.
    """
    recipe = _with_teachers(recipe, FOLD, fold)
    section, teacher = recipe.objective.distill, recipe.joint.teacher
    teachers = [Path(teacher)] if teacher else []
    for path in (*teachers, *(() if section is None else section.files)):
        if not set(held_out) <= set(load_checkpoint(path).metrics.get(HELD_OUT, ())):
            raise RecipeError(
                f"teacher {path} was trained on patients that fold {fold} holds out; cross-validate the teacher "
                f"with the same folds and seed, and name it RUN/fold-{FOLD}/{CHECKPOINT_FILE}"
            )
    return recipe


def taught_by_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with the teachers of one seed, where their names hold :data:`SEED`."""
    return _with_teachers(recipe, SEED, seed)


def _with_teachers(recipe: Recipe, mark: str, number: int) -> Recipe:
    """The recipe with a number in the names of its teachers."""
    objective, joint = recipe.objective, recipe.joint
    if (section := objective.distill) is not None:
        section = msgspec.structs.replace(section, teacher=section.teacher.replace(mark, str(number)))
        objective = msgspec.structs.replace(objective, distill=section)
    if joint.teacher:
        joint = msgspec.structs.replace(joint, teacher=joint.teacher.replace(mark, str(number)))
    return msgspec.structs.replace(recipe, objective=objective, joint=joint)


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
