"""Fits a bundle to one stethoscope without training, from a few recordings made with it.

From recordings of healthy people: labels are shifted where more than a fifth of normal cycles would be called abnormal
(a stricter aim costs more sensitivity than it gains, see ``benchmarks.studies.adaptation``), and the score of verdicts
until normal recordings score as on the devices of the calibration. Both shifts are shrunk: the fewer recordings, the
less is believed. From any recordings the device becomes familiar.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from packaging.version import Version

from edge_sdk.errors import AudioError, BundleError
from edge_sdk.events import CycleResult
from edge_sdk.runtime.bundle.load import load_bundle, resolve_bundle, write_bundle
from edge_sdk.runtime.bundle.schema import MANIFEST, Adaptation, Manifest
from edge_sdk.runtime.bundle.signature import SIGNATURE
from edge_sdk.runtime.verdict.breath_sounds import BreathParams
from edge_sdk.runtime.verdict.familiarity import FamiliarityParams
from edge_sdk.runtime.verdict.params import VerdictParams, answer_of

_log = logging.getLogger(__name__)

LEAST_RECORDINGS = 3

_BLOCK_S = 0.5
_NORMAL_SHARE = 0.8  # of normal cycles that must be called normal
_TRUSTED_AFTER = 1.0  # recordings after which half of the shift of the labels is believed
_SMALLEST = 1e-6  # probability

Floats = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecordingEvidence:
    """What a bundle finds in one recording."""

    name: str
    usable_s: float
    network: float | None  # logit, without audio None
    margins: tuple[float, ...]  # log odds of abnormal of each labelled cycle
    features: Floats | None  # of its mean spectrum
    # Mean probability of abnormal by the classifier alone, where the labels join the network's frames: the verdict has
    # the network's logit already, and a shift of the labels is none of it.
    alone: float | None = None

    def cycles_abnormal(self, shift: float) -> float | None:
        """Mean probability of abnormal over the labelled cycles, with their log odds lowered by ``shift``."""
        if not self.margins or self.alone is not None:
            return self.alone
        return float(np.mean(1.0 / (1.0 + np.exp(shift - np.array(self.margins)))))


@dataclass(frozen=True)
class Fit:
    """An adaptation: what is subtracted from labels and added to scores, and the device's own spectrum."""

    label_shift: float = 0.0
    offset: float = 0.0
    centre: Floats | None = None


def adapt_bundle(
    bundle: str | Path,
    recordings: Sequence[Path],
    out: Path,
    *,
    normals: bool,
    device: str = "this device",
    progress: Progress | None = None,
) -> Adaptation:
    """Write a copy of a bundle that is fitted to the device of the recordings.

    Parameters
    ----------
    bundle
        Folder of a bundle, or ``"default"``; one that was adapted before is not adapted again.
    recordings
        At least three, of different people.
    out
        Bundle to write.
    normals
        Whether all of them are known to be normal. Otherwise only the familiarity is fitted: how many of them are
        normal is not known, so labels and scores stay.
    device
        Name of the stethoscope, for the record.
    progress
        Callback ``(what, done, total)``.

    Returns
    -------
    Adaptation
        As it stands in the new ``bundle.json``, with figures before and after.

    Raises
    ------
    BundleError
        The bundle cannot be used or was adapted already; nothing in it could be fitted; ``out`` cannot be written.
    AudioError
        Too few recordings, one that cannot be read, or none with usable audio.
    """
    folder = resolve_bundle(bundle)
    if len(recordings) < LEAST_RECORDINGS:
        raise AudioError(f"{len(recordings)} recordings are too few to adapt to; give {LEAST_RECORDINGS} or more")
    content = (folder / MANIFEST).read_bytes()
    loaded = load_bundle(folder)
    manifest = loaded.manifest
    _check_adaptable(folder, manifest, normals=normals)
    evidence = []
    for done, path in enumerate(recordings, 1):
        evidence.append(recording_evidence(loaded, path))
        if progress is not None:
            progress("recordings", done, len(recordings))
    usable = [row for row in evidence if row.features is not None or row.margins]
    if len(usable) < LEAST_RECORDINGS:
        raise AudioError(f"only {len(usable)} of {len(evidence)} recordings have usable audio; record them again")
    fit = fit_device(manifest, usable, normals=normals)
    left_out = [fit_device(manifest, [*usable[:k], *usable[k + 1 :]], normals=normals) for k in range(len(usable))]
    entry = Adaptation(
        device=device,
        created=dt.datetime.now(dt.timezone.utc).date().isoformat(),
        base_version=manifest.version,
        base_sha256=hashlib.sha256(content).hexdigest(),
        recordings=len(usable),
        normals=normals,
        label_shift=round(fit.label_shift, 4),
        offset=round(fit.offset, 4),
        before=_figures(manifest, usable, [Fit()] * len(usable)),
        after=_figures(manifest, usable, left_out),
    )
    _write(folder, out, adapted(manifest, fit, entry))
    return entry


def _check_adaptable(folder: Path, manifest: Manifest, *, normals: bool) -> None:
    if not isinstance(manifest.adaptation, msgspec.UnsetType):
        raise BundleError(f"{folder} is adapted to {manifest.adaptation.device} already; adapt the bundle it came from")
    if isinstance(manifest.verdict, msgspec.UnsetType) and not (normals and manifest.decoder.kind == "softmax"):
        raise BundleError(f"{folder} gives no verdicts, and labels can be adapted from --normals only; take another")


def recording_evidence(bundle: Any, path: Path, channel: int = 0) -> RecordingEvidence:
    """Stream one recording through a bundle.

    Raises
    ------
    AudioError
        It cannot be read.
    """
    from edge_sdk.sources.file import FileSource

    normal = bundle.classifier.normal_label
    margins = []
    with FileSource(path, channel=channel, block_s=_BLOCK_S) as source:
        stream = bundle.stream(source.sample_rate, offline=True)
        events = [event for block in source for event in stream.accept(block)]
        events += stream.finish()
        for note in (*source.notes, *stream.notes):
            _log.warning("%s: %s", path, note)
    for event in events:
        if isinstance(event, CycleResult) and event.label is not None:
            p = min(1.0 - _SMALLEST, max(_SMALLEST, event.probabilities[normal]))
            margins.append(math.log1p(-p) - math.log(p))
    evidence = stream.evidence
    if evidence is None or not evidence.usable_s:
        return RecordingEvidence(path.name, 0.0, None, tuple(margins), None)
    features = evidence.spectrum.features()
    alone = None if bundle.verdict.breaths is None else evidence.cycles_abnormal
    return RecordingEvidence(path.name, evidence.usable_s, evidence.network, tuple(margins), features, alone)


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit_device(manifest: Manifest, rows: Sequence[RecordingEvidence], *, normals: bool) -> Fit:
    """The adaptation of a bundle to recordings of one device."""
    spectra = [row.features for row in rows if row.features is not None]
    centre = None if not spectra or _params(manifest) is None else np.mean(spectra, axis=0)
    if not normals:
        return Fit(centre=centre)
    shift = label_shift(manifest, rows)
    params = _params(manifest)
    return Fit(shift, 0.0 if params is None else score_offset(params, rows, shift), centre)


def label_shift(manifest: Manifest, normals: Sequence[RecordingEvidence]) -> float:
    """What lowers the log odds of abnormal so far that four of five normal cycles are called normal.

    Never negative: normal recordings do not tell how much of an abnormal one would be missed. Recordings weigh the
    same. 0 for a decoder other than softmax.
    """
    rows = [row for row in normals if row.margins]
    if not (_breaths(manifest) or manifest.decoder.kind == "softmax") or not rows:
        return 0.0
    margins = np.concatenate([row.margins for row in rows])
    weight = np.concatenate([np.full(len(row.margins), 1.0 / len(row.margins)) for row in rows])
    order = np.argsort(margins)
    reached = np.cumsum(weight[order]) / weight.sum()
    edge = float(margins[order][min(int(np.searchsorted(reached, _NORMAL_SHARE)), len(margins) - 1)])
    return max(0.0, edge) * len(rows) / (len(rows) + _TRUSTED_AFTER)


def score_offset(params: VerdictParams, normals: Sequence[RecordingEvidence], shift: float) -> float:
    """What brings the mean score of normal recordings to that of the calibration, shrunk by their number."""
    scores = [params.score(row.network, row.cycles_abnormal(shift), row.usable_s, None) for row in normals]
    found = [score for score in scores if score is not None]
    if not found:
        return 0.0
    trusted = len(found) * params.device_spread**2
    trusted /= trusted + params.normal_spread**2
    return trusted * (params.normal_score - float(np.mean(found)))


def _breaths(manifest: Manifest) -> BreathParams | None:
    """The decision on breaths that are joined with the network's frames, if they are."""
    entry = manifest.verdict
    if isinstance(entry, msgspec.UnsetType) or isinstance(entry.breaths, msgspec.UnsetType):
        return None
    return BreathParams.from_dict(entry.breaths)


def _params(manifest: Manifest) -> VerdictParams | None:
    entry = manifest.verdict
    return None if isinstance(entry, msgspec.UnsetType) else VerdictParams.from_dict(entry.params)


# -- the new bundle ----------------------------------------------------------------------------------------------------


def adapted(manifest: Manifest, fit: Fit, entry: Adaptation) -> Manifest:
    """The manifest with the adaptation applied."""
    changes: dict[str, Any] = {
        "version": _adapted_version(manifest.version),
        "created": entry.created,
        "adaptation": entry,
    }
    breaths, verdict = _breaths(manifest), manifest.verdict
    bias = list(manifest.decoder.bias if breaths is None else breaths.bias) or [0.0] * len(manifest.labels)
    bias[manifest.labels.index(manifest.decoder.normal_label)] += round(fit.label_shift, 4)
    if fit.label_shift and breaths is None:
        changes["decoder"] = msgspec.structs.replace(manifest.decoder, bias=bias)
    if not isinstance(verdict, msgspec.UnsetType):
        if fit.label_shift and breaths is not None:
            moved = BreathParams.from_dict({**breaths.to_dict(), "bias": bias})
            verdict = msgspec.structs.replace(verdict, breaths=moved.to_dict())
        if fit.centre is not None:
            params, familiarity = _with_device(manifest, fit)
            verdict = msgspec.structs.replace(verdict, params=params.to_dict(), familiarity=familiarity.to_dict())
        changes["verdict"] = verdict
    return msgspec.structs.replace(manifest, **changes)


def _with_device(manifest: Manifest, fit: Fit) -> tuple[VerdictParams, FamiliarityParams]:
    """Calibration with one more centre, and its offset in every join."""
    assert not isinstance(manifest.verdict, msgspec.UnsetType) and fit.centre is not None
    params = VerdictParams.from_dict(manifest.verdict.params)
    familiarity = FamiliarityParams.from_dict(manifest.verdict.familiarity)
    known = len(familiarity.centres)
    if not known:  # every recording is familiar, and there is no place for an offset but the bias
        moved = {name: _with_bias(getattr(params, name), fit.offset) for name in ("both", "network", "cycles")}
        return _replaced(params, moved), familiarity
    centres = (*familiarity.centres, tuple(np.round(fit.centre, 4).tolist()))
    moved = {name: _with_offset(getattr(params, name), known, fit.offset) for name in ("both", "network", "cycles")}
    return _replaced(params, moved), msgspec.structs.replace(familiarity, centres=centres)


def _replaced(params: VerdictParams, joins: dict[str, tuple[float, ...]]) -> VerdictParams:
    return VerdictParams.from_dict({**params.to_dict(), **joins})


def _with_bias(join: tuple[float, ...], offset: float) -> tuple[float, ...]:
    return (round(join[0] + offset, 4), *join[1:])


def _with_offset(join: tuple[float, ...], known: int, offset: float) -> tuple[float, ...]:
    """The join with the offset of centre number ``known``; joins may have fewer offsets than there are centres."""
    weights, offsets = join[:4], list(join[4:])
    return (*weights, *offsets, *[0.0] * (known - len(offsets)), round(offset, 4))


def _adapted_version(version: str) -> str:
    """``1.2.0`` → ``1.2.0+adapted``, which is newer than 1.2.0 and older than every later version."""
    parsed = Version(version)
    return f"{parsed.public}+{parsed.local + '.' if parsed.local else ''}adapted"


def _write(folder: Path, out: Path, manifest: Manifest) -> None:
    """All files of the base, without its signature: the manifest is another."""
    if out.resolve() == folder.resolve():
        raise BundleError(f"{out} is the bundle that is adapted; give another --out")
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (MANIFEST, SIGNATURE)]
    write_bundle(out, manifest, {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept})


def _figures(manifest: Manifest, rows: Sequence[RecordingEvidence], fits: Sequence[Fit]) -> dict[str, Any]:
    """Share of cycles labelled abnormal, and number of recordings by verdict, each recording with its own fit."""
    shares, answers = [], Counter[str]()
    for row, fit in zip(rows, fits, strict=True):
        if row.margins:
            shares.append(float(np.mean(np.array(row.margins) > fit.label_shift)))
        if (answer := _answer(manifest, row, fit)) is not None:
            answers[answer] += 1
    figures: dict[str, Any] = {"abnormal_cycles": round(float(np.mean(shares)), 4) if shares else None}
    return figures | ({"verdicts": dict(sorted(answers.items()))} if answers else {})


def _answer(manifest: Manifest, row: RecordingEvidence, fit: Fit) -> str | None:
    """The verdict, or why there is none; None where the bundle gives none."""
    if isinstance(manifest.verdict, msgspec.UnsetType) or row.features is None:
        return None
    if fit.centre is None:
        params = VerdictParams.from_dict(manifest.verdict.params)
        familiarity = FamiliarityParams.from_dict(manifest.verdict.familiarity)
    else:
        params, familiarity = _with_device(manifest, fit)
    group, _ = familiarity.nearest(row.features)
    chance = params.probability(row.network, row.cycles_abnormal(fit.label_shift), row.usable_s, group)
    return None if chance is None else answer_of(params, familiarity, chance, row.usable_s, row.features)
