"""A source that ends early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_sdk.events import AudioBlock
from edge_sdk.protocols import Reopenable, Source


class ShortenedSource:
    """Ends another source after ``duration_s`` seconds of its own time, exact to the sample."""

    def __init__(self, source: Source, duration_s: float) -> None:
        self.live = bool(getattr(source, "live", False))
        if isinstance(source, Reopenable):
            self.reopen = source.reopen
        self._source = source
        self._samples = round(duration_s * source.sample_rate)

    @property
    def name(self) -> str:
        """Name of the source."""
        return self._source.name

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._source.sample_rate

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata that the device reports; empty where it has none."""
        found: Mapping[str, Any] = getattr(self._source, "metadata", {})
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the source."""
        return tuple(getattr(self._source, "notes", ()))

    def __iter__(self) -> Iterator[AudioBlock]:
        for block in self._source:
            left = self._samples - block.first_sample
            if left > 0:
                yield block if len(block.samples) <= left else _head(block, left)
            if len(block.samples) >= left:
                break
        self.close()

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _head(block: AudioBlock, n: int) -> AudioBlock:
    return AudioBlock(block.samples[:n], block.sample_rate, block.first_sample, block.host_ns, block.lost_before)
