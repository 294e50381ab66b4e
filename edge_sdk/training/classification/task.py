"""Classification of one respiratory cycle as a task of the training loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_sdk.corpora.splits import grouped_folds
from edge_sdk.digests import sha256_file
from edge_sdk.metadata import MetadataSchema
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import decide, decode
from edge_sdk.training.audio.augment import Randomness, mask_features
from edge_sdk.training.audio.waveform import spec_augment
from edge_sdk.training.building import build_recipe_model
from edge_sdk.training.calibration import strict_score
from edge_sdk.training.classification.batch import Batch, mixup_batch
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.distill import make_distillation
from edge_sdk.training.classification.inference import cycle_logits
from edge_sdk.training.classification.objectives import Objective, make_objective
from edge_sdk.training.classification.objectives.targets import smooth_targets
from edge_sdk.training.classification.sampling import ANNOTATED, ExampleSampler, balanced
from edge_sdk.training.classification.self_training import with_pseudo_labels
from edge_sdk.training.classification.windows import WindowMaker
from edge_sdk.training.data_identity import digest_of
from edge_sdk.training.loop.fit import Trainer
from edge_sdk.training.recipes.recipe import Recipe

# Parts of a recipe that may change after training: they do not shape the weights.
_AFTER_TRAINING = frozenset({"title", "paper", "protocol", "development", "decision"})
_SETTLING = 128  # examples for the statistics of a network that starts from public weights


@dataclass(frozen=True)
class DrawnBatch(Batch):
    """A batch with the recordings that it was cut from."""

    recording: Tensor | None = None  # [B] int64 index into the bank


class ClassifyTask:
    """Labelled cycles of a recipe.

    Parameters
    ----------
    recipe : Recipe
        All settings.
    data : TrainingData
        What the run may use; patients for choosing the epoch are held out of it.
    seed : int
        Chooses those patients.

    Attributes
    ----------
    schema : MetadataSchema or None
        Vocabularies and statistics of the rows that are trained on, where the recipe reads metadata.
    objective : Objective
        Set by ``build``.
    """

    objective: Objective

    def __init__(self, recipe: Recipe, data: TrainingData, seed: int = 0) -> None:
        self.recipe = recipe
        self.device = torch.device("cpu")
        self._all, self.held_out = data, data.events.where(_held_out(recipe, data, seed))
        if len(self.held_out):
            data = data.of_patients(set(data.events.patient.tolist()) - set(self.held_out.patient.tolist()))
        self.training = data
        self.schema = _schema(recipe, data)
        self._sampler = _sampler(recipe, data)
        self._windows = WindowMaker(recipe, data)
        self._front_end = FoldedFrontEnd(recipe.spec)

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch."""
        return max(1, self.recipe.sampling.per_epoch // self.recipe.fit.batch)

    def build(self) -> nn.Module:
        """The recipe's network with fresh or public weights; sets ``objective``."""
        model = build_recipe_model(self.recipe, self.schema)
        if self.recipe.model.pretrained is not None:
            model.settle(self._typical_features())
        section, labels = self.recipe.objective, self.recipe.labels
        width = model.embedding_dim
        self.objective = make_objective(
            section,
            self.recipe.decoder,
            labels,
            class_counts=np.bincount(self.training.events.trained.bits, minlength=len(labels)).tolist(),
            embedding_dim=width,
            distillation=None
            if section.distill is None
            else make_distillation(section.distill, self.recipe.spec, labels, self.recipe.decoder, width),
        )
        return model

    def _typical_features(self) -> Tensor:
        """``[_SETTLING, 1, M, T]`` training features from draws of their own, the same in every process."""
        random = Randomness(torch.Generator().manual_seed(0))
        return self.batch(np.random.default_rng(0), random, _SETTLING).features

    def batch(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> Batch:
        """``count`` windows with device simulation, as features with targets and metadata."""
        recipe = self.recipe
        examples = self._sampler.draw(count, numpy_random)
        wave, label = self._windows(examples, random)
        wave = wave.to(self.device)
        features = mask_features(self._front_end.to(self.device)(wave), recipe.augment, random)
        features = spec_augment(features, recipe.paper_augment, random)
        recording = np.searchsorted(self.training.bank.starts, examples.start.numpy(), side="right") - 1
        batch: Batch = DrawnBatch(
            features=features,
            targets=smooth_targets(label, len(recipe.labels), recipe.fit.label_smoothing).to(self.device),
            random=random,
            wave=wave if recipe.objective.distill is not None else None,
            recording=torch.from_numpy(recording),
        )
        if recipe.fit.mixup_p and float(random.uniform(1, 0.0, 1.0)) < recipe.fit.mixup_p:
            batch = mixup_batch(batch)
            if (
                recipe.objective.distill is None
            ):  # only a teacher reads it, and a partner's row may go to another process
                batch = replace(batch, mixed=None)
        if self.schema is None or recipe.metadata is None:
            return batch
        rows = self.training.metadata_rows(recording, examples.length.numpy(), recipe.spec.rate_hz)
        metadata = Metadata.from_arrays(self.schema.encode(rows)).drop(
            random.generator, recipe.metadata.per_field_dropout, recipe.metadata.all_dropout
        )
        return replace(batch, metadata=metadata)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The objective of the batch, scalar."""
        return self.objective(model, batch)

    def validate(self, model: nn.Module) -> float | None:
        """Strict Score of the held-out patients, by the most probable label; None where no patient is held out."""
        if not len(self.held_out):
            return None
        logits = cycle_logits(model, self.recipe, self._all, self.held_out, self.schema)
        decoder = Decoder(kind=self.recipe.decoder)
        predicted = decide(decode(logits, decoder), decoder)
        return strict_score(self.held_out.bits, predicted, len(self.recipe.labels))

    def identity(self) -> dict[str, Any]:
        """Recipe, events, patients and audio that shape the weights or choose the epoch."""
        shaping = {key: value for key, value in self.recipe.to_dict().items() if key not in _AFTER_TRAINING}
        data, events = self.training, self.training.events
        metadata = data.metadata if self.schema is not None else ()
        distill = self.recipe.objective.distill
        teachers = {} if distill is None else {"teachers": digest_of([sha256_file(path) for path in distill.files])}
        return {
            "recipe": shaping,
            "events": len(events),
            "patients": sorted({str(patient) for patient in events.patient}),
            "classes": dict(Counter(self.recipe.labels[index] for index in events.bits.tolist())),
            "labels": digest_of(data.names, vars(events), vars(self.held_out), data.noise, data.negatives),
            "metadata": digest_of(metadata, data.corpus),
            "audio": digest_of(data.bank.digest, None if data.heart is None else data.heart.digest),
            **teachers,
        }

    def sources(self, batch: Batch) -> Sequence[str]:
        """Recordings that a batch was cut from."""
        if not isinstance(batch, DrawnBatch) or batch.recording is None or not len(self.training.names):
            return []
        return [str(self.training.names[index]) for index in batch.recording.tolist()]


def _held_out(recipe: Recipe, data: TrainingData, seed: int) -> npt.NDArray[np.bool_]:
    """``[E]`` events of the patients for choosing the epoch: one of ``1 / validation_share`` even folds."""
    events, share = data.events, recipe.fit.validation_share
    if not share:
        return np.zeros(len(events), dtype=bool)
    fold = grouped_folds(events.bits.tolist(), events.patient.tolist(), max(2, round(1.0 / share)), seed=seed)
    return (fold == 0) & (events.use == ANNOTATED)


def _sampler(recipe: Recipe, data: TrainingData) -> ExampleSampler:
    events, joint = data.events.trained, recipe.joint
    origins = data.origins(events)
    return ExampleSampler(
        events,
        data.bank,
        recipe.sampling,
        recipe.spec.rate_hz,
        probability=balanced(events, origins, recipe.sampling.class_power, joint) if joint.active else None,
        negatives=data.negatives,
        negative_share=joint.noise_share,
    )


def _schema(recipe: Recipe, data: TrainingData) -> MetadataSchema | None:
    if recipe.metadata is None:
        return None
    events = data.events
    rows = data.metadata_rows(events.recording, events.end - events.begin, recipe.spec.rate_hz)
    return MetadataSchema.fit(rows, recipe.metadata.fields)


def classify_trainer(recipe: Recipe, data: TrainingData, seed: int, *, device: str = "cpu") -> Trainer:
    """The training loop over the cycles of ``data`` with the settings of the recipe."""
    data = with_pseudo_labels(recipe, data)
    return Trainer(recipe.fit, recipe.optimiser, ClassifyTask(recipe, data, seed), seed, device=device)


def schema_of(trainer: Trainer) -> MetadataSchema | None:
    """Metadata schema of a trainer of this task; None where its network reads no metadata."""
    return trainer.task.schema if isinstance(trainer.task, ClassifyTask) else None


def trained_data(trainer: Trainer) -> TrainingData:
    """What a trainer of this task fits its weights to: without the patients held out to choose the epoch."""
    assert isinstance(trainer.task, ClassifyTask)
    return trainer.task.training
