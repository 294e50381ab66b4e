"""Plain lines for people: the output of ``listen``, ``demo`` and ``screen`` where there is no live view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from edge_sdk.events import AudioBlock, Event, StreamStats
from edge_sdk.notices import RESEARCH_USE
from edge_sdk.numbers import dbfs
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.summary import Labels
from edge_sdk.sinks.truth import Truth


def record_line(record: Mapping[str, Any]) -> str:
    """Format an object other than a summary as one line.

    ``   1.20 –   3.45 s  wheeze   0.93  (normal 0.04, crackle 0.02, both 0.01)  truth: wheeze ✓  180 ms``
    """
    if record["type"] == "engine":
        return f"engine: {record['detail']}"
    when = f"{record['start_s']:7.2f}"
    if record["type"] == "gap":
        return f"{when} – {record['end_s']:6.2f} s  gap: {record['lost_samples']} samples lost"
    if record["type"] == "quality":
        level = record["level_dbfs"]  # None: digital silence
        return f"{when} s  quality: {record['quality']} ({'-∞ dBFS' if level is None else dbfs(level)})"
    if record["type"] == "adventitious":
        return f"{when} – {record['end_s']:6.2f} s  {record['kind']} sound {record['confidence']:.2f}"
    if record["type"] == "verdict":
        return f"{when} s  {verdict_text(record)}"
    if record["type"] == "device":
        ends = "the session goes on" if record["same_session"] else "the session ends here"
        return f"{when} s  another device: {record['reason']}; {ends}"
    label, probabilities = record["label"], record["probabilities"]
    parts = [f"{when} – {record['end_s']:6.2f} s"]
    if label is None:
        parts.append(f"{'–':<8} no label: {record['quality']}")
    else:
        others = ", ".join(f"{name} {p:.2f}" for name, p in probabilities.items() if name != label)
        parts.append(f"{label:<8} {probabilities.get(label, float('nan')):.2f}  ({others})")
    if "truth" in record:
        truth = record["truth"] or "no breath"
        parts.append(f"truth: {truth}{'' if label is None else ' ✓' if truth == label else ' ✗'}")
    if record["latency_ms"] is not None:
        parts.append(f"{record['latency_ms']:.0f} ms")
    return "  ".join(parts)


def record_lines(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Format JSON objects as lines for people."""
    for record in records:
        if record["type"] == "summary":
            yield from summary_lines(record)
        else:
            yield record_line(record)


def rate_text(bpm: float | None) -> str:
    """Format a respiratory rate in breaths per minute."""
    return "–" if bpm is None else f"{bpm:.1f}"


def verdict_text(record: Mapping[str, Any]) -> str:
    """Format the verdict of a summary or of a running verdict: name, and the reason or else the probability.

    With a reason the probability is not one to rely on: it was not calibrated on such audio.
    """
    if record["verdict_reason"] is not None:
        return f"verdict: {record['verdict']} ({record['verdict_reason']})"
    chance = "" if record["p_abnormal"] is None else f", p(abnormal) {record['p_abnormal']:.2f}"
    return f"verdict: {record['verdict']}{chance}"


def _coverage_text(summary: Mapping[str, Any]) -> str:
    fraction = summary.get("received_fraction")  # absent in results of older versions
    return "" if fraction is None or not summary["lost_samples"] else f" ({100 * fraction:.4g} % received)"


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Format the summary object as a few lines."""
    counts = ", ".join(f"{n} {name}" for name, n in summary["counts"].items() if n) or "none classified"
    unclassified = sum(summary["unclassified"].values())
    if unclassified:
        counts += f", {unclassified} without a label"
    abnormal = summary["abnormal_fraction"]
    lines = [
        f"{summary['source']}: {summary['duration_s']:.1f} s, {summary['cycles']} breaths ({counts})",
        f"respiratory rate {rate_text(summary['respiratory_rate_bpm'])} /min"
        f", abnormal {'–' if abnormal is None else f'{100 * abnormal:.0f} %'}"
        f", {summary['lost_samples']} samples lost{_coverage_text(summary)}",
    ]
    if summary.get("verdict") is not None:
        found = ", ".join(f"{n} {kind}" for kind, n in summary["adventitious"].items())
        lines.append(f"{verdict_text(summary)}; adventitious sounds: {found or 'none'}")
    truth = summary.get("truth")
    if truth is not None:
        true_counts = ", ".join(f"{n} {name}" for name, n in truth["counts"].items())
        lines.append(
            f"truth: {truth['cycles']} breaths ({true_counts}); {truth['found']} found; of {truth['answered']} labels"
            f" {truth['same_label']} correct, {truth['same_normal_or_abnormal']} correct on normal / abnormal"
        )
    return lines


class ConsoleSink:
    """Writes a line per cycle, adventitious sound, gap and change of quality, and the summary at the end."""

    def __init__(self, out: TextIO, labels: Labels, *, truth: Truth | None = None) -> None:
        self._out = out
        self._jsonl = JsonlSink(self._show, labels, truth=truth)

    def open(self, source: str, sample_rate: int) -> None:
        """Write the name of the source and the research-use notice."""
        self._jsonl.open(source, sample_rate)
        self._write(f"{source}, {sample_rate} Hz. {RESEARCH_USE}")

    def audio(self, block: AudioBlock) -> None:
        """Count the samples."""
        self._jsonl.audio(block)

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Write the line of the event."""
        self._jsonl.event(event, latency_ms)

    def close(self, stats: StreamStats) -> None:
        """Write the summary."""
        self._jsonl.close(stats)

    def _show(self, record: dict[str, Any]) -> None:
        for line in record_lines([record]):
            self._write(line)

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
