"""Verdicts of whole recordings scored on a corpus, with the figures of ``stetho evaluate --recordings --json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.model import ModelUnderTest, load_model, shown_name
from edge_sdk.evaluation.overlap import training_overlap
from edge_sdk.evaluation.verdicts import Reader, read_verdicts, verdict_reader
from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line
from edge_sdk.metrics.verdict import VerdictTrace, verdict_report

if TYPE_CHECKING:
    from edge_sdk.evaluation.predict import Progress
    from edge_sdk.runtime.bundle.load import Bundle


def evaluate_recordings(
    model: str | Path | Bundle | ModelUnderTest,
    corpus: str,
    root: str | Path,
    *,
    split: str = "all",
    partial: bool = False,
    artefact: str | None = None,
    predictions: Path | None = None,
    reader: Reader = verdict_reader,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the verdict of each recording as its stream runs: AUROC against seconds of audio, error, uncertainty.

    Parameters
    ----------
    model, corpus, root, split, partial, artefact, resamples, seed, progress
        As :func:`edge_sdk.evaluate`.
    predictions
        File for one JSON line per recording, with its running probability.
    reader
        How a verdict is read off the events of a stream; by default the model's own verdicts, or the mean over the
        labelled cycles where it gives none.

    Returns
    -------
    dict
        The JSON object of ``stetho evaluate --recordings --json``: ``n``, ``auroc``, ``auroc_ci``, ``sensitivity``,
        ``specificity``, ``uncertain_fraction``, ``coverage``, ``auroc_by_seconds``, ...

    Raises
    ------
    CorpusError
        Not a usable corpus, or no labelled recording.
    BundleError, CheckpointError
        Not a usable model.
    AudioError
        A recording that cannot be read.
    """
    if predictions is not None and not predictions.absolute().parent.is_dir():
        raise CorpusError(f"{predictions.parent} does not exist; make it, or name another file for --predictions")
    loaded = load_corpus(corpus, Path(root), split=split, partial=partial)
    tested = load_model(model, artefact)
    traces = read_verdicts(tested, loaded, progress, reader)
    report = {
        "model": shown_name(model),
        "name": tested.name,
        "version": tested.version,
        "artefact": tested.artefact,
        "corpus": loaded.name,
        "root": str(loaded.root),
        "split": split,
        "unit": "recording",
        "recordings": len(loaded.recordings),
    }
    if unlabelled := len(loaded.recordings) - len(traces):
        report["unlabelled"] = unlabelled
    if warnings := training_overlap(tested.training, loaded, split):
        report["warnings"] = warnings
    if predictions is not None:
        _write_lines(predictions, traces)
    return report | verdict_report(traces, resamples=resamples, seed=seed)


def _write_lines(path: Path, traces: Sequence[VerdictTrace]) -> None:
    """All of the file or nothing."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for trace in traces:
            line = {
                "recording": trace.recording,
                "patient": trace.patient,
                "device": trace.device,
                "duration_s": trace.duration_s,
                "truth": "abnormal" if trace.abnormal else "normal",
                "verdict": trace.verdict,
                "p_abnormal": trace.probability(),
                "running": [list(row) for row in zip(trace.times_s, trace.p_abnormal, strict=True)],
            }
            file.write(json_line(line))
