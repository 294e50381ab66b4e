"""Runs a model over a corpus: annotated breaths as they are, whole recordings through the bundle's own stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import BundleError, CheckpointError, CorpusError
from edge_sdk.metadata import metadata_of

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus, Recording
    from edge_sdk.runtime.bundle.load import Bundle

BATCH = 32  # windows per call of the engine
_BLOCK_S = 0.5

MetadataMode = Literal["given", "unknown", "shuffled"]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

Known = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Truth and answers, item by item; an item is a breath, or a recording where no breaths are annotated."""

    unit: str  # cycle, recording
    labels: tuple[str, ...]
    items: tuple[dict[str, Any], ...]  # what identifies each: recording, patient, start_s and end_s or cycles
    patients: tuple[str, ...]
    truth: tuple[str, ...]
    known: tuple[Known, ...]  # device, site, sex, age_years, bmi of each, whatever the model was told
    probabilities: npt.NDArray[np.float64]  # [n, C]
    decisions: npt.NDArray[np.int64]  # [n] indices into the labels, by the bundle's decoder
    answered: npt.NDArray[np.bool_]  # [n] false where the quality gate left a recording without any label
    unlabelled: int = 0  # recordings left out because their publisher does not say what they are

    @property
    def predictions(self) -> list[str]:
        """Label of each item; of no meaning where there is no answer."""
        return [self.labels[index] for index in self.decisions.tolist()]

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON object an item."""
        rows = zip(self.items, self.truth, self.probabilities, self.predictions, self.answered, strict=True)
        for item, truth, row, prediction, answered in rows:
            yield {
                **item,
                "truth": truth,
                "prediction": prediction if answered else None,
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }


def load_model(model: str, artefact: str | None) -> Bundle:
    """A bundle, or a checkpoint dressed as one."""
    path = Path(model)
    if model != "default" and (path.is_file() or path.suffix in (".pt", ".pth", ".ckpt")):
        from edge_sdk.cli.needs import need_torch

        need_torch()
        return checkpoint_bundle(path)
    from edge_sdk.runtime.bundle.load import load_bundle

    return load_bundle(model, artefact=artefact)


def checkpoint_bundle(path: Path) -> Bundle:
    """The network of a checkpoint in torch, with the default segmenter and quality gate around it.

    Raises
    ------
    CheckpointError
        Not a usable checkpoint.
    """
    import torch

    from edge_sdk.models.conditioning import Metadata
    from edge_sdk.models.layers.front_end import FoldedFrontEnd
    from edge_sdk.runtime.bundle import schema
    from edge_sdk.runtime.bundle.load import Bundle
    from edge_sdk.runtime.decoding import decoder_problem
    from edge_sdk.training.calibration import checkpoint_decoder
    from edge_sdk.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    decoder = checkpoint_decoder(checkpoint)
    if problem := decoder_problem(decoder, checkpoint.labels):
        raise CheckpointError(f"{path}: {problem}; train again with 'stetho train'")
    network, front_end = checkpoint.build(), FoldedFrontEnd(checkpoint.front_end).eval()
    fields = checkpoint.metadata_schema.inputs if checkpoint.metadata_schema is not None else ()

    class TorchEngine:
        name = "torch"
        inputs = ("pcm", *fields)
        outputs = ("logits",)

        def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            told = {name: inputs[name] for name in fields if name in inputs}
            with torch.inference_mode():
                features = front_end(torch.from_numpy(inputs["pcm"]))
                logits = network(features, Metadata.from_arrays(told)) if told else network(features)
            return {"logits": logits.numpy()}

    artefact = schema.ArtefactEntry(
        file=path.name, format="torch", precision="fp32", sha256="", bytes=0, front_end=checkpoint.front_end.to_dict()
    )
    manifest = schema.Manifest(
        name=checkpoint.model,
        version="0",
        created="",
        sdk_version="",
        description="checkpoint",
        research_use="",
        labels=list(checkpoint.labels),
        decoder=decoder,
        metadata=checkpoint.metadata,
        artefacts=[artefact],
        segmenter=schema.SegmenterEntry(),
        golden=schema.Golden(file="", sha256="", tolerance={}),
        training={**checkpoint.provenance, "labels_scheme": checkpoint.recipe.get("labels_scheme", "four")},
    )
    return Bundle(path, manifest, artefact, TorchEngine())


def relabelled(corpus: Corpus, bundle: Bundle, scheme: str | None) -> Corpus:
    """The corpus under the labels that the model gives.

    Parameters
    ----------
    corpus
        As loaded.
    bundle
        Its labels, and the scheme that a checkpoint was trained under, decide where ``scheme`` is absent.
    scheme
        A name of ``corpora.labels.SCHEMES``.

    Raises
    ------
    CorpusError
        Some breath or recording has no label of the scheme.
    """
    from edge_sdk.corpora.labels import SCHEMES, as_cycles, relabel

    known = getattr(bundle.manifest, "training", {}).get("labels_scheme")
    if scheme is None:
        fitting = [name for name, rule in SCHEMES.items() if rule.labels == tuple(bundle.labels)]
        scheme = known or (fitting[0] if fitting else "four")
    if scheme in ("four", "binary"):  # a two-label model is scored on four-class truth as it stands
        return corpus
    changed = relabel(corpus, scheme)
    return changed if changed.cycles else as_cycles(changed)


def predict(
    bundle: Bundle,
    corpus: Corpus,
    progress: Progress | None = None,
    *,
    metadata: MetadataMode = "given",
    seed: int = 0,
) -> Predictions:
    """Answers for every labelled item of a corpus; each recording is read once.

    Parameters
    ----------
    bundle, corpus, progress
        What answers, what is asked, and whom to tell.
    metadata
        What a model that reads metadata is told: what is ``given``, nothing (``unknown``), or that of another item
        drawn at random (``shuffled``): a model that loses nothing by it has not used what it was told.
    seed
        Of the shuffle.

    Raises
    ------
    CorpusError
        Nothing in it is labelled.
    AudioError
        A recording that cannot be read.
    BundleError
        Another mode than ``given`` for a model that reads no metadata.
    """
    if metadata != "given" and not bundle.manifest.metadata:
        raise BundleError(f"{bundle.manifest.name} reads no metadata; leave --metadata {metadata} out")
    if corpus.cycles:
        return _predict_cycles(bundle, corpus, progress, metadata, seed)
    return _predict_recordings(bundle, corpus, progress, metadata, seed)


def _told(rows: Sequence[Known], mode: MetadataMode, seed: int) -> list[Known]:
    if mode == "unknown":
        return [{} for _ in rows]
    if mode == "shuffled":
        return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows)).tolist()]
    return list(rows)


def _predict_cycles(
    bundle: Bundle, corpus: Corpus, progress: Progress | None, metadata: MetadataMode, seed: int
) -> Predictions:
    from edge_sdk.corpora.audio import batches, cycle_pcm

    known = [metadata_of(cycle) for cycle in corpus.cycles]
    rows = [{**row, "duration_s": c.duration_s} for row, c in zip(known, corpus.cycles, strict=True)]
    told = _told(rows, metadata, seed) if bundle.manifest.metadata else []
    answers: list[npt.NDArray[np.float64]] = []
    done = 0
    for cycles, windows in batches(cycle_pcm(corpus.cycles, bundle.front_end), BATCH):
        beside = told[done : done + len(cycles)]
        answers.append(bundle.classify(windows, beside) if beside else bundle.classify(windows))
        done += len(cycles)
        if progress is not None:
            progress("breaths", done, len(corpus.cycles))
    probabilities = np.concatenate(answers)
    return Predictions(
        "cycle",
        bundle.labels,
        tuple(
            {"recording": c.recording_id, "patient": c.patient, "start_s": c.start_s, "end_s": c.end_s}
            for c in corpus.cycles
        ),
        tuple(cycle.patient for cycle in corpus.cycles),
        tuple(cycle.label for cycle in corpus.cycles),
        tuple(known),
        probabilities,
        bundle.decide(probabilities),
        np.ones(len(corpus.cycles), dtype=np.bool_),
    )


def _predict_recordings(
    bundle: Bundle, corpus: Corpus, progress: Progress | None, metadata: MetadataMode, seed: int
) -> Predictions:
    from edge_sdk.corpora import OTHER

    labelled = [recording for recording in corpus.recordings if recording.abnormal is not None]
    if not labelled:
        raise CorpusError(f"{corpus.name} at {corpus.root} says of no recording whether it is normal; nothing to score")
    known = [metadata_of(recording) for recording in labelled]
    told = _told(known, metadata, seed)
    normal = bundle.labels.index(bundle.manifest.decoder.normal_label)
    undecided = np.full(len(bundle.labels), 0.5 / (len(bundle.labels) - 1))
    undecided[normal] = 0.5
    rows, counts = [], []
    for done, recording in enumerate(labelled):
        answers = list(_stream_recording(bundle, recording, told[done]))
        rows.append(np.mean(answers, axis=0) if answers else undecided)
        counts.append(len(answers))
        if progress is not None:
            progress("recordings", done + 1, len(labelled))
    probabilities = np.stack(rows)
    return Predictions(
        "recording",
        bundle.labels,
        tuple({"recording": r.id, "patient": r.patient, "cycles": n} for r, n in zip(labelled, counts, strict=True)),
        tuple(recording.patient for recording in labelled),
        tuple(recording.label or OTHER for recording in labelled),
        tuple(known),
        probabilities,
        bundle.decide(probabilities),
        np.array(counts) > 0,
        unlabelled=len(corpus.recordings) - len(labelled),
    )


def _stream_recording(bundle: Bundle, recording: Recording, known: Known) -> Iterator[npt.NDArray[np.float64]]:
    """Probabilities ``[C]`` of each breath that the stream found and labelled."""
    from edge_sdk.corpora.audio import read_recording
    from edge_sdk.events import CycleResult

    samples, rate = read_recording(recording.path)
    told = {name: value for name, value in known.items() if value is not None}
    stream = bundle.stream(rate, metadata=told if bundle.manifest.metadata else None)
    step = max(1, round(_BLOCK_S * rate))
    for begin in range(0, samples.size + step, step):
        last = begin >= samples.size
        for event in stream.finish() if last else stream.accept(samples[begin : begin + step]):
            if isinstance(event, CycleResult) and event.label is not None:
                yield np.array([event.probabilities[label] for label in bundle.labels])
        if last:
            return


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr where a person watches; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
