"""What was found in a recording as Observations: respiratory rate, verdict, cycles, adventitious sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.fhir.elements import (
    Json,
    body_site,
    concept,
    quantity,
    seconds_range,
    time_field,
    without_empty,
)
from edge_sdk.exchange.spans import CycleSpan

UNCERTAIN = {
    None: ("unknown", "the probability lies between both thresholds"),
    "too-little-audio": ("unknown", "too little usable audio"),
    "poor-quality": ("unknown", "the quality of the audio is too poor"),
    "unfamiliar": ("unsupported", "the audio is unlike that of the calibration"),
}
"""Reason of an uncertain verdict → code of the data-absent-reason, and its text."""

_PARTS = {"crackle": ("crackle",), "wheeze": ("wheeze",), "both": ("crackle", "wheeze")}


@dataclass(frozen=True, slots=True)
class Context:
    """What all Observations of a recording refer to."""

    subject: Json
    device: Json  # what computed the result
    status: str  # preliminary, or final after a person's review
    no_time: str  # code where the time is absent


def observations(recording: ExaminedRecording, context: Context) -> Iterator[tuple[str, Json]]:
    """Yield role and Observation; the role names it within the recording."""
    yield "rate", _rate(recording, context)
    if recording.verdict is not None:
        yield "verdict", _verdict(recording, context)
    if recording.cycles:
        yield "cycles", _cycles(recording, context)
    for kind in ("crackle", "wheeze"):
        if found := _finding(recording, kind, context):
            yield kind, found
    for name, unit, category in (("age", "year", "exam"), ("bmi", "bmi-unit", "vital-signs")):
        value = recording.metadata.get({"age": "age_years"}.get(name, name))
        if value is not None:
            yield name, _observation(recording, context, name, category, {"valueQuantity": quantity(value, unit)})


def _observation(
    recording: ExaminedRecording, context: Context, code: str, category: str, fields: Mapping[str, Any]
) -> Json:
    return {
        "resourceType": "Observation",
        "status": context.status,
        "category": [concept(category)],
        "code": concept(code) if " " not in code else concept(text=code),
        "subject": context.subject,
        **time_field("effectiveDateTime", recording.started, context.no_time),
        **without_empty(fields),
        "device": context.device,
    }


def _rate(recording: ExaminedRecording, context: Context) -> Json:
    rate = recording.respiratory_rate_bpm
    if rate is None:
        value: Json = {"dataAbsentReason": concept("unknown", text="no respiratory cycle was found")}
    else:
        value = {"valueQuantity": quantity(rate, "per-minute")}
    unsure = rate is not None and recording.respiratory_rate_confident is False
    notes = [{"text": "The segmenter is not confident of this rate; count again."}] if unsure else None
    fields = {**value, "note": notes, "method": concept("auscultation")}
    return _observation(recording, context, "respiratory-rate", "vital-signs", fields)


def _verdict(recording: ExaminedRecording, context: Context) -> Json:
    verdict, reason = recording.verdict, recording.verdict_reason
    if verdict in ("normal", "abnormal"):
        value: Json = {"valueCodeableConcept": concept(verdict, text=verdict)}
    else:
        code, text = UNCERTAIN[reason] if reason in UNCERTAIN else ("unknown", str(reason))
        value = {"dataAbsentReason": concept(code, text=f"uncertain: {text}")}
    parts = []
    if recording.p_abnormal is not None and reason is None:  # with a reason it is not calibrated for such audio
        name = {"code": concept(text="Calibrated probability that the recording is abnormal")}
        parts.append({**name, "valueQuantity": quantity(recording.p_abnormal, "one")})
    usable_s = recording.summary.get("usable_s")
    if usable_s is not None:
        parts.append({"code": concept(text="Usable audio"), "valueQuantity": quantity(usable_s, "second")})
    fields = {**value, "component": parts, **_where(recording)}
    return _observation(recording, context, "lung-findings", "exam", fields)


def _cycles(recording: ExaminedRecording, context: Context) -> Json:
    fields = {
        "valueInteger": len(recording.cycles),
        "component": [part for cycle in recording.cycles for part in _cycle_parts(cycle)],
        **_where(recording),
    }
    return _observation(recording, context, "Respiratory cycles of the recording", "exam", fields)


def _cycle_parts(cycle: CycleSpan) -> Iterator[Json]:
    """One component a finding of the cycle: its code, and when; two where it has crackles and wheezes."""
    span = {"valueRange": seconds_range(cycle.start_s, cycle.end_s)}
    if cycle.label is None:
        yield {"code": concept(text=f"cycle without a label: {cycle.quality}"), **span}
        return
    known = cycle.label in ("normal", "abnormal", *_PARTS)
    for name in _PARTS.get(cycle.label, (cycle.label,) if known else ()) or (None,):
        yield {"code": concept(*([name] if name else []), text=f"cycle: {cycle.label}"), **span}


def _finding(recording: ExaminedRecording, kind: str, context: Context) -> Json | None:
    """The finding of a kind, where cycles or sounds of it were found; when, as its components."""
    cycles = [cycle for cycle in recording.cycles if cycle.label is not None and kind in _PARTS.get(cycle.label, ())]
    sounds = [sound for sound in recording.sounds if sound.kind == kind]
    if not cycles and not sounds:
        return None
    parts: list[Json] = [
        {"code": concept(text="cycle"), "valueRange": seconds_range(cycle.start_s, cycle.end_s)} for cycle in cycles
    ]
    parts += [
        {"code": concept(text="adventitious sound"), "valueRange": seconds_range(sound.start_s, sound.end_s)}
        for sound in sounds
    ]
    text = f"in {len(cycles)} of {len(recording.cycles)} cycles; {len(sounds)} adventitious sounds"
    notes = [{"text": f"{kind}: {text}"}]
    if recording.verdict == "uncertain":
        notes.append({"text": "The verdict on the whole recording is uncertain: rely on no single label."})
    fields = {"valueCodeableConcept": concept(kind, text=kind), "note": notes, "component": parts, **_where(recording)}
    return _observation(recording, context, "lung-findings", "exam", fields)


def _where(recording: ExaminedRecording) -> Json:
    return without_empty({"bodySite": body_site(recording.site), "method": concept("auscultation")})
