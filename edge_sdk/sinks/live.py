"""The live view: a scrolling spectrogram, the state of the segmenter, and the last cycles with their labels."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from edge_sdk.events import (
    Adventitious,
    AudioBlock,
    BreathCycle,
    CycleResult,
    DeviceChange,
    Event,
    Gap,
    Health,
    QualityEvent,
    StreamStats,
    Verdict,
)
from edge_sdk.notices import RESEARCH_USE
from edge_sdk.numbers import dbfs
from edge_sdk.signal.breathing_rate import PRESENT_CYCLES, RateMeter
from edge_sdk.sinks.console import rate_text, record_line, summary_lines
from edge_sdk.sinks.jsonl import device_record
from edge_sdk.sinks.strip import Picture, Strip
from edge_sdk.sinks.summary import Labels, SummaryBuilder
from edge_sdk.sinks.truth import Truth

_ABNORMAL_COLOURS = ("yellow", "magenta", "red", "bright_red", "cyan", "blue")
_NORMAL_COLOUR = "green"
_MIN_HEIGHT, _MAX_HEIGHT = 12, 40
_LINES_BELOW = 5  # the summary shall not push the picture off the screen
_MAX_CYCLES = 24
_MAX_SOUNDS = 64
_MARKS = {"crackle": "∴", "wheeze": "∿"}
_VERDICT_COLOURS = {"normal": "bold green", "abnormal": "bold red", "uncertain": "bold yellow"}
_FIXED_ROWS = 9  # borders, level, ribbon, state, two rules, headline, footer, spare line
_BAR_CELLS = 20
_TRUTH_COLUMN = 61


@dataclass(frozen=True, slots=True)
class _Row:
    """One classified cycle of the table."""

    result: CycleResult
    truth: str | None
    latency_ms: float | None


class LiveView:
    """Content of the screen, made from events alone; printing it shows the present state."""

    def __init__(self, labels: Labels, *, title: str, truth: Truth | None = None) -> None:
        self._labels = labels
        self._title = title
        self._truth = truth
        self._colours = _colours(labels)
        self._source = ""
        self._strip = Strip(4000)
        self._rows: deque[_Row] = deque(maxlen=_MAX_CYCLES)
        self._sounds: deque[Adventitious] = deque(maxlen=_MAX_SOUNDS)
        self._open: BreathCycle | None = None
        self._quality = "–"
        self._trouble: str | None = None
        self._level_db = -120.0
        self._latency_ms: float | None = None
        self._rate = RateMeter(keep=PRESENT_CYCLES)
        self.summary = SummaryBuilder(labels, truth=truth)

    def open(self, source: str, sample_rate: int) -> None:
        """Start an empty view."""
        self._source = f"{source} · {sample_rate / 1000:g} kHz"
        self._strip = Strip(sample_rate)
        self.summary.open(source, sample_rate)

    def audio(self, block: AudioBlock) -> None:
        """Add the columns of the block to the spectrogram."""
        self.summary.audio(block)
        if block.lost_before:
            self._strip.skip(block.lost_before)
        self._strip.accept(block.samples)
        if len(block.samples):
            rms = float(np.sqrt(np.mean(np.square(block.samples))))
            level_db = 20 * np.log10(max(rms, 1e-6))
            share = min(1.0, len(block.samples) / block.sample_rate / 0.5)
            self._level_db += share * (level_db - self._level_db) if self._level_db > -119 else level_db + 120

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Update the table, the ribbon and the figures."""
        self.summary.event(event)
        if isinstance(event, BreathCycle):
            self._open = None if event.final else event
        elif isinstance(event, CycleResult):
            truth = None if self._truth is None else self._truth.label_of(event.cycle) or "no breath"
            self._rows.appendleft(_Row(event, truth, latency_ms))
            self._rate.result(event)
            self._latency_ms = latency_ms
        elif isinstance(event, QualityEvent):
            self._quality = event.state
        elif isinstance(event, Adventitious):
            self._sounds.append(event)
        elif isinstance(event, Gap):
            self._open = None
            self._rate.restart()

    def health(self, change: Health) -> None:
        """Show trouble of the source until it is over; an engine that took over is a warning of the library."""
        if change.engine is not None:
            return
        trouble = change.state != "healthy" or change.overloaded
        kind = "overload" if change.overloaded else change.state
        self._trouble = f"{kind}: {change.detail}" if trouble else None

    # -- rendering ---------------------------------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Panel]:
        room = min(options.height or console.size.height, console.size.height, _MAX_HEIGHT) - _LINES_BELOW
        height = max(_MIN_HEIGHT, room)
        yield Panel(
            Group(*self._lines(options.max_width - 4, height)),
            title=Text.assemble((" stetho ", "bold"), (f"{self._title} ", "dim"), self._source, " "),
            title_align="left",
            subtitle=Text(f" {RESEARCH_USE} ", "dim"),
            subtitle_align="right",
            border_style="dim",
            height=height,
            padding=(0, 1),
        )

    def _lines(self, width: int, height: int) -> Iterator[RenderableType]:
        picture_rows = max(2, min(8, (height - _FIXED_ROWS) // 2))
        yield Picture(self._strip, width, picture_rows)
        yield _line(Text(self._strip.level(width), "cyan"))
        yield _line(self._ribbon(width))
        if self.summary.verdict is not None:
            yield _line(self._sound_line(width))
        yield _line(self._state_line())
        yield _line(self._figures_line())
        yield _line(Text("─" * width, "dim"))
        yield _line(self._legend())
        used = 8 if self.summary.verdict is None else 9
        for row in list(self._rows)[: max(1, height - picture_rows - used)]:
            yield _line(self._cycle_line(row))

    def _legend(self) -> Text:
        text = Text.assemble((f"{'breath':>13}       {'label':<13} ", "dim"))
        for name in self._labels.names:
            text.append(f"{name} ", self._colours[name])
        if self._truth is not None:
            text.pad_right(max(0, _TRUTH_COLUMN - len(text)))
            text.append(" truth", "dim")
        return text

    def _ribbon(self, width: int) -> Text:
        """Cycles under the columns of the picture: classified ones in their colour, the open one dotted."""
        first = self._strip.count - width
        cells: list[tuple[str, str]] = [(" ", "")] * width

        def paint(start_s: float, end_s: float, mark: str, text: str, style: str) -> None:
            begin = round(start_s / self._strip.column_s) - first
            stop = min(round(end_s / self._strip.column_s) - first, width)
            word = f" {text} " if text and stop - begin > len(text) + 3 else ""
            left = begin + 1 + (stop - begin - 1 - len(word)) // 2
            for k in range(max(begin + 1, 0), stop):
                inside = 0 <= k - left < len(word)
                cells[k] = (word[k - left] if inside else mark, style)

        for row in self._rows:
            label = row.result.label
            style = self._colours.get(label or "", "bright_black")
            cycle = row.result.cycle
            paint(cycle.start_s, cycle.end_s, "━", label or row.result.quality, style)
        if self._open is not None:
            paint(self._open.start_s, self._strip.count * self._strip.column_s, "╍", "", "white")
        return Text.assemble(*cells)

    def _sound_line(self, width: int) -> Text:
        """Crackles and wheezes under the columns of the picture."""
        first = self._strip.count - width
        cells: list[tuple[str, str]] = [(" ", "")] * width
        for sound in self._sounds:
            begin = int(sound.start_s / self._strip.column_s) - first
            stop = int(np.ceil(sound.end_s / self._strip.column_s)) - first
            for k in range(max(begin, 0), min(stop, width)):
                cells[k] = (_MARKS.get(sound.kind, "·"), self._colours.get(sound.kind, "red"))
        return Text.assemble(*cells)

    def _state_line(self) -> Text:
        if self._trouble is not None:
            return Text(f"✗ {self._trouble}", "bold red")
        if self._open is None:
            now = Text("○ waiting for a breath", "bright_black")
        elif self._open.phase_change is None:
            now = Text("● a breath", "bold cyan")
        else:
            now = Text("● a breath, going out", "bold blue")
        now.pad_right(max(0, 25 - len(now)))
        quality = "green" if self._quality == "ok" else "yellow"
        return Text.assemble(
            now,
            ("quality ", "dim"),
            (f"{self._quality:<12}", quality),
            ("level ", "dim"),
            f"{dbfs(self._level_db):>9}",
        )

    def _figures_line(self) -> Text:
        latency = "–" if self._latency_ms is None else f"{self._latency_ms:.0f} ms"
        lost = self.summary.lost_samples
        fields = (
            ("breaths ", f"{self.summary.cycles}", "bold"),
            ("rate ", f"{rate_text(self._rate.breaths_per_minute)} /min", "bold"),
            ("lost ", f"{lost}", "bold red" if lost else ""),
            ("latency ", latency, ""),
        )
        text = Text(f"{self.summary.duration_s:6.1f} s")
        for name, value, style in fields:
            text.append(f"  {name}", "dim").append(value, style)
        verdict: Verdict | None = self.summary.verdict
        if verdict is not None:
            chance = "" if verdict.p_abnormal is None else f" {verdict.p_abnormal:.2f}"
            text.append("  verdict ", "dim").append(verdict.verdict, _VERDICT_COLOURS[verdict.verdict])
            text.append(f" {verdict.reason}" if verdict.reason else chance)
        return text

    def _cycle_line(self, row: _Row) -> Text:
        result = row.result
        line = Text(f"{result.cycle.start_s:7.2f} – {result.cycle.end_s:6.2f} s  ")
        if result.label is None:
            line.append(f"– {result.quality}", "yellow")
        else:
            line.append(f"{result.label:<8}"[:12], f"bold {self._colours.get(result.label, '')}")
            line.append(f" {result.probabilities.get(result.label, 0.0):4.0%} ")
            for name, cells in _shares(result.probabilities, _BAR_CELLS):
                line.append("█" * cells, self._colours.get(name, ""))
        if row.truth is not None:
            line.pad_right(max(0, _TRUTH_COLUMN - len(line)))
            line.append(f" {row.truth:<9}", "dim")
            if result.label is not None:
                good = row.truth == result.label
                line.append("✓" if good else "✗", "green" if good else "red")
        return line


class LiveSink:
    """Shows a :class:`LiveView` in a terminal, redrawn at most ``refresh_hz`` times a second.

    The redraw happens in the caller's thread, when audio or events arrive: a view without input costs nothing.
    """

    def __init__(
        self, console: Console, labels: Labels, *, title: str = "", truth: Truth | None = None, refresh_hz: float = 8.0
    ) -> None:
        self._console = console
        self._view = LiveView(labels, title=title, truth=truth)
        self._live = Live(self._view, console=console, auto_refresh=False, transient=False)
        self._interval_s = 1.0 / refresh_hz
        self._next_s = 0.0

    def open(self, source: str, sample_rate: int) -> None:
        """Start drawing."""
        self._view.open(source, sample_rate)
        self._live.start(refresh=True)

    def audio(self, block: AudioBlock) -> None:
        """Add the block, and draw when a redraw is due."""
        self._view.audio(block)
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + self._interval_s
            self._live.refresh()

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Add the event; it is drawn with the next audio. A change of the device gets a line above the view."""
        self._view.event(event, latency_ms)
        if isinstance(event, DeviceChange):
            self._console.print(record_line(device_record("", event)), highlight=False, markup=False)

    def health(self, change: Health) -> None:
        """Show trouble of the source at once."""
        self._view.health(change)
        self._live.refresh()

    def close(self, stats: StreamStats) -> None:
        """Draw the last state, give the terminal back and print the summary."""
        self._live.refresh()
        self._live.stop()
        for line in summary_lines(self._view.summary.record(stats)):
            self._console.print(line, highlight=False, markup=False)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "crop"
    return text


def _colours(labels: Labels) -> dict[str, str]:
    abnormal = [name for name in labels.names if name != labels.normal]
    colours = {name: _ABNORMAL_COLOURS[k % len(_ABNORMAL_COLOURS)] for k, name in enumerate(abnormal)}
    return {labels.normal: _NORMAL_COLOUR, **colours}


def _shares(probabilities: Mapping[str, float], cells: int) -> list[tuple[str, int]]:
    """Share out ``cells`` whole cells in proportion (largest remainders)."""
    items = list(probabilities.items())
    exact = [p * cells for _, p in items]
    whole = [int(x) for x in exact]
    order = sorted(range(len(items)), key=lambda k: exact[k] - whole[k], reverse=True)
    for k in order[: max(0, cells - sum(whole))]:
        whole[k] += 1
    return [(name, n) for (name, _), n in zip(items, whole, strict=True)]
