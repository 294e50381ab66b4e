"""A recording over time: cycles, waveform, spectrogram, adventitious sounds, quality and gaps, one below the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.report.drawing import Box, Drawing, Line, Picture, Polygon, Shape, Words
from edge_sdk.exchange.report.spectrogram import envelope, spectrogram
from edge_sdk.numbers import dbfs

LEFT, RIGHT = 52.0, 12.0
"""Pixels beside the time axis."""

NO_LABEL = "no label"

_CYCLES, _WAVE, _SPECTRUM, _SOUNDS, _AXIS = 18.0, 84.0, 150.0, 16.0, 36.0  # heights
_SPACE = 6.0
_TICK_STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_CHARACTER = 6.2  # width of one at 11 pixels


@dataclass(frozen=True, slots=True)
class Colours:
    """Role of each label and kind of sound."""

    of_label: Mapping[str, str]

    @classmethod
    def of(cls, labels: Iterable[str]) -> Colours:
        """Give each label a role: ``c0`` to the first one."""
        return cls({label: f"c{min(number, 5)}" for number, label in enumerate(labels)})

    def __call__(self, label: str | None) -> str:
        """Role of a label; one for no label."""
        return "soft" if label in (None, NO_LABEL) else self.of_label.get(str(label), "c5")


def timeline(
    recording: ExaminedRecording,
    samples: npt.NDArray[np.float32] | None,
    colours: Colours,
    *,
    width: float,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> Drawing:
    """Draw a recording, or the stretch of it from ``start_s`` to ``end_s``.

    Parameters
    ----------
    recording
        What was found.
    samples
        ``[n]`` of the whole recording; None: the audio is not at hand, without waveform and spectrogram.
    colours
        Of the labels.
    width
        Pixels.
    """
    end_s = recording.duration_s if end_s is None else end_s
    scale = (width - LEFT - RIGHT) / max(end_s - start_s, 1e-3)
    view = _View(start_s, end_s, scale, width)
    shapes: list[Shape] = []
    y = 2.0
    shapes += _cycle_row(view, recording, colours, y)
    bars = (y, y := y + _CYCLES + _SPACE)
    if samples is not None:
        first, last = (round(t * recording.sample_rate) for t in (start_s, end_s))
        audio = samples[first:last]
        if audio.size:
            shapes += _wave_row(view, audio, recording.sample_rate, y)
            y += _WAVE + _SPACE
            shapes += _spectrum_row(view, audio, recording.sample_rate, y)
            y += _SPECTRUM
    shapes += _boundaries(view, recording, bars[1], y)
    shapes += _sound_row(view, recording, colours, y + 4)
    y += _SOUNDS
    shapes += _quality_row(view, recording, y)
    y += 6
    shapes += _time_axis(view, y)
    caption = f"{len(recording.cycles)} cycles over {end_s - start_s:.1f} s: waveform and spectrogram"
    return Drawing(width, y + _AXIS, shapes, caption)


@dataclass(frozen=True, slots=True)
class _View:
    """The part of the time axis that is drawn."""

    start_s: float
    end_s: float
    scale: float  # pixels per second
    width: float

    def x(self, seconds: float) -> float:
        return LEFT + (min(max(seconds, self.start_s), self.end_s) - self.start_s) * self.scale

    def shows(self, start_s: float, end_s: float) -> bool:
        return end_s > self.start_s and start_s < self.end_s


def _cycle_row(view: _View, recording: ExaminedRecording, colours: Colours, y: float) -> Iterator[Shape]:
    yield _name("cycles", y + 13)
    for number, cycle in enumerate(recording.cycles, 1):
        if not view.shows(cycle.start_s, cycle.end_s):
            continue
        left, right = view.x(cycle.start_s), view.x(cycle.end_s)
        label = cycle.label or f"no label: {cycle.quality}"
        chance = "" if cycle.probability is None else f" {cycle.probability:.2f}"
        title = f"{number}: {cycle.start_s:.2f} – {cycle.end_s:.2f} s, {label}{chance}"
        yield Box(left + 0.5, y, max(right - left - 1, 1), _CYCLES, colours(cycle.label), 0.22, title)
        yield Box(left + 0.5, y + _CYCLES - 3, max(right - left - 1, 1), 3, colours(cycle.label), 1.0, title)
        room = int((right - left - 6) / _CHARACTER)
        shown = cycle.label or cycle.quality
        if room >= len(shown):
            yield Words((left + right) / 2, y + 12, shown, "ink", "middle")
        elif room >= 1:
            yield Words((left + right) / 2, y + 12, shown[:1], "ink", "middle")


def _wave_row(view: _View, audio: npt.NDArray[np.float32], rate: int, y: float) -> Iterator[Shape]:
    end = view.x(view.start_s + len(audio) / rate)
    columns = max(2, round(end - LEFT))
    low, high = envelope(audio, columns)
    peak = max(float(np.max(np.abs(audio))), 1e-6)
    # A click does not press the breaths flat: it is cut at the edge of the picture.
    full = min(peak, 1.25 * max(float(np.percentile(np.maximum(-low, high), 98)), 1e-6))
    middle, half = y + _WAVE / 2, _WAVE / 2 - 1
    x = np.linspace(LEFT, end, columns)
    heights = np.clip(np.stack([high, low]) / full, -1, 1) * half
    upper = [(float(a), middle - float(b)) for a, b in zip(x, heights[0], strict=True)]
    lower = [(float(a), middle - float(b) + 0.5) for a, b in zip(x, heights[1], strict=True)]
    yield Line([(LEFT, middle), (view.width - RIGHT, middle)], "rule")
    yield Polygon([*upper, *reversed(lower)], "accent")
    decibels = 20 * np.log10(peak)
    yield _name("peak", y + _WAVE / 2 - 3)
    yield _name(dbfs(float(decibels)), y + _WAVE / 2 + 10, "soft")


def _spectrum_row(view: _View, audio: npt.NDArray[np.float32], rate: int, y: float) -> Iterator[Shape]:
    end = view.x(view.start_s + len(audio) / rate)
    drawn = spectrogram(audio, rate, max(2, round(end - LEFT)), round(_SPECTRUM))
    yield Picture(LEFT, y, end - LEFT, _SPECTRUM, drawn.png)
    step = 500.0 if drawn.highest_hz > 1000 else 250.0
    for k in range(int(drawn.highest_hz // step) + 1):
        at = y + _SPECTRUM * (1 - k * step / drawn.highest_hz)
        yield Line([(LEFT - 4, at), (LEFT, at)], "soft")
        text = f"{k * step:.0f}" if k else "0 Hz"
        yield Words(LEFT - 7, min(max(at + 4, y + 9), y + _SPECTRUM), text, "soft", "end")


def _boundaries(view: _View, recording: ExaminedRecording, top: float, bottom: float) -> Iterator[Shape]:
    """A thin line at every onset, and a band over every gap."""
    if bottom <= top:
        return
    for cycle in recording.cycles:
        if view.start_s <= cycle.start_s < view.end_s:
            yield Box(view.x(cycle.start_s) - 0.4, top, 0.8, bottom - top, "rule", 0.7)
    for gap in recording.gaps:
        if view.shows(gap.start_s, gap.end_s):
            left = view.x(gap.start_s)
            title = f"gap: {gap.lost_samples} samples lost"
            yield Box(left, top, max(view.x(gap.end_s) - left, 2), bottom - top, "bad", 0.55, title)


def _sound_row(view: _View, recording: ExaminedRecording, colours: Colours, y: float) -> Iterator[Shape]:
    yield _name("sounds", y + 10)
    for sound in recording.sounds:
        if view.shows(sound.start_s, sound.end_s):
            left = view.x(sound.start_s)
            title = f"{sound.kind} {sound.start_s:.2f} – {sound.end_s:.2f} s"
            upper = sound.kind != "wheeze"  # both kinds may overlap
            width = max(view.x(sound.end_s) - left, 2)
            yield Box(left, y + (0 if upper else 6), width, 5, colours(sound.kind), 1.0, title)


def _quality_row(view: _View, recording: ExaminedRecording, y: float) -> Iterator[Shape]:
    """A mark under every stretch whose quality is not ok, with its name where there is room."""
    for span in recording.quality:
        if span.state != "ok" and view.shows(span.start_s, span.end_s):
            left, right = view.x(span.start_s), view.x(span.end_s)
            yield Box(left, y, max(right - left, 1), 4, "unsure", 1.0, f"{span.state} from {span.start_s:.1f} s")


def _time_axis(view: _View, y: float) -> Iterator[Shape]:
    span = view.end_s - view.start_s
    step = next((s for s in _TICK_STEPS if s * view.scale >= 46), _TICK_STEPS[-1])
    yield Line([(LEFT, y + 4), (view.x(view.end_s), y + 4)], "soft")
    first = int(np.ceil(view.start_s / step - 1e-9))
    for k in range(first, int((view.start_s + span) / step + 1e-9) + 1):
        x = view.x(k * step)
        yield Line([(x, y + 4), (x, y + 9)], "soft")
        yield Words(x, y + 21, clock(k * step, step), "soft", "middle")
    yield _name("seconds" if view.end_s < 120 else "min:s", y + 33, "soft")


def clock(seconds: float, step: float = 1.0) -> str:
    """Seconds as ``12``, ``12.5`` or, from two minutes on, ``2:00``."""
    if seconds >= 120:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    return f"{seconds:g}" if step >= 1 else f"{seconds:.1f}"


def _name(text: str, y: float, fill: str = "ink") -> Words:
    return Words(LEFT - 7, y, text, fill, "end", 10.0)


def legend_of(recordings: Sequence[ExaminedRecording], colours: Colours) -> list[tuple[str, str]]:
    """Label or kind of sound and its role, of those that occur, in the order of the labels."""
    found = {c.label for r in recordings for c in r.cycles if c.label} | {s.kind for r in recordings for s in r.sounds}
    ordered = [label for label in colours.of_label if label in found]
    return [(label, colours(label)) for label in [*ordered, *sorted(found - set(ordered))]]
