"""What a report states, in words: made once, shown by the page and by the PDF alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk._version import __version__
from edge_sdk.digests import sha256_file
from edge_sdk.exchange.examination import BundleIdentity, Examination, ExaminedRecording
from edge_sdk.exchange.report.card import Rows, card_rows
from edge_sdk.exchange.report.chest_map import MappedSite, chest_map, place_of
from edge_sdk.exchange.report.drawing import Drawing
from edge_sdk.exchange.report.timeline import NO_LABEL, Colours, legend_of
from edge_sdk.notices import RESEARCH_USE
from edge_sdk.numbers import dbfs

REASONS = {
    "too-little-audio": "less usable audio than a verdict needs",
    "poor-quality": "the quality of the audio forbids a verdict",
    "unfamiliar": "the audio is unlike that which the verdict was calibrated on",
}
_TONES = {"normal": "good", "abnormal": "bad", "uncertain": "unsure"}
_METADATA = {
    "site": "Site",
    "device": "Stethoscope",
    "age_years": "Age",
    "sex": "Sex",
    "bmi": "Body mass index",
}
_LABELS = ("normal", "crackle", "wheeze", "both")  # order of the colours where the classifier has these


@dataclass(frozen=True, slots=True)
class Finding:
    """A result in large letters, with what it rests on."""

    name: str
    value: str
    detail: str
    tone: str = "ink"  # role of its colour


@dataclass(frozen=True)
class RecordingPart:
    """One recording of the report."""

    number: int
    title: str
    findings: Sequence[Finding]
    facts: Rows  # name, value
    quality: Sequence[tuple[str, str, str]]  # state or gap, from – to, what it means
    cycles: Sequence[tuple[str, ...]]  # cells of the rows of the table
    starts_ends_s: Sequence[tuple[float, float]]  # of the same rows
    legend: Sequence[tuple[str, str]]  # label, role
    recording: ExaminedRecording
    samples: npt.NDArray[np.float32] | None = field(repr=False)


@dataclass(frozen=True)
class ReportContent:
    """Everything in a report."""

    title: str
    lead: str  # one line below the title
    notice: str
    overview: Sequence[tuple[str, ...]]  # a row a recording; empty for a single one
    recordings: Sequence[RecordingPart]
    chest: Drawing | None
    off_map: Sequence[str]  # sites that are not on it
    provenance: Rows
    card: Rows
    card_note: str
    notes: Sequence[str]
    colours: Colours


CYCLE_COLUMNS = ("no.", "from s", "to s", "length s", "label", "probability", "quality")
OVERVIEW_COLUMNS = (
    "no.",
    "recording",
    "verdict",
    "p(abnormal)",
    "rate /min",
    "cycles",
    "abnormal",
    "usable s",
    "lost",
)


def report_content(
    examination: Examination,
    *,
    manifest: Mapping[str, Any] | None = None,
    reference: str | None = None,
    made: datetime,
) -> ReportContent:
    """Put an examination into words.

    Parameters
    ----------
    examination
        Recordings with what was found.
    manifest
        ``bundle.json`` of the bundle that classified them, for the figures of its card; None: not at hand.
    reference
        Of the examination; no name of a patient is taken from anywhere.
    made
        Time of the report.

    Raises
    ------
    AudioError
        Audio that is there cannot be read.
    """
    recordings = examination.recordings
    labels = list((recordings[0].summary.get("counts") or {}) if recordings else ())
    colours = Colours.of(labels or _LABELS)
    parts = [_part(number, recording, colours) for number, recording in enumerate(recordings, 1)]
    sites = [
        MappedSite(
            part.number,
            r.site,
            _TONES.get(r.verdict or "", "soft"),
            f"{part.number}: {r.site}, {r.verdict or 'no verdict'}",
        )
        for part, r in zip(parts, recordings, strict=True)
        if r.site
    ]
    card = card_rows(manifest) if manifest is not None else []
    return ReportContent(
        title="Auscultation of the lungs",
        lead=_lead(recordings, reference, made),
        notice=RESEARCH_USE,
        overview=[_overview(part) for part in parts] if len(parts) > 1 else [],
        recordings=parts,
        chest=chest_map(sites),
        off_map=[f"{site.number} {site.site}" for site in sites if place_of(site.site) is None],
        provenance=_provenance(examination, made),
        card=card,
        card_note=_card_note(manifest, card),
        notes=[*examination.notes, *_notes(recordings)],
        colours=colours,
    )


def _lead(recordings: Sequence[ExaminedRecording], reference: str | None, made: datetime) -> str:
    dates = sorted({r.started.date().isoformat() for r in recordings if r.started is not None})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "date of the recording not known"
    count = f"{len(recordings)} recordings" if len(recordings) > 1 else "1 recording"
    seconds = sum(r.duration_s for r in recordings)
    parts = [reference, when, f"{count}, {seconds:.1f} s", f"report of {made:%Y-%m-%d %H:%M}"]
    return " · ".join(part for part in parts if part)


def _part(number: int, recording: ExaminedRecording, colours: Colours) -> RecordingPart:
    samples = None if recording.audio is None else np.asarray(recording.samples(), np.float32)
    return RecordingPart(
        number=number,
        title=recording.site.capitalize() if recording.site else recording.name,
        findings=[_verdict(recording), _rate(recording), _counts(recording), _usable(recording)],
        facts=_facts(recording),
        quality=_quality(recording),
        cycles=[
            (
                str(k),
                f"{cycle.start_s:.2f}",
                f"{cycle.end_s:.2f}",
                f"{cycle.end_s - cycle.start_s:.2f}",
                cycle.label or NO_LABEL,
                "–" if cycle.probability is None else f"{cycle.probability:.2f}",
                cycle.quality,
            )
            for k, cycle in enumerate(recording.cycles, 1)
        ],
        starts_ends_s=[(cycle.start_s, cycle.end_s) for cycle in recording.cycles],
        legend=legend_of([recording], colours),
        recording=recording,
        samples=samples,
    )


def _verdict(recording: ExaminedRecording) -> Finding:
    verdict, reason, chance = recording.verdict, recording.verdict_reason, recording.p_abnormal
    if verdict is None:
        return Finding("Verdict", "none", "the bundle gives no verdict")
    if reason is not None:  # the probability was not calibrated on such audio
        detail = REASONS.get(reason, reason)
    elif chance is None:
        detail = "no probability"
    else:
        detail = f"probability of abnormal {chance:.2f}"
        detail += ", between both thresholds" if verdict == "uncertain" else ""
    return Finding("Verdict", verdict, detail, _TONES.get(verdict, "ink"))


def _rate(recording: ExaminedRecording) -> Finding:
    rate, confident = recording.respiratory_rate_bpm, recording.respiratory_rate_confident
    if rate is None:
        return Finding("Respiratory rate", "–", "no cycle was found")
    if confident:
        return Finding("Respiratory rate", f"{rate:.1f} /min", "even intervals, cycles found with confidence")
    return Finding(
        "Respiratory rate",
        f"{rate:.1f} /min",
        "not to be relied on: few or uneven intervals, or unsure cycles",
        "unsure",
    )


def _counts(recording: ExaminedRecording) -> Finding:
    counts = {label: n for label, n in (recording.summary.get("counts") or {}).items() if n}
    unlabelled = sum((recording.summary.get("unclassified") or {}).values())
    words = [f"{n} {label}" for label, n in counts.items()] + ([f"{unlabelled} without a label"] if unlabelled else [])
    sounds = recording.summary.get("adventitious") or {}
    found = "; adventitious sounds: " + (", ".join(f"{n} {kind}" for kind, n in sounds.items()) or "none")
    detail = (", ".join(words) or "none") + (found if recording.summary.get("adventitious") is not None else "")
    return Finding("Cycles", str(len(recording.cycles)), detail)


def _usable(recording: ExaminedRecording) -> Finding:
    bad = {s: t for s, t in (recording.summary.get("quality_s") or {}).items() if s != "ok" and t > 0}
    lost = recording.summary.get("lost_samples") or 0
    usable = recording.summary.get("usable_s")
    value = f"{recording.duration_s:.1f} s" if usable is None else f"{usable:.1f} of {recording.duration_s:.1f} s"
    detail = ", ".join(f"{state} {seconds:.1f} s" for state, seconds in bad.items()) or "quality ok throughout"
    detail += f"; {lost} samples lost" if lost else "; no samples lost"
    return Finding("Usable audio", value, detail, "unsure" if bad or lost else "ink")


def _facts(recording: ExaminedRecording) -> Rows:
    rows = [("Recording", recording.name)]
    for name, title in _METADATA.items():
        value = recording.metadata.get(name)
        if value not in (None, ""):
            unit = {"age_years": " years", "bmi": " kg/m²"}.get(name, "")
            rows.append((title, f"{value:g}{unit}" if isinstance(value, int | float) else f"{value}{unit}"))
    if recording.device:
        rows.append(("Device", ", ".join(f"{k} {v}" for k, v in recording.device.items() if v not in (None, ""))))
    rows.append(("Audio", f"{recording.sample_rate} Hz, {recording.duration_s:.2f} s"))
    if recording.started is not None:
        rows.append(("Started", f"{recording.started:%Y-%m-%d %H:%M:%S %Z}".strip()))
    if recording.audio is not None:
        rows.append(("SHA-256 of the audio file", sha256_file(recording.audio)))
    return rows


def _quality(recording: ExaminedRecording) -> list[tuple[str, str, str]]:
    rows = [
        (span.start_s, span.state, f"{span.start_s:.1f} – {span.end_s:.1f}", _level(span.level_dbfs))
        for span in recording.quality
        if span.state != "ok"
    ]
    rows += [
        (gap.start_s, "gap", f"{gap.start_s:.2f} – {gap.end_s:.2f}", f"{gap.lost_samples or '?'} samples lost")
        for gap in recording.gaps
    ]
    return [(state, span, meaning) for _, state, span, meaning in sorted(rows)]


def _level(level_dbfs: float | None) -> str:
    return "digital silence" if level_dbfs is None else f"{dbfs(level_dbfs)} at its begin"


def _overview(part: RecordingPart) -> tuple[str, ...]:
    r = part.recording
    shown = r.p_abnormal is not None and r.verdict_reason is None
    rate = "–" if r.respiratory_rate_bpm is None else f"{r.respiratory_rate_bpm:.1f}"
    share, usable = r.summary.get("abnormal_fraction"), r.summary.get("usable_s")
    return (
        str(part.number),
        part.title,
        (r.verdict or "none") + (f" ({r.verdict_reason})" if r.verdict_reason else ""),
        f"{r.p_abnormal:.2f}" if shown else "–",
        rate if r.respiratory_rate_confident else f"{rate} (unsure)",
        str(len(r.cycles)),
        "–" if share is None else f"{share:.0%}",
        "–" if usable is None else f"{usable:.1f}",
        str(r.summary.get("lost_samples") or 0),
    )


def _provenance(examination: Examination, made: datetime) -> Rows:
    rows: Rows = []
    for bundle in examination.bundles:
        rows += _bundle_rows(bundle)
    if not examination.bundles:
        rows.append(("Bundle", "not recorded with the results"))
    versions = sorted({r.sdk_version for r in examination.recordings if r.sdk_version})
    rows.append(("SDK of the results", ", ".join(versions) or "not recorded"))
    rows.append(("SDK of this report", __version__))
    rows.append(("Report made", f"{made:%Y-%m-%d %H:%M:%S %Z}".strip()))
    return rows


def _bundle_rows(bundle: BundleIdentity) -> Rows:
    rows = [("Bundle", f"{bundle.name} {bundle.version}" + (f", {bundle.artefact}" if bundle.artefact else ""))]
    rows.append(("SHA-256 of bundle.json", bundle.sha256 or "not recorded"))
    if bundle.artefact_sha256:
        rows.append(("SHA-256 of the classifier", bundle.artefact_sha256))
    return rows


def _card_note(manifest: Mapping[str, Any] | None, card: Rows) -> str:
    if manifest is None:
        return "The bundle is not at hand, so its figures are not shown; name it with --bundle."
    if not card:
        return "The bundle holds no figures of patients that it was not trained on."
    return "Measured on patients that no network was trained on; they hold for those populations and stethoscopes."


def _notes(recordings: Sequence[ExaminedRecording]) -> list[str]:
    return [
        f"{r.name}: the audio is not at hand: no waveform, no spectrogram, no player"
        for r in recordings
        if r.audio is None
    ]
