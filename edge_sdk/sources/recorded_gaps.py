"""What a session lost while it was recorded: read from beside the flac, so that a replay has the same gaps."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge_sdk.events import AudioBlock

_log = logging.getLogger(__name__)

Losses = Sequence[tuple[int, int]]
"""First sample in the file and count, ascending; the file holds zeros there."""


def recorded_losses(recording: Path) -> Losses:
    """The losses that ``stetho listen --record`` noted beside a flac; empty for any other file."""
    events = recording.with_name(recording.name.removesuffix(".flac") + ".events.jsonl")
    if recording.suffix != ".flac" or not events.is_file():
        return []
    losses = []
    for line in events.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            if record.get("type") == "lost":
                losses.append((int(record["file_sample"]), int(record["samples"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            # The last line of a session that was killed may be cut short.
            _log.debug("%s: a line is not an event: %.80s", events, line)
    return sorted(losses)


def cut_out(blocks: Iterator[AudioBlock], losses: Losses) -> Iterator[AudioBlock]:
    """The same blocks without the lost ranges, which are counted in ``lost_before`` of what follows."""
    if not losses:
        yield from blocks
        return
    lost, end, ahead = 0, 0, 0  # ``ahead``: the first loss that does not lie behind yet
    for block in blocks:
        position, end = block.first_sample, block.first_sample + block.samples.size
        while ahead < len(losses) and losses[ahead][0] < end:
            first, after = losses[ahead][0], sum(losses[ahead])
            if first > position:
                yield _part(block, position, first, lost)
                position, lost = first, 0
            upto = min(end, after)
            lost += max(0, upto - position)
            position = max(position, upto)
            if after > end:
                break  # it goes on in the next block
            ahead += 1
        if position < end:
            yield _part(block, position, end, lost)
            lost = 0
    if lost:
        yield replace(block, samples=block.samples[:0], first_sample=end, lost_before=lost)


def _part(block: AudioBlock, begin: int, end: int, lost: int) -> AudioBlock:
    start = block.first_sample
    return replace(block, samples=block.samples[begin - start : end - start], first_sample=begin, lost_before=lost)
