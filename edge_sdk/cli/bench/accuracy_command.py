"""``stetho bench accuracy``: scores beside size and speed, and the gate of a release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.bench.options import MarkdownOption, OutOption, QuickOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import Report
from edge_sdk.corpora.registry import corpus_names

if TYPE_CHECKING:
    from benchmarks.accuracy import AccuracyError
    from edge_sdk.corpora import Corpus

_COLUMNS = (
    "n", "score", "score_2class", "sensitivity", "specificity", "auroc", "ece", "bytes", "p50_ms", "p99_ms", "passed",
)  # fmt: skip


def accuracy_command(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, 'default', or a checkpoint.", metavar="BUNDLE")],
    corpus: Annotated[str, typer.Argument(help=f"{corpus_names()}.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder, or the generic CSV.", metavar="ROOT")],
    split: Annotated[str, typer.Option("--split", help="Split to score; 'all' always works.")] = "all",
    artefact: Annotated[
        list[str] | None, typer.Option("--artefact", help="Format; may be repeated; the default one where absent.")
    ] = None,
    floor: Annotated[
        list[str] | None,
        typer.Option("--floor", help="Fail below this value, for example auroc=0.93.", metavar="NAME=X"),
    ] = None,
    ceiling: Annotated[
        list[str] | None,
        typer.Option("--ceiling", help="Fail above this value, for example ece=0.05.", metavar="NAME=X"),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.")] = 1000,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure accuracy beside size and speed, with intervals, calibration, and figures per device and site.

    Exit status 1 when a floor or ceiling is missed: a gate for releases.
    """
    from benchmarks.accuracy import CEILINGS, FLOORS, parse_limits
    from edge_sdk.corpora import load_corpus

    limits = []
    for texts, allowed, what in ((floor, FLOORS, "floor"), (ceiling, CEILINGS, "ceiling")):
        try:
            limits.append(parse_limits(texts or [], allowed, what))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"--{what}") from error
    loaded = load_corpus(corpus, root, split=split, partial=partial)
    resamples = min(bootstrap, 100) if quick else bootstrap
    scoring = _Scoring(bundle, _few(loaded) if quick else loaded, split, limits[0], limits[1], resamples, quick)
    formats: list[str | None] = list(artefact) if artefact else [None]
    run_and_show(
        lambda report: scoring.rows(formats, report),
        f"Accuracy on {corpus}, split {split}",
        _COLUMNS,
        out,
        json_,
        markdown,
    )
    if scoring.problems:
        raise scoring.problems[0]


@dataclass
class _Scoring:
    """Scores the artefacts of one bundle and collects the limits that they miss."""

    bundle: str
    corpus: Corpus
    split: str
    floors: dict[str, float]
    ceilings: dict[str, float]
    resamples: int
    quick: bool
    problems: list[AccuracyError] = field(default_factory=list)

    def rows(self, formats: list[str | None], report: Report) -> Iterator[dict[str, Any]]:
        from benchmarks.core.machine import machine_row

        yield machine_row()
        for format_ in formats:
            yield self._row(format_, report)

    def _row(self, format_: str | None, report: Report) -> dict[str, Any]:
        from benchmarks.accuracy import AccuracyError, accuracy_row, missed_limits, watched
        from edge_sdk.evaluation.model import ModelUnderTest
        from edge_sdk.evaluation.predict import predict, relabelled
        from edge_sdk.runtime.bundle.load import load_bundle

        bundle, engine = watched(load_bundle(self.bundle, artefact=format_))
        model = ModelUnderTest.of_bundle(bundle)
        predictions = predict(model, relabelled(self.corpus, model, None), report)
        row = accuracy_row(
            bundle, engine, predictions, self.corpus.name, self.split, resamples=self.resamples, quick=self.quick
        )
        missed = missed_limits(row, self.floors, self.ceilings)
        row |= {"floors": self.floors, "ceilings": self.ceilings, "missed": missed, "passed": not missed}
        if missed:
            where = (
                f"{bundle.manifest.name} {bundle.manifest.version}, {bundle.artefact.format}, "
                f"{self.corpus.name} {self.split}"
            )
            self.problems.append(AccuracyError(f"{where}: {'; '.join(missed)}; do not release it, or change the limit"))
        return row


def _few(corpus: Corpus, cycles: int = 200) -> Corpus:
    """Take every k-th cycle or recording, so that all labels stay in."""
    from dataclasses import replace

    if corpus.cycles:
        return replace(corpus, cycles=corpus.cycles[:: max(1, len(corpus.cycles) // cycles)])
    return replace(corpus, recordings=corpus.recordings[:: max(1, len(corpus.recordings) // 10)])
