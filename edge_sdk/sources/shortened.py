"""A source that ends early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_sdk.events import AudioBlock
from edge_sdk.protocols import Reopenable, Replaceable, Source

_FOR_EVER_S = 1e12


class ShortenedSource:
    """Ends another source after ``duration_s`` seconds of its own time, exact to the sample.

    The time of all sessions of a source whose device is replaced counts together.
    """

    def __init__(self, source: Source, duration_s: float) -> None:
        self.live = bool(getattr(source, "live", False))
        if isinstance(source, Reopenable):
            self.reopen = source.reopen
        if isinstance(source, Replaceable):
            self.new_session = self._new_session
        self._source = source
        self._samples = round(min(duration_s, _FOR_EVER_S) * source.sample_rate)  # of the present session
        self._next = 0

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
    def device(self) -> Mapping[str, Any]:
        """What the device reports of itself; empty where it reports nothing."""
        found: Mapping[str, Any] = getattr(self._source, "device", {})
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the source."""
        return tuple(getattr(self._source, "notes", ()))

    def _new_session(self) -> None:
        left_s = max(0, self._samples - self._next) / self._source.sample_rate
        if isinstance(self._source, Replaceable):
            self._source.new_session()
        self._samples, self._next = round(left_s * self._source.sample_rate), 0

    def __iter__(self) -> Iterator[AudioBlock]:
        for block in self._source:
            left = self._samples - block.first_sample
            self._next = block.first_sample + len(block.samples)
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
