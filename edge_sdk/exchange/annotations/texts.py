"""What all annotation formats share: spans as label texts, times as text, the recording that an annotation is of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_sdk.corpora.corpus_files import AUDIO_SUFFIXES, audio_header
from edge_sdk.corpora.loaders.sprsound import EVENT_LABELS
from edge_sdk.corpora.table import LABELS
from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import ExaminedRecording, find_audio
from edge_sdk.exchange.spans import CycleSpan, GapSpan, SoundSpan, Span
from edge_sdk.numbers import whole_number

_NO_LABEL = "no label"
_PLURALS = {"crackles": "crackle", "wheezes": "wheeze", "crackle+wheeze": "both", "wheeze+crackle": "both"}


@dataclass(frozen=True)
class Written:
    """The text of one annotation file, and what it does not hold."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotated:
    """Spans of one recording as read from an annotation file."""

    spans: tuple[Span, ...]
    recording: str | None = None  # path or name of the audio as the file states it; None: it does not
    record_label: str | None = None  # of the whole recording, where the format has one
    notes: tuple[str, ...] = field(default=())


def text_of(span: Span) -> str:
    """Label text of a span: ``crackle``, ``no label: noisy``, ``sound: wheeze``, ``gap: 320``."""
    if isinstance(span, CycleSpan):
        return " ".join((span.publisher_label or span.label or f"{_NO_LABEL}: {span.quality}").split())
    if isinstance(span, SoundSpan):
        return f"sound: {span.kind}"
    if isinstance(span, GapSpan):
        return "gap" if span.lost_samples is None else f"gap: {span.lost_samples}"
    return f"quality: {span.state}"


def span_of(text: str, start_s: float, end_s: float) -> Span:
    """Make the span of a label text, as :func:`text_of` writes it or as a person types it.

    An empty text is a cycle without a label; any text that is none of the above is the label of a cycle.
    """
    kind, _, detail = (part.strip() for part in text.partition(":"))
    folded = kind.casefold()
    if folded == "sound" and detail:
        return SoundSpan(start_s, end_s, _folded_label(detail))
    if folded == "gap" and (not detail or whole_number(detail) is not None):
        return GapSpan(start_s, end_s, whole_number(detail))
    if folded == _NO_LABEL or not text.strip():
        return CycleSpan(start_s, end_s, None, quality=detail or "ok")
    label = text.strip()
    if label in EVENT_LABELS:
        return CycleSpan(start_s, end_s, EVENT_LABELS[label], publisher_label=label)
    return CycleSpan(start_s, end_s, _folded_label(label))


def chance_of(span: Span) -> float | None:
    """Probability of a cycle's label, or confidence of a sound; None where unknown."""
    if isinstance(span, CycleSpan):
        return span.probability
    return span.confidence if isinstance(span, SoundSpan) else None


def with_chance(span: Span, chance: float | None) -> Span:
    """The same span with the probability of its label, or its confidence."""
    if chance is None:
        return span
    if isinstance(span, SoundSpan):
        return replace(span, confidence=chance)
    if isinstance(span, CycleSpan) and span.label is not None:
        return replace(span, probabilities={span.label: chance})
    return span


def number_in(text: str | None) -> float | None:
    """A number with a point or a comma; None for anything else."""
    try:
        return float((text or "").replace(",", "."))
    except ValueError:
        return None


def _folded_label(text: str) -> str:
    """One of the four classes in any spelling, else the text as it is."""
    folded = re.sub(r"\s*([+&/]|and)\s*", "+", " ".join(text.casefold().split()))
    folded = _PLURALS.get(folded, "+".join(_PLURALS.get(part, part) for part in folded.split("+")))
    folded = _PLURALS.get(folded, folded)
    return folded if folded in LABELS else text


def times(start: str, end: str, where: str) -> tuple[float, float]:
    """Read two times in seconds, with a point or a comma.

    Raises
    ------
    ExchangeError
        Not two numbers from 0 on, or the end is before the start.
    """
    try:
        start_s, end_s = (float(text.strip().replace(",", ".")) for text in (start, end))
    except ValueError:
        raise ExchangeError(f"{where} has no times in seconds: {start!r}, {end!r}") from None
    if not 0 <= start_s <= end_s < float("inf"):
        raise ExchangeError(f"{where} has no valid times: it starts at {start_s:g} s and ends at {end_s:g} s")
    return start_s, end_s


def lost_confidence(recordings: Iterable[ExaminedRecording]) -> tuple[str, ...]:
    """Note that probabilities are left out, where there are any."""
    any_of = any(cycle.probabilities for r in recordings for cycle in r.cycles) or any(
        sound.confidence is not None for r in recordings for sound in r.sounds
    )
    return ("probabilities are left out: the format has no field for them",) if any_of else ()


def lost_alternatives(recordings: Iterable[ExaminedRecording]) -> tuple[str, ...]:
    """Note that the probabilities of the other labels are left out, where there are any."""
    any_of = any(len(cycle.probabilities) > 1 for r in recordings for cycle in r.cycles)
    return ("of the probabilities only that of the label is kept",) if any_of else ()


def lost_quality(recordings: Iterable[ExaminedRecording]) -> tuple[str, ...]:
    """Note that stretches of quality are left out, where one is not ok."""
    any_of = any(stretch.state != "ok" for r in recordings for stretch in r.quality)
    return ("stretches of quality are left out; csv and jsonl hold them",) if any_of else ()


def recording_from(annotated: Annotated, path: Path, audio: Path | None) -> ExaminedRecording:
    """Make the recording of an annotation; its audio is looked for beside it, or in the folder ``audio``.

    Without audio its rate is 0 and it ends with its last span.
    """
    name = annotated.recording or re.sub(r"(?i)(_labels?|\.table\.1\.selections)?\.[^.]+$", "", path.name)
    names = [name, *(stem + suffix for stem in (Path(name).stem, name) for suffix in AUDIO_SUFFIXES)]
    candidates = (find_audio(other, (path.parent,), audio) for other in names if other != path.name)
    found = next((candidate for candidate in candidates if candidate is not None), None)
    rate, frames = 0, 0
    if found is not None:
        rate, frames, _ = audio_header(found)
    end_s = max((span.end_s for span in annotated.spans), default=0.0)
    spans: Sequence[Span] = sorted(annotated.spans, key=lambda span: (span.start_s, span.end_s))
    return ExaminedRecording(
        source=str(found) if found is not None else name,
        sample_rate=rate,
        duration_s=max(frames / rate, end_s) if rate else end_s,
        audio=found,
        cycles=tuple(span for span in spans if isinstance(span, CycleSpan)),
        sounds=tuple(span for span in spans if isinstance(span, SoundSpan)),
        gaps=tuple(span for span in spans if isinstance(span, GapSpan)),
        summary={} if annotated.record_label is None else {"record_annotation": annotated.record_label},
    )
