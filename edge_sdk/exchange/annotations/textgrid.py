"""Praat TextGrids: a tier of cycles, one of each adventitious sound, one of gaps; read and written by praatio."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.texts import (
    Annotated,
    Written,
    lost_confidence,
    lost_quality,
    span_of,
    text_of,
    times,
)
from edge_sdk.exchange.examination import ExaminedRecording
from edge_sdk.exchange.spans import CycleSpan, SoundSpan, Span
from edge_sdk.extras import require_extra


def write(recordings: Sequence[ExaminedRecording]) -> Written:
    """Write the TextGrid of one recording; spans that overlap go to further tiers."""
    require_extra("textgrid", "TextGrid", "praatio")
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.data_classes.point_tier import PointTier
    from praatio.data_classes.textgrid import Textgrid

    (recording,) = recordings
    end_s = max([recording.duration_s, *(span.end_s for span in recording.spans), 1e-3])
    grid = Textgrid(0.0, end_s)
    groups: dict[str, list[Span]] = {"cycles": []}
    for span in recording.spans:
        name = "cycles" if isinstance(span, CycleSpan) else "gaps"
        groups.setdefault(span.kind if isinstance(span, SoundSpan) else name, []).append(span)
    for name, spans in groups.items():
        lasting = [span for span in spans if span.end_s > span.start_s]
        for number, layer in enumerate(_layers(lasting) or [[]], 1):
            entries = [(span.start_s, span.end_s, text_of(span)) for span in layer]
            grid.addTier(IntervalTier(name if number == 1 else f"{name} {number}", entries, 0.0, end_s))
        points = [(span.start_s, text_of(span)) for span in spans if span.end_s == span.start_s]
        if points:
            grid.addTier(PointTier(f"{name} (points)", points, 0.0, end_s))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.TextGrid"
        grid.save(str(path), "long_textgrid", includeBlankSpaces=True, reportingMode="silence")
        text = path.read_text(encoding="utf-8")
    return Written(text, lost_confidence(recordings) + lost_quality(recordings))


def _layers(spans: Iterable[Span]) -> list[list[Span]]:
    """Distribute spans in order of time over as few layers as needed for none to overlap another of its layer."""
    layers: list[list[Span]] = []
    for span in spans:
        for layer in layers:
            if layer[-1].end_s <= span.start_s:
                layer.append(span)
                break
        else:
            layers.append([span])
    return layers


def read(text: str) -> list[Annotated]:
    """Read a TextGrid, long or short; every tier counts, empty intervals do not.

    Raises
    ------
    ExchangeError
        It is no TextGrid.
    """
    require_extra("textgrid", "TextGrid", "praatio")
    from praatio import textgrid
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.utilities.errors import PraatioException

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.TextGrid"
        path.write_text(text, encoding="utf-8")
        try:
            grid = textgrid.openTextgrid(str(path), False, reportingMode="silence", duplicateNamesMode="rename")
        except (PraatioException, ValueError, IndexError, KeyError) as error:
            raise ExchangeError(f"no TextGrid of Praat ({' '.join(str(error).split())})") from None
    spans = []
    for tier in grid.tiers:
        for entry in tier.entries:
            start, end = (entry[0], entry[1]) if isinstance(tier, IntervalTier) else (entry[0], entry[0])
            spans.append(span_of(entry[-1], *times(str(start), str(end), f"tier {tier.name!r}")))
    return [Annotated(tuple(spans))]
