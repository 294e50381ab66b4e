"""What ``stetho adapt`` is worth: devices in turn, with a few of their normal recordings, scored on all others.

For each device the adaptation is fitted to normal recordings drawn at random, of different patients, and every other
recording of the device is scored before and after it. One JSON object: for each device the share of normal and
abnormal recordings that are on the right side of one half, and over all devices together the AUROC of recordings, which
only a device's offset can change. The score is the bundle's verdict where it gives one, else the mean over the cycles.
The bundle should not have been trained on the devices.

``python -m benchmarks.studies.adaptation BUNDLE kauh=ROOT icbhi=ROOT``
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import typer

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.verdicts import recording_truth
from edge_sdk.metrics.ranking import auroc
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.bundle.schema import Manifest
from edge_sdk.runtime.verdict.params import VerdictParams
from edge_sdk.screening.adaptation import Fit, RecordingEvidence, fit_device, recording_evidence

_LEAST = 2  # normal and abnormal recordings that must be left to score

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One recording of one device."""

    device: str
    patient: str
    abnormal: bool
    evidence: RecordingEvidence


def evidence_of(bundle: Bundle, corpus: str, root: Path) -> list[Row]:
    """Every labelled recording of a corpus, run as a stream; those without any evidence are left out.

    Raises
    ------
    CorpusError
        Not a usable corpus.
    """
    loaded = load_corpus(corpus, root, partial=True)
    truth = recording_truth(loaded)
    rows = []
    for recording in loaded.recordings:
        if recording.id not in truth:
            continue
        evidence = recording_evidence(bundle, recording.path)
        if evidence.margins or evidence.network is not None:
            device = f"{corpus}/{recording.device or '?'}"
            rows.append(Row(device, f"{corpus}/{recording.patient}", truth[recording.id], evidence))
    return rows


def score(manifest: Manifest, row: RecordingEvidence, fit: Fit) -> float:
    """Log odds that the recording is abnormal, on the device of the fit."""
    share = row.cycles_abnormal(fit.label_shift)
    if isinstance(manifest.verdict, msgspec.UnsetType):
        return float(np.log(share) - np.log1p(-share)) if share is not None else 0.0
    params = VerdictParams.from_dict(manifest.verdict.params)
    found = params.score(row.network, share, row.usable_s, None)
    return 0.0 if found is None else found + fit.offset


def study(manifest: Manifest, rows: Sequence[Row], normals: int, draws: int, seed: int = 0) -> dict[str, Any]:
    """Figures before and after, means over the draws.

    Raises
    ------
    CorpusError
        No device has enough recordings.
    """
    by_device: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_device[row.device].append(row)
    devices = {name: group for name, group in sorted(by_device.items()) if _enough(group, normals)}
    if not devices:
        raise CorpusError(f"no device has {normals} normal patients and more recordings of both kinds to score")
    figures: dict[str, list[dict[str, float]]] = defaultdict(list)
    for draw in range(draws):
        random = np.random.default_rng([seed, draw])
        parts = {name: _one_draw(manifest, group, normals, random) for name, group in devices.items()}
        for name, (truth, before, after) in parts.items():
            figures[name].append(_shares(truth, before, after))
        truth, before, after = (np.concatenate(columns) for columns in zip(*parts.values(), strict=True))
        pooled = _shares(truth, before, after)
        pooled |= {"auroc_before": auroc(truth, before) or 0.0, "auroc_after": auroc(truth, after) or 0.0}
        figures["all devices"].append(pooled)
    return {
        "normals": normals,
        "draws": draws,
        "recordings": {name: len(group) for name, group in devices.items()},
        "figures": {name: _mean(found) for name, found in figures.items()},
    }


def _enough(group: Sequence[Row], normals: int) -> bool:
    healthy = {row.patient for row in group if not row.abnormal}
    return len(healthy) >= normals + _LEAST and sum(row.abnormal for row in group) >= _LEAST


def _one_draw(
    manifest: Manifest, group: Sequence[Row], normals: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
    """Truth and scores of the recordings whose patients the adaptation did not see."""
    healthy = sorted({row.patient for row in group if not row.abnormal})
    chosen = set(random.choice(healthy, size=normals, replace=False).tolist())
    given = [next(row.evidence for row in group if row.patient == p and not row.abnormal) for p in sorted(chosen)]
    fit = fit_device(manifest, given, normals=True)
    rest = [row for row in group if row.patient not in chosen]
    truth = np.array([row.abnormal for row in rest], dtype=np.bool_)
    before, after = (np.array([score(manifest, row.evidence, f) for row in rest]) for f in (Fit(), fit))
    return truth, before, after


def _shares(truth: npt.NDArray[np.bool_], before: Floats, after: Floats) -> dict[str, float]:
    return {
        "specificity_before": float((before[~truth] < 0).mean()),
        "specificity_after": float((after[~truth] < 0).mean()),
        "sensitivity_before": float((before[truth] >= 0).mean()),
        "sensitivity_after": float((after[truth] >= 0).mean()),
    }


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def main(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, or a name.", metavar="BUNDLE")],
    corpora: Annotated[list[str], typer.Argument(help="Corpora, NAME=ROOT.", metavar="NAME=ROOT...")],
    normals: Annotated[int, typer.Option("--normals", min=3, help="Normal recordings of each device.")] = 5,
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random choices of them.")] = 50,
) -> None:
    """Measure an adaptation device by device; JSON lines on stdout."""
    loaded = load_bundle(bundle)
    rows: list[Row] = []
    for entry in corpora:
        name, equals, root = entry.partition("=")
        if not equals:
            raise typer.BadParameter(f"{entry!r} is not NAME=ROOT")
        rows += evidence_of(loaded, name, Path(root))
    report = {"bundle": bundle, "version": loaded.manifest.version, **study(loaded.manifest, rows, normals, draws)}
    typer.echo(json.dumps(report, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
