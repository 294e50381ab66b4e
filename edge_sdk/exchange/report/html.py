"""A report as one HTML page that opens offline: styles, pictures, audio and the player's script are inside it."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from edge_sdk.exchange.report.audio import LONGEST_S, PlayerAudio, player_audio
from edge_sdk.exchange.report.content import CYCLE_COLUMNS, OVERVIEW_COLUMNS, RecordingPart, ReportContent
from edge_sdk.exchange.report.drawing import PALETTE, svg_of
from edge_sdk.exchange.report.timeline import LEFT, RIGHT, timeline

_SHORTEST_STRIP, _LONGEST_STRIP = 1112.0, 12_000.0
_PIXELS_PER_S = 18.0
_OPEN_ROWS = 40  # a longer table of cycles is folded


@dataclass(frozen=True, slots=True)
class PagePart:
    """A recording as the template takes it."""

    part: RecordingPart
    strip: Markup
    audio: PlayerAudio | None
    scale: float  # pixels per second
    folded: bool


def report_html(content: ReportContent, *, audio: bool = True) -> str:
    """Write the page; ``audio``: with players, as far as all recordings together are no longer than 15 minutes."""
    total_s = sum(part.recording.duration_s for part in content.recordings)
    notes = list(content.notes)
    if audio and total_s > LONGEST_S:
        notes.append(f"no players: {total_s / 60:.0f} minutes of audio are too much for one page")
    parts = [_page_part(part, content, audio=audio and total_s <= LONGEST_S) for part in content.recordings]
    environment = Environment(
        loader=PackageLoader("edge_sdk.exchange.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        content=content,
        parts=parts,
        notes=notes,
        palette=PALETTE,
        chest=svg_of(content.chest, css_class="chest") if content.chest else None,
        cycle_columns=CYCLE_COLUMNS,
        overview_columns=OVERVIEW_COLUMNS,
        left=LEFT,
    )


def _page_part(part: RecordingPart, content: ReportContent, *, audio: bool) -> PagePart:
    recording = part.recording
    width = min(max(_SHORTEST_STRIP, _PIXELS_PER_S * recording.duration_s), _LONGEST_STRIP)
    drawing = timeline(recording, part.samples, content.colours, width=width)
    player = player_audio(part.samples, recording.sample_rate) if audio and part.samples is not None else None
    scale = (width - LEFT - RIGHT) / max(recording.duration_s, 1e-3)
    return PagePart(part, svg_of(drawing, css_class="strip"), player, scale, len(part.cycles) > _OPEN_ROWS)
