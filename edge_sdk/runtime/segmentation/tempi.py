"""Constants of the decoder's paths, and the arrays in which the streams of a thread compute them."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Memory = tuple[Floats, Flags, Flags]

_LOG_STEP = 0.09  # between two lengths of a cycle
_KEPT_AGES = 24  # frames: of younger cycles the neighbours are remembered
_SPAN = 12  # frames computed in one go: more save little

MOST_ROWS = 16
"""Frames computed in one go over all streams: more save little, and leave the caches."""


class Place:
    """The part of a :class:`Span` that belongs to one stream, of ``n`` frames.

    Parameters
    ----------
    scores
        ``[n, states]``: what each frame emits, and then the scores after it.
    first
        ``[n, lengths]``: scores of the cycles that begin.
    ended
        ``[n, lengths]``: scores of those that end.
    pauses
        ``[n + 1, lengths]``: before the frames and after each.
    memory
        What the stream remembers of the frames.
    """

    def __init__(self, scores: Floats, first: Floats, ended: Floats, pauses: Floats, memory: Memory) -> None:
        self.scores, self.ended, self.memory = scores, ended, memory
        self.pause, self.pauses = pauses[0], pauses[1:]
        # Of each frame but the last: what it emits, its row, that row before a shift, and the cycles that begin.
        self.moves = [(row[1:], row, row[:-1], begins) for row, begins in zip(scores[:-1], first[:-1], strict=True)]
        self.emitted_last, self.first_last = scores[-1][1:], first[-1]


class Span:
    """Arrays in which ``n`` frames of some streams are computed in one go, and views of them that are made once.

    Rows are those of the first stream, frame by frame, then those of the second one and so on.

    Parameters
    ----------
    tempi
        The states.
    streams, n
        Streams, and frames of each.
    cells
        ``[1 + rows * states]``: zero, and the scores of each frame.
    paths
        ``[rows, lengths, lengths]`` of the cycles that begin at each frame: by their length, and by that of the last.
    """

    def __init__(self, tempi: Tempi, streams: int, n: int, cells: Floats, paths: Floats) -> None:
        states, lengths, rows = len(tempi.age), len(tempi.frames), streams * n
        shape = (streams, n, lengths)
        self.cells, self.emitted = cells, cells[1:].reshape(rows, states)
        self.first, self.added = np.empty((rows, lengths)), np.empty((rows, lengths))
        # The score with which a cycle ends is that before the frames, and what each frame up to then emits.
        frame = np.arange(n)[:, None]
        self.ends = tempi.last - frame
        part, stream = np.arange(n - 1)[:, None, None, None], np.arange(streams)[:, None, None]
        emitted = (stream * n + part) * states + self.ends + part + 1
        self.more_ends = np.where(part < frame, 1 + emitted, 0)
        self.ended, self.parts = np.empty(shape), np.empty((n - 1, *shape))
        self.more = list(self.parts)
        pauses = np.empty((streams, n + 1, lengths))
        self.pauses_before, self.pauses = pauses[:, :-1], pauses[:, 1:]
        self.in_turn = [(pauses[:, k], pauses[:, k + 1]) for k in range(n)]
        self.before, self.direct, self.rests = np.empty(shape), np.empty(shape, dtype=bool), np.empty(shape, dtype=bool)
        self.origins = self.before.reshape(rows, 1, lengths)
        self.paths, self.all_paths, self.changes = paths, paths.reshape(-1), tempi.changes[: paths.size]
        self.best = np.empty((rows, lengths), dtype=np.int64)
        self.rows_of_paths = lengths * np.arange(rows * lengths).reshape(rows, lengths)
        self.begins_at = 1 + states * np.arange(rows)[:, None] + tempi.first
        scores, first = self.emitted.reshape(streams, n, states), self.first.reshape(shape)
        self.places = [
            Place(scores[k], first[k], self.ended[k], pauses[k], (self.before[k], self.direct[k], self.rests[k]))
            for k in range(streams)
        ]


class Spans(threading.local):
    """The arrays of one thread, in which all its streams compute: they stay in the caches, and a stream stays small.

    Parameters
    ----------
    tempi
        The states.
    """

    def __init__(self, tempi: Tempi) -> None:
        self._tempi, self._room = tempi, 0
        self._spans: dict[tuple[int, int], Span] = {}

    def of(self, streams: int, n: int) -> Span:
        """Arrays for ``n`` frames of so many streams; their content is old."""
        return self._spans.get((streams, n)) or self._new(streams, n)

    def _new(self, streams: int, n: int) -> Span:
        states, lengths, rows = len(self._tempi.age), len(self._tempi.frames), streams * n
        if rows > self._room:
            self._room, self._spans = rows, {}
            self._cells, self._paths = np.zeros(1 + rows * states), np.empty((rows, lengths, lengths))
        span = Span(self._tempi, streams, n, self._cells[: 1 + rows * states], self._paths[:rows])
        self._spans[streams, n] = span
        return span


class Tempi:
    """Constants of all states; state ``(i, k)`` is frame ``k`` of a cycle of length ``i``, at ``first[i] + k``."""

    def __init__(self, frame_s: float, p: DecoderParams) -> None:
        count = max(2, round(np.log(p.longest_s / p.shortest_s) / _LOG_STEP) + 1)
        seconds = np.exp(np.linspace(np.log(p.shortest_s), np.log(p.longest_s), count))
        self.frames = np.array(sorted({max(2, round(s / frame_s)) for s in seconds.tolist()}), dtype=np.int64)
        self.first = np.concatenate(([0], np.cumsum(self.frames)[:-1]))
        self.last = self.first + self.frames - 1
        self.length = np.repeat(np.arange(len(self.frames)), self.frames)  # i of each state
        self.age = np.concatenate([np.arange(n) for n in self.frames])  # k of each state
        angle = 2.0 * np.pi * (self.age + 0.5) / self.frames[self.length]
        # [3, states]: times cosine and sine of the network's angle, and the activity
        self.emission = np.stack(
            (p.cycle_weight * np.cos(angle), p.cycle_weight * np.sin(angle), np.full(len(angle), p.activity_weight))
        )
        log_length = np.log(self.frames * frame_s)
        change = -0.5 * np.square((log_length[None] - log_length[:, None]) / p.tempo_spread)
        change -= np.log(np.exp(change).sum(axis=1, keepdims=True))  # from i to j
        self.change = np.ascontiguousarray(change.T)  # to j from i: the best i is sought in a row
        first = -0.5 * np.square((log_length - np.log(p.typical_s)) / p.first_spread)
        self.prior = first - np.log(np.exp(first).sum())
        self.ages: list[int] = self.age.tolist()
        self.lengths: list[int] = self.length.tolist()
        self.span = min(_SPAN, int(self.frames[0]))  # frames that can be computed in one go
        self.changes = np.tile(self.change.reshape(-1), max(self.span, MOST_ROWS))
        self.pause_cost = np.array(p.pause_cost)
        self.spans = Spans(self)
        self._near: dict[tuple[int, int], Numbers] = {}

    def near(self, age: int, frames: int) -> Numbers:
        """States whose age differs from ``age`` by up to so many frames."""
        if (age, frames) not in self._near:
            found = np.flatnonzero(np.abs(self.age - age) <= frames)
            if age > _KEPT_AGES:
                return found
            self._near[age, frames] = found
        return self._near[age, frames]


@lru_cache(maxsize=4)
def tempi(frame_s: float, params: DecoderParams) -> Tempi:
    """The constants, shared by all streams."""
    return Tempi(frame_s, params)
