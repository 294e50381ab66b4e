"""Predictions of a model on a corpus: annotated cycles as they are, whole recordings through the model's stream."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora import OTHER
from edge_sdk.corpora.audio import batches, cycle_pcm, read_recording
from edge_sdk.corpora.labels import SCHEMES, as_cycles, relabel
from edge_sdk.errors import BundleError, CorpusError
from edge_sdk.evaluation.cycle_sounds import with_sounds
from edge_sdk.events import CycleResult, Event
from edge_sdk.metadata import metadata_of
from edge_sdk.runtime.context import in_context
from edge_sdk.runtime.decoding import decode

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus, Recording
    from edge_sdk.evaluation.model import ModelUnderTest

BATCH = 32  # windows per call of the engine
_BLOCK_S = 0.5

MetadataMode: TypeAlias = Literal["given", "unknown", "shuffled"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

MetadataRow: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Truth and predictions, item by item; an item is a cycle, or a recording where no cycles are annotated."""

    unit: str  # cycle, recording
    labels: tuple[str, ...]
    items: tuple[dict[str, Any], ...]  # what identifies each: recording, patient, start_s and end_s or cycles
    patients: tuple[str, ...]
    truth: tuple[str, ...]
    metadata: tuple[MetadataRow, ...]  # of each item, whatever the model received
    probabilities: npt.NDArray[np.float64]  # [n, C]
    decisions: npt.NDArray[np.int64]  # [n] indices into the labels, by the model's decoder
    classified: npt.NDArray[np.bool_]  # [n] false where the quality gate left a recording without any label
    unlabelled: int = 0  # recordings left out because their publisher does not label them

    @property
    def predictions(self) -> list[str]:
        """Label of each item; meaningless where ``classified`` is false."""
        return [self.labels[index] for index in self.decisions.tolist()]

    def of_recordings(self, ids: Collection[str]) -> Predictions:
        """The items of some recordings."""
        keep = [k for k, item in enumerate(self.items) if item["recording"] in ids]
        return Predictions(
            self.unit,
            self.labels,
            tuple(self.items[k] for k in keep),
            tuple(self.patients[k] for k in keep),
            tuple(self.truth[k] for k in keep),
            tuple(self.metadata[k] for k in keep),
            self.probabilities[keep],
            self.decisions[keep],
            self.classified[keep],
        )

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON object per item."""
        rows = zip(self.items, self.truth, self.probabilities, self.predictions, self.classified, strict=True)
        for item, truth, row, prediction, classified in rows:
            yield {
                **item,
                "truth": truth,
                "prediction": prediction if classified else None,
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }


def relabelled(corpus: Corpus, model: ModelUnderTest, scheme: str | None) -> Corpus:
    """The corpus under the labels of a model.

    Parameters
    ----------
    corpus
        As loaded.
    model
        Its labels, and the scheme that a checkpoint was trained under, decide where ``scheme`` is absent.
    scheme
        A name of ``corpora.labels.SCHEMES``.

    Raises
    ------
    CorpusError
        Some cycle or recording has no label of the scheme.
    """
    if scheme is None:
        fitting = [name for name, rule in SCHEMES.items() if rule.labels == model.classifier.labels]
        scheme = model.training.get("labels_scheme") or (fitting[0] if fitting else "four")
    if scheme in ("four", "binary"):  # a two-label model is scored on four-class truth as it stands
        return corpus
    changed = relabel(corpus, scheme)
    return changed if changed.cycles else as_cycles(changed)


def predict(
    model: ModelUnderTest,
    corpus: Corpus,
    progress: Progress | None = None,
    *,
    metadata: MetadataMode = "given",
    seed: int = 0,
) -> Predictions:
    """Predictions for every labelled item of a corpus; each recording is read once.

    Parameters
    ----------
    model, corpus
        What is evaluated, and on what. A decoder with context sees the annotated cycles of a recording in order of
        time, as a stream does; the network of continuous audio, where the bundle joins it, runs over whole recordings.
    progress
        Callback.
    metadata
        Input of a model that reads metadata: as ``given``, nothing (``unknown``), or that of another item drawn at
        random (``shuffled``): a model that loses nothing by it does not use metadata.
    seed
        Of the shuffle.

    Raises
    ------
    CorpusError
        No item is labelled.
    AudioError
        A recording that cannot be read.
    BundleError
        Another mode than ``given`` for a model that reads no metadata.
    """
    if metadata != "given" and model.classifier.metadata_schema is None:
        raise BundleError(f"{model.name} reads no metadata; leave --metadata {metadata} out")
    if corpus.cycles:
        return _predict_cycles(model, corpus, progress, metadata, seed)
    return _predict_recordings(model, corpus, progress, metadata, seed)


def _inputs(rows: Sequence[MetadataRow], mode: MetadataMode, seed: int) -> list[MetadataRow]:
    if mode == "unknown":
        return [{} for _ in rows]
    if mode == "shuffled":
        return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows)).tolist()]
    return list(rows)


def _predict_cycles(
    model: ModelUnderTest, corpus: Corpus, progress: Progress | None, mode: MetadataMode, seed: int
) -> Predictions:
    classifier = model.classifier
    metadata = [metadata_of(cycle) for cycle in corpus.cycles]
    rows = [{**row, "duration_s": c.duration_s} for row, c in zip(metadata, corpus.cycles, strict=True)]
    inputs = _inputs(rows, mode, seed) if classifier.metadata_schema is not None else []
    found: list[npt.NDArray[np.float32]] = []
    done = 0
    for cycles, windows in batches(cycle_pcm(corpus.cycles, classifier.front_end), BATCH):  # [b, window_samples]
        beside = inputs[done : done + len(cycles)]
        found.append(classifier.logits(windows, beside or None))
        done += len(cycles)
        if progress is not None:
            progress("breaths", done, len(corpus.cycles))
    share = classifier.decoder.context_share
    which, starts = [c.recording_id for c in corpus.cycles], [c.start_s for c in corpus.cycles]
    probabilities = decode(in_context(np.concatenate(found), share, which, starts), classifier.decoder)  # [n, C]
    decisions = classifier.decide(probabilities)
    if model.verdict is not None and model.verdict.breaths is not None:
        probabilities, decisions = with_sounds(model.verdict, corpus, probabilities, decisions, progress)
    return Predictions(
        "cycle",
        classifier.labels,
        tuple(
            {"recording": c.recording_id, "patient": c.patient, "start_s": c.start_s, "end_s": c.end_s}
            for c in corpus.cycles
        ),
        tuple(cycle.patient for cycle in corpus.cycles),
        tuple(cycle.label for cycle in corpus.cycles),
        tuple(metadata),
        probabilities,
        decisions,
        np.ones(len(corpus.cycles), dtype=np.bool_),
    )


def _predict_recordings(
    model: ModelUnderTest, corpus: Corpus, progress: Progress | None, mode: MetadataMode, seed: int
) -> Predictions:
    labelled = [recording for recording in corpus.recordings if recording.abnormal is not None]
    if not labelled:
        raise CorpusError(f"{corpus.name} at {corpus.root} labels no recording normal or abnormal; nothing to score")
    classifier = model.classifier
    metadata = [metadata_of(recording) for recording in labelled]
    inputs = _inputs(metadata, mode, seed)
    undecided = np.full(len(classifier.labels), 0.5 / (len(classifier.labels) - 1))
    undecided[classifier.normal_index] = 0.5
    rows, counts = [], []
    for done, recording in enumerate(labelled):
        found = list(_stream_recording(model, recording, inputs[done]))
        rows.append(np.mean(found, axis=0) if found else undecided)
        counts.append(len(found))
        if progress is not None:
            progress("recordings", done + 1, len(labelled))
    probabilities = np.stack(rows)  # [n, C]
    return Predictions(
        "recording",
        classifier.labels,
        tuple({"recording": r.id, "patient": r.patient, "cycles": n} for r, n in zip(labelled, counts, strict=True)),
        tuple(recording.patient for recording in labelled),
        tuple(recording.label or OTHER for recording in labelled),
        tuple(metadata),
        probabilities,
        classifier.decide(probabilities),
        np.array(counts) > 0,
        unlabelled=len(corpus.recordings) - len(labelled),
    )


def _stream_recording(
    model: ModelUnderTest, recording: Recording, metadata: MetadataRow
) -> Iterator[npt.NDArray[np.float64]]:
    """Probabilities ``[C]`` of each cycle that the stream found and labelled."""
    samples, rate = read_recording(recording.path)
    for event in stream_events(model, samples, rate, metadata):
        if isinstance(event, CycleResult) and event.label is not None:
            yield np.array([event.probabilities[label] for label in model.classifier.labels])


def stream_events(
    model: ModelUnderTest, samples: npt.NDArray[np.float32], rate: int, metadata: MetadataRow
) -> Iterator[Event]:
    """Events of a new stream over ``[n]`` samples at ``rate`` Hz; metadata only where the model reads it."""
    given = {name: value for name, value in metadata.items() if value is not None}
    stream = model.stream(rate, given if model.classifier.metadata_schema is not None else None)
    step = max(1, round(_BLOCK_S * rate))
    for begin in range(0, samples.size, step):
        yield from stream.accept(samples[begin : begin + step])
    yield from stream.finish()
