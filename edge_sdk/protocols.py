"""The seams of the runtime: what a source, a sink, an engine and a segmenter promise each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_sdk.events import AudioBlock, BreathCycle, Event, Health, StreamStats


@runtime_checkable
class Source(Protocol):
    """Delivers audio blocks in order.

    Samples that were lost are counted in ``AudioBlock.lost_before`` and never silently joined. Any block length is
    allowed. A source that dies raises :class:`~edge_sdk.errors.SourceLostError` from the iterator.

    Optional attributes: ``live`` (true: it cannot wait for a slow consumer) and ``metadata`` (what the device itself
    says of site and gain; may change).
    """

    @property
    def name(self) -> str:
        """What a person calls it: a path, ``phantom:asthma``, a device name."""

    @property
    def sample_rate(self) -> int:
        """Hz; fixed for the life of the source."""

    def __iter__(self) -> Iterator[AudioBlock]: ...

    def close(self) -> None:
        """Release the device or file; iterating ends. May be called twice and from another thread."""


@runtime_checkable
class Reopenable(Protocol):
    """A source that may come back after ``SourceLostError``.

    After a successful ``reopen`` it is iterated again; its count of samples goes on, and what was lost in between is in
    the first block's ``lost_before``.
    """

    def reopen(self) -> None:
        """Raises :class:`~edge_sdk.errors.SourceError` while the device is not back."""


@runtime_checkable
class HealthListener(Protocol):
    """A sink that also wants to know when the source stalls, is lost or returns; called in the sinks' thread."""

    def health(self, change: Health) -> None: ...


@runtime_checkable
class Sink(Protocol):
    """Takes events as they come; called from one thread only."""

    def open(self, source: str, sample_rate: int) -> None: ...

    def audio(self, block: AudioBlock) -> None:
        """A block has been accepted by the stream, before its events are passed on."""

    def event(self, event: Event, latency_ms: float | None) -> None:
        """``latency_ms``: capture of the last sample needed until now; None where no clock applies (files)."""

    def close(self, stats: StreamStats) -> None: ...


class Engine(Protocol):
    """Runs one artefact. Stateless: model state is an explicit input and output."""

    @property
    def name(self) -> str: ...

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]: ...


class Segmenter(Protocol):
    """Finds breaths in a stream at its own rate; a pure function of the samples it was given.

    All indices are at ``sample_rate`` counted from the first sample after construction or ``reset``.
    Blocks always hold exactly ``hop_samples`` samples, but for the last before ``finish``.
    """

    @property
    def sample_rate(self) -> int: ...

    @property
    def hop_samples(self) -> int: ...

    def accept(self, hop: npt.NDArray[np.float32]) -> Sequence[BreathCycle]: ...

    def finish(self, *, cut: bool = False) -> Sequence[BreathCycle]:
        """Emit the open cycle, if any, as final; ``cut``: a loss ended the sound, so that it may be of any length."""

    def reset(self) -> None: ...
