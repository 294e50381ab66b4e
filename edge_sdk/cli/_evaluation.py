"""Runs a model over a corpus: annotated breaths as they are, whole recordings through the bundle's own stream."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import CheckpointError, CorpusError

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus, Recording
    from edge_sdk.runtime.bundle import Bundle

BATCH = 32  # windows per call of the engine
_BLOCK_S = 0.5

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Truth and answers, item by item; an item is a breath, or a recording where no breaths are annotated."""

    unit: str  # cycle, recording
    labels: tuple[str, ...]
    items: tuple[dict[str, Any], ...]  # what identifies each: recording, patient, start_s and end_s or cycles
    patients: tuple[str, ...]
    truth: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]  # [n, C]
    answered: npt.NDArray[np.bool_]  # [n] false where the quality gate left a recording without any label
    unlabelled: int = 0  # recordings left out because their publisher does not say what they are

    def lines(self) -> Iterator[dict[str, Any]]:
        """One JSON object an item."""
        for item, truth, row, answered in zip(self.items, self.truth, self.probabilities, self.answered, strict=True):
            yield {
                **item,
                "truth": truth,
                "prediction": self.labels[int(row.argmax())] if answered else None,
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }


def load_model(model: str, artefact: str | None) -> Bundle:
    """A bundle, or a checkpoint dressed as one."""
    path = Path(model)
    if model != "default" and (path.is_file() or path.suffix in (".pt", ".pth", ".ckpt")):
        from edge_sdk.cli._needs import need_torch

        need_torch()
        return checkpoint_bundle(path)
    from edge_sdk.runtime.bundle import load_bundle

    return load_bundle(model, artefact=artefact)


def checkpoint_bundle(path: Path) -> Bundle:
    """The network of a checkpoint in torch, with the default segmenter and quality gate around it.

    Raises
    ------
    CheckpointError
        Not a usable checkpoint.
    """
    import torch

    from edge_sdk.runtime import schema
    from edge_sdk.runtime.bundle import Bundle
    from edge_sdk.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    if checkpoint.decoder != "softmax":
        raise CheckpointError(f"{path}: evaluating a {checkpoint.decoder} head is not in this build; export it first")
    network = checkpoint.build_end_to_end()

    class TorchEngine:
        name = "torch"
        inputs = ("pcm",)
        outputs = ("logits",)

        def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
            with torch.inference_mode():
                return {"logits": network(torch.from_numpy(inputs["pcm"])).numpy()}

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
        decoder=schema.Decoder(temperature=checkpoint.temperature, bias=list(checkpoint.bias)),
        artefacts=[artefact],
        segmenter=schema.SegmenterEntry(),
        golden=schema.Golden(file="", sha256="", tolerance={}),
    )
    return Bundle(path, manifest, artefact, TorchEngine())


def predict(bundle: Bundle, corpus: Corpus, progress: Progress | None = None) -> Predictions:
    """Answers for every labelled item of a corpus; each recording is read once.

    Raises
    ------
    CorpusError
        Nothing in it is labelled.
    AudioError
        A recording that cannot be read.
    """
    return _predict_cycles(bundle, corpus, progress) if corpus.cycles else _predict_recordings(bundle, corpus, progress)


def _predict_cycles(bundle: Bundle, corpus: Corpus, progress: Progress | None) -> Predictions:
    from edge_sdk.corpora.audio import batches, cycle_pcm

    rows: list[npt.NDArray[np.float64]] = []
    done = 0
    for cycles, windows in batches(cycle_pcm(corpus.cycles, bundle.front_end), BATCH):
        rows.append(bundle.classify(windows))
        done += len(cycles)
        if progress is not None:
            progress("breaths", done, len(corpus.cycles))
    return Predictions(
        "cycle",
        bundle.labels,
        tuple(
            {"recording": c.recording_id, "patient": c.patient, "start_s": c.start_s, "end_s": c.end_s}
            for c in corpus.cycles
        ),
        tuple(cycle.patient for cycle in corpus.cycles),
        tuple(cycle.label for cycle in corpus.cycles),
        np.concatenate(rows),
        np.ones(len(corpus.cycles), dtype=np.bool_),
    )


def _predict_recordings(bundle: Bundle, corpus: Corpus, progress: Progress | None) -> Predictions:
    from edge_sdk.corpora import OTHER

    labelled = [recording for recording in corpus.recordings if recording.abnormal is not None]
    if not labelled:
        raise CorpusError(f"{corpus.name} at {corpus.root} says of no recording whether it is normal; nothing to score")
    normal = bundle.labels.index(bundle.manifest.decoder.normal_label)
    undecided = np.full(len(bundle.labels), 0.5 / (len(bundle.labels) - 1))
    undecided[normal] = 0.5
    rows, counts = [], []
    for done, recording in enumerate(labelled, 1):
        answers = list(_stream_recording(bundle, recording))
        rows.append(np.mean(answers, axis=0) if answers else undecided)
        counts.append(len(answers))
        if progress is not None:
            progress("recordings", done, len(labelled))
    return Predictions(
        "recording",
        bundle.labels,
        tuple({"recording": r.id, "patient": r.patient, "cycles": n} for r, n in zip(labelled, counts, strict=True)),
        tuple(recording.patient for recording in labelled),
        tuple(recording.label or OTHER for recording in labelled),
        np.stack(rows),
        np.array(counts) > 0,
        unlabelled=len(corpus.recordings) - len(labelled),
    )


def _stream_recording(bundle: Bundle, recording: Recording) -> Iterator[npt.NDArray[np.float64]]:
    """Probabilities ``[C]`` of each breath that the stream found and labelled."""
    from edge_sdk.corpora.audio import read_recording
    from edge_sdk.events import CycleResult

    samples, rate = read_recording(recording.path)
    stream = bundle.stream(rate, metadata=_metadata(recording) if bundle.manifest.metadata else None)
    step = max(1, round(_BLOCK_S * rate))
    for begin in range(0, samples.size + step, step):
        last = begin >= samples.size
        for event in stream.finish() if last else stream.accept(samples[begin : begin + step]):
            if isinstance(event, CycleResult) and event.label is not None:
                yield np.array([event.probabilities[label] for label in bundle.labels])
        if last:
            return


def _metadata(recording: Recording) -> dict[str, str | float]:
    given = {name: getattr(recording, name) for name in ("site", "device", "age_years", "sex", "bmi")}
    return {name: value for name, value in given.items() if value is not None}


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
