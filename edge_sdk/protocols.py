"""Interfaces of the runtime: source, sink, engine and segmenter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_sdk.events import AudioBlock, BreathCycle, Event, Health, StreamStats


@runtime_checkable
class Source(Protocol):
    """Delivers audio blocks in order.

    Dropped samples are counted in ``AudioBlock.lost_before`` and never silently joined. Any block length is allowed. A
    source that fails raises :class:`~edge_sdk.errors.SourceLostError` from the iterator.

    Optional attributes: ``live`` (true: it cannot wait for a slow consumer), ``metadata`` (site and others as the
    device reports them; may change), ``device`` (``serial_number``, ``model``, ``site``, ``firmware``) and ``notes``
    (lines for people on what is wrong although audio is delivered; they may grow until the end).
    """

    @property
    def name(self) -> str:
        """Name for people: a path, ``phantom:asthma``, a device name."""

    @property
    def sample_rate(self) -> int:
        """Hz; never changes."""

    def __iter__(self) -> Iterator[AudioBlock]: ...

    def close(self) -> None:
        """Release the device or file; iteration ends. May be called twice and from another thread."""


@runtime_checkable
class Reopenable(Protocol):
    """A source that can be opened again after ``SourceLostError``.

    After a successful ``reopen`` it is iterated again; its sample count continues, and the first block's
    ``lost_before`` counts the samples dropped in between.
    """

    def reopen(self) -> None:
        """Open the device again.

        Raises
        ------
        SourceError
            The device is not back yet.
        """


@runtime_checkable
class Replaceable(Protocol):
    """A source whose device may be replaced by another one: it raises ``DeviceChangedError`` and stays open."""

    def new_session(self) -> None:
        """Begin a new time line for the new device: samples count from 0, ``name`` and ``sample_rate`` may differ."""


@runtime_checkable
class HealthSink(Protocol):
    """A sink that also receives the changes of the source's health; called in the sinks' thread."""

    def health(self, change: Health) -> None:
        """Take one change: the source stalled, was lost or is back."""


@runtime_checkable
class Sink(Protocol):
    """Receives events in order; called from one thread only."""

    def open(self, source: str, sample_rate: int) -> None:
        """Start; ``source`` is its name, ``sample_rate`` in Hz."""

    def audio(self, block: AudioBlock) -> None:
        """Take a block that the stream has accepted, before the events that it determines."""

    def event(self, event: Event, latency_ms: float | None) -> None:
        """Take an event; ``latency_ms``: time since the capture of its last sample, None without a clock (files)."""

    def close(self, stats: StreamStats) -> None:
        """End; ``stats`` are the final counters."""


class Engine(Protocol):
    """Runs one artefact. Stateless: model state is an explicit input and output."""

    @property
    def name(self) -> str:
        """Engine, version and device, for messages and benchmarks."""

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph: input name → array in, output name → array out. Thread-safe.

        Raises
        ------
        EngineError
            Names, shapes or types do not match the graph, or the engine failed.
        """


class Segmenter(Protocol):
    """Finds respiratory cycles in a stream at its own rate; a pure function of the samples.

    All indices are at ``sample_rate``, counted from the first sample after construction or ``reset``. Blocks of any
    size are accepted.
    """

    @property
    def sample_rate(self) -> int:
        """Hz, of the samples."""

    @property
    def hop_samples(self) -> int:
        """Samples of one step of computation."""

    def accept(self, hop: npt.NDArray[np.float32]) -> Sequence[BreathCycle]:
        """Take ``[n]`` samples; return the provisional and final cycles they determine, in order."""

    def finish(self, *, cut: bool = False) -> Sequence[BreathCycle]:
        """Return the open cycle, if any, as final; ``cut``: a gap ended the audio, so that it may have any length."""

    def reset(self) -> None:
        """Start over: the next sample and the next cycle have index 0."""
