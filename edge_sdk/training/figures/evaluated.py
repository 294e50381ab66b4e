"""Input of the figures: a checkpoint's predictions and embeddings on one split, and the network itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk.corpora import Corpus
from edge_sdk.corpora.audio import batches, cycle_pcm
from edge_sdk.corpora.labels import BINARY, as_cycles, relabel
from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CheckpointError, CorpusError
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.models.conditioning import Metadata
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.network import Network
from edge_sdk.runtime.context import in_context
from edge_sdk.runtime.decoding import decide, decode
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.calibration import checkpoint_decoder
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint
from edge_sdk.training.classification.data import cycle_metadata
from edge_sdk.training.run_folder import CHECKPOINT_FILE

BATCH = 32


@dataclass(frozen=True)
class EvaluatedModel:
    """One trained network and its predictions on annotated cycles."""

    run: str  # name for titles and file names
    checkpoint: Checkpoint
    model: Network
    corpus: str
    split: str
    cycles: tuple[Cycle, ...]
    logits: npt.NDArray[np.float64]  # [n, L]
    embeddings: npt.NDArray[np.float64]  # [n, D]
    resamples: int = 1000
    seed: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the checkpoint, in the order of the probabilities."""
        return self.checkpoint.labels

    @property
    def patients(self) -> list[str]:
        """``[n]``."""
        return [cycle.patient for cycle in self.cycles]

    @property
    def protocol(self) -> str:
        """How the figures were measured, in one line."""
        return f"{protocol_of(self.checkpoint, self.corpus, self.split)}, annotated breaths"

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """``[n, C]``, by the checkpoint's decoder."""
        decoder = checkpoint_decoder(self.checkpoint)
        recordings, starts = [c.recording_id for c in self.cycles], [c.start_s for c in self.cycles]
        return decode(in_context(self.logits, decoder.context_share, recordings, starts), decoder)

    @cached_property
    def report(self) -> dict[str, Any]:
        """The figures of ``stetho evaluate``."""
        decoder = checkpoint_decoder(self.checkpoint)
        chosen = decide(self.probabilities, decoder, self.labels.index(decoder.normal_label))
        return evaluate_predictions(
            [cycle.label for cycle in self.cycles],
            self.probabilities,
            self.patients,
            labels=self.labels,
            normal_label=decoder.normal_label,
            predictions=[self.labels[index] for index in chosen.tolist()],
            resamples=self.resamples,
            seed=self.seed,
        )

    @property
    def normal(self) -> int:
        """Index of the normal label."""
        return self.labels.index(checkpoint_decoder(self.checkpoint).normal_label)

    @cached_property
    def truth(self) -> npt.NDArray[np.int64]:
        """``[n]`` indices into the labels."""
        return np.array([self.labels.index(cycle.label) for cycle in self.cycles], dtype=np.int64)

    @cached_property
    def decisions(self) -> npt.NDArray[np.int64]:
        """``[n]`` indices into the labels, by the checkpoint's thresholds."""
        return decide(self.probabilities, checkpoint_decoder(self.checkpoint), self.normal)

    def spread(self, most: int) -> list[int]:
        """At most so many cycles, evenly over the split."""
        return np.unique(np.linspace(0, len(self.cycles) - 1, min(most, len(self.cycles))).round().astype(int)).tolist()

    @torch.no_grad()
    def features(self, chosen: Sequence[int]) -> Tensor:
        """``[B, 1, M, T]`` of some cycles, read again; ``chosen`` ascending."""
        spec = self.checkpoint.front_end
        windows = [pcm for _, pcm in cycle_pcm([self.cycles[i] for i in chosen], spec)]
        features: Tensor = FoldedFrontEnd(spec).eval()(torch.from_numpy(np.stack(windows)))
        return features

    def metadata(self, chosen: Sequence[int]) -> Metadata | None:
        """Metadata of these cycles for the network; ``None`` where it reads none."""
        return _metadata(self.checkpoint, [self.cycles[i] for i in chosen])


def protocol_of(checkpoint: Checkpoint, corpus: str, split: str) -> str:
    """Training split, evaluated split, and how the epoch was chosen."""
    source = checkpoint.provenance
    choice = "epoch chosen on held-out training patients"
    if not checkpoint.recipe.get("fit", {}).get("validation_share"):
        choice = "fixed epochs"
    if "corpus" not in source:
        return f"untrained → {corpus} {split}"
    target = split if corpus == source["corpus"] else f"{corpus} {split}"
    return f"{source['corpus']} {source.get('split', '?')} → {target}, {choice}"


def load_evaluated_model(
    run: Path,
    corpus: Corpus,
    split: str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    partial: bool = False,
    progress: Progress | None = None,
) -> EvaluatedModel:
    """Run a checkpoint on a split.

    Parameters
    ----------
    run
        Output folder of a training, or its checkpoint.
    corpus, split
        The cycles, and the name of their split.
    resamples, seed
        Of the patient bootstrap.
    partial
        Leave out cycles without a label of the checkpoint's scheme.
    progress
        Called after every batch.

    Raises
    ------
    CheckpointError
        No usable checkpoint of a classifier there.
    CorpusError
        No annotated cycles, or labels that the checkpoint does not have.
    """
    path = run / CHECKPOINT_FILE if run.is_dir() else run
    checkpoint = load_checkpoint(path)
    if checkpoint.recipe.get("task", "classify") != "classify":
        raise CheckpointError(f"{path} is no classifier; 'stetho segment-eval' scores a segmenter")
    model = checkpoint.build()
    if not isinstance(model, Network):
        raise CheckpointError(f"{path}: {checkpoint.model} has no figures; give a checkpoint of a classifier")
    cycles = _cycles(checkpoint, corpus, partial)
    logits, embeddings = _outputs(checkpoint, model, cycles, progress)
    name = path.resolve().parent.name if path.name == CHECKPOINT_FILE else path.stem
    return EvaluatedModel(name, checkpoint, model, corpus.name, split, cycles, logits, embeddings, resamples, seed)


def _cycles(checkpoint: Checkpoint, corpus: Corpus, partial: bool) -> tuple[Cycle, ...]:
    scheme = checkpoint.recipe.get("labels_scheme", "four")
    if scheme == "four" and checkpoint.labels == BINARY:
        scheme = "binary"
    if scheme != "four":
        corpus = as_cycles(relabel(corpus, scheme, drop_unlabelled=partial))
    if not corpus.cycles:
        raise CorpusError(f"{corpus.name} has no annotated breaths there; figures need some")
    unknown = sorted({cycle.label for cycle in corpus.cycles} - set(checkpoint.labels))
    if unknown:
        raise CorpusError(f"{corpus.name} has the labels {', '.join(unknown)}, unknown to the checkpoint")
    return corpus.cycles


@torch.no_grad()
def _outputs(
    checkpoint: Checkpoint, model: Network, cycles: Sequence[Cycle], progress: Progress | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    front_end = FoldedFrontEnd(checkpoint.front_end).eval()
    logits, embeddings, done = [], [], 0
    for some, windows in batches(cycle_pcm(cycles, checkpoint.front_end), BATCH):
        features = front_end(torch.from_numpy(windows))
        embedding = model.embed(features, _metadata(checkpoint, some))
        logits.append(model.classify(embedding).double().numpy())
        embeddings.append(embedding.double().numpy())
        done += len(some)
        if progress is not None:
            progress("breaths", done, len(cycles))
    return np.concatenate(logits), np.concatenate(embeddings)


def _metadata(checkpoint: Checkpoint, cycles: Sequence[Cycle]) -> Metadata | None:
    schema = checkpoint.metadata_schema
    if schema is None:
        return None
    return Metadata.from_arrays(schema.encode([cycle_metadata(cycle) for cycle in cycles]))
