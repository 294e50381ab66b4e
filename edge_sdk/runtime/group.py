"""Streams of one thread that advance together: one run of each network for all whose tick is complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import StreamError
from edge_sdk.events import AudioBlock, Event
from edge_sdk.runtime.engines.stepping import StepsTogether

if TYPE_CHECKING:
    from edge_sdk.runtime.engines.stepping import Stepping
    from edge_sdk.runtime.stream import Samples, Stream

Block: TypeAlias = AudioBlock | npt.NDArray[np.floating[Any]]


class StreamGroup:
    """Takes blocks of many streams at once, which costs less than one by one; the events are the same.

    A stream needs no membership: any one that is given takes part, whatever its rate, its metadata or its bundle, and
    goes on alone or in another group at any time. Streams share the run of a network where it is the same one, up to
    :data:`~edge_sdk.runtime.engines.steps.MOST_STREAMS` at a time. No stream waits for audio of another: a call
    computes what is complete in the blocks given to it. Not thread-safe: a group belongs to one thread, and its
    streams to this thread while the call lasts.
    """

    def __init__(self) -> None:
        self._together = StepsTogether()

    def accept(self, blocks: Sequence[tuple[Stream, Block]]) -> list[list[Event] | Exception]:
        """Take the next block of each stream and return the events they determine.

        Parameters
        ----------
        blocks
            Streams, each at most once, with a block of any length.

        Returns
        -------
        list
            In the order of the blocks: the events that :meth:`~edge_sdk.runtime.stream.Stream.accept` would have
            returned, up to rounding, or the exception that it would have raised; that of one stream is none of
            another's.

        Raises
        ------
        StreamError
            A stream is given twice; nothing was computed.
        """
        if len({id(stream) for stream, _ in blocks}) < len(blocks):
            raise StreamError("a stream is given twice in one call; join its blocks, or give them one after the other")
        turns = [_Turn(stream, block) for stream, block in blocks]
        active = [turn for turn in turns if turn.receive() and turn.next_tick()]
        while active:
            self._run(turn.stream.segmenter_steps for turn in active)
            for turn in active:
                turn.segment()
            self._run(turn.stream.sound_steps for turn in active)
            for turn in active:
                turn.go_on()
            active = [turn for turn in active if turn.next_tick()]
        return [turn.events if turn.error is None else turn.error for turn in turns]

    def _run(self, networks: Iterable[Stepping | None]) -> None:
        self._together.run_due([network for network in networks if network is not None])


class _Turn:
    """One stream in a call."""

    def __init__(self, stream: Stream, block: Block) -> None:
        self.stream, self._block = stream, block
        self.events: list[Event] = []
        self.error: Exception | None = None
        self._ticks: deque[Samples] = deque()

    def receive(self) -> bool:
        """Take the block; whether it completes a tick."""
        try:
            self.events, ticks = self.stream.receive(self._block)
            self._ticks.extend(ticks)
        except Exception as error:
            self.error = error
        return bool(self._ticks)

    def next_tick(self) -> bool:
        """Hold the next tick; False: there is none, or the stream has failed."""
        if self.error is not None or not self._ticks:
            return False
        try:
            self.stream.hold([self._ticks.popleft()])
        except Exception as error:
            self.error = error
            return False
        return True

    def segment(self) -> None:
        """Find the cycles of the tick that is held."""
        try:
            self.stream.segment()
        except Exception as error:
            self.error = error

    def go_on(self) -> None:
        """Take the events of the tick that is held."""
        if self.error is not None:
            return
        try:
            self.events += self.stream.found()
        except Exception as error:
            self.error = error
