"""Restores the gaps of a recorded session from the file beside the flac, so that a replay has the same gaps."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from edge_sdk.events import AudioBlock

_log = logging.getLogger(__name__)

RecordedGaps = Sequence[tuple[int, int]]
"""First sample in the file and number of samples, ascending; the file holds zeros there."""


def read_recorded_gaps(recording: Path) -> RecordedGaps:
    """Read the gaps that ``stetho listen --record`` noted beside a flac; empty for any other file."""
    events = recording.with_name(recording.name.removesuffix(".flac") + ".events.jsonl")
    if recording.suffix != ".flac" or not events.is_file():
        return []
    gaps = []
    for line in events.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            if record.get("type") == "lost":
                gaps.append((_count(record["file_sample"]), _count(record["samples"])))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # The last line of a session that was killed may be truncated.
            _log.debug("%s: a line is not an event: %.80s", events, line)
    gaps.sort()
    if any(first + size > following for (first, size), (following, _) in pairwise(gaps)):
        _log.warning("%s: its gaps overlap, so that it cannot be of %s; its gaps are ignored", events, recording.name)
        return []
    return gaps


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number of samples")
    return value


def cut_out_gaps(blocks: Iterator[AudioBlock], gaps: RecordedGaps) -> Iterator[AudioBlock]:
    """Yield the same blocks without the gaps, which are counted in ``lost_before`` of the block that follows."""
    if not gaps:
        yield from blocks
        return
    lost, end, upcoming = 0, 0, 0  # ``upcoming``: index of the first gap that is not passed yet
    for block in blocks:
        position, end = block.first_sample, block.first_sample + block.samples.size
        while upcoming < len(gaps) and gaps[upcoming][0] < end:
            first, after = gaps[upcoming][0], sum(gaps[upcoming])
            if first > position:
                yield _part(block, position, first, lost)
                position, lost = first, 0
            upto = min(end, after)
            lost += max(0, upto - position)
            position = max(position, upto)
            if after > end:
                break  # the gap continues in the next block
            upcoming += 1
        if position < end:
            yield _part(block, position, end, lost)
            lost = 0
    if lost:
        yield replace(block, samples=block.samples[:0], first_sample=end, lost_before=lost)


def _part(block: AudioBlock, begin: int, end: int, lost: int) -> AudioBlock:
    start = block.first_sample
    return replace(block, samples=block.samples[begin - start : end - start], first_sample=begin, lost_before=lost)
