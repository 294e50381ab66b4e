"""The paths of the decoder: sequences of cycles and pauses with their scores, some frames ahead at a time.

No cycle is shorter than ``shortest_s``, so that which cycles end within the next frames does not depend on those that
begin within them. All that concerns ends and begins is therefore computed for up to so many frames in one go, and a
frame by itself costs little more than adding what it emits to the scores.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

IMPOSSIBLE = -1e9
"""Score of a path that cannot be."""

_RESCALE = 256  # frames after which the best score is called zero again
_LOG_STEP = 0.09  # between two lengths of a cycle
_KEPT_AGES = 24  # frames: of younger cycles the neighbours are remembered
_SPAN = 12  # frames computed in one go: more save little
_SLACK = 64  # frames after which the memory of begins is moved: it is never searched around an edge
_CACHED = 64  # begins of which the cycle before is kept


class Span:
    """Arrays in which ``n`` frames are computed in one go, and views of them that are made once.

    Parameters
    ----------
    tempi
        The states.
    n
        Frames.
    cells
        ``[1 + n * states]``: zero, and the scores of each frame.
    pauses
        ``[n + 1, lengths]``, before the frames and after each.
    paths
        ``[n, lengths, lengths]`` of the cycles that begin at each frame: by their length, and by that of the last one.
    """

    def __init__(self, tempi: Tempi, n: int, cells: Floats, pauses: Floats, paths: Floats) -> None:
        states, lengths = len(tempi.age), len(tempi.frames)
        self.cells, self.emitted = cells, cells[1:].reshape(n, states)
        rows = list(self.emitted)
        self.first = np.empty((n, lengths))
        self.firsts = list(self.first)
        self.moves = [(row[1:], row, row[:-1], first) for row, first in zip(rows[:-1], self.firsts[:-1], strict=True)]
        self.last = rows[-1][1:]
        # The score with which a cycle ends is one before the frames, and what each frame up to then emits.
        frames = np.arange(n)
        part, frame = frames[:-1, None, None], frames[:, None]
        self.ends = tempi.last - frame
        self.more_ends = np.where(part < frame, 1 + part * states + tempi.last - frame + part + 1, 0)
        self.ended, self.parts = np.empty((n, lengths)), np.empty((n - 1, n, lengths))
        self.more = list(self.parts)
        self.pauses_before, self.pauses = pauses[:-1], pauses[1:]
        self.in_turn = list(zip(self.pauses_before, self.pauses, strict=True))
        self.paths, self.all_paths, self.changes = paths, paths.reshape(-1), tempi.changes[: paths.size]
        self.rows_of_paths = np.arange(n * lengths).reshape(n, lengths) * lengths
        self.begins_at = 1 + states * frame + tempi.first
        self.best, self.added = np.empty((n, lengths), dtype=np.int64), np.empty((n, lengths))


class Spans(threading.local):
    """The arrays of one thread, in which all its streams compute: they stay in the caches, and a stream stays small.

    Parameters
    ----------
    tempi
        The states.
    """

    def __init__(self, tempi: Tempi) -> None:
        self._tempi, self._room = tempi, 0
        self._spans: dict[int, Span] = {}

    def of(self, n: int) -> Span:
        """Arrays for ``n`` frames, whose content is that of the last stream."""
        return self._spans.get(n) or self._new(n)

    def _new(self, n: int) -> Span:
        states, lengths = len(self._tempi.age), len(self._tempi.frames)
        if n > self._room:
            self._room, self._spans = n, {}
            self._cells, self._pauses = np.zeros(1 + n * states), np.empty((n + 1, lengths))
            self._paths = np.empty((n, lengths, lengths))
        span = Span(self._tempi, n, self._cells[: 1 + n * states], self._pauses[: n + 1], self._paths[:n])
        self._spans[n] = span
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
        self.changes = np.tile(self.change.reshape(-1), self.span)  # of each of these frames
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


class Paths:
    """Scores and memory of the best path to every state; a pure function of the frames, and of what is done to them.

    Parameters
    ----------
    frame_s, params
        Of the decoder.
    lag
        Frames after which a cycle is final.

    Attributes
    ----------
    now
        Frames taken.
    scores
        ``[states]``, of the open cycles.
    pause
        ``[lengths]``: score of the best path that is in a pause, by the length of its last cycle.
    """

    def __init__(self, frame_s: float, params: DecoderParams, lag: int) -> None:
        self.tempi = tempi(frame_s, params)
        self._pause_cost = np.array(params.pause_cost)
        lengths = len(self.tempi.frames)
        self._row, self._rest = np.empty(len(self.tempi.age)), np.empty(lengths)
        self._shifting, self._shifted = self._row[:-1], self._row[1:]
        self._kept = 2 * int(self.tempi.frames[-1]) + lag + 2 + self.tempi.span  # frames that are remembered
        # By the length of the last cycle of a path: the score before a cycle that begins at the frame, whether the
        # last cycle may have ended right there, and whether the best pause after one begins there.
        self._before = np.zeros((self._kept + _SLACK, lengths))
        self._direct = np.zeros((self._kept + _SLACK, lengths), dtype=bool)
        self._rests = np.zeros((self._kept + _SLACK, lengths), dtype=bool)
        self.reset()

    def reset(self) -> None:
        """Start over; the next frame has number 0."""
        self.now = self._base = self._computed = 0
        self._oldest = 0  # frame of the memory's first row
        self._origins: dict[tuple[int, int], tuple[int, int]] = {}
        self._row[...], self._rest[...] = IMPOSSIBLE, self.tempi.prior
        self.go_to(0)

    def advance(self, frames: Floats) -> int:
        """Compute frames that follow; :meth:`go_to` goes there.

        Parameters
        ----------
        frames
            ``[n, 4]``: cosine and sine of the cycle's angle, what the activity adds to the scores of all cycles over
            its weight, and what is added to the score of a cycle that begins at the frame.

        Returns
        -------
        int
            Frames computed: as many of the first as can be computed in one go.
        """
        tempi, now = self.tempi, self.now
        n = min(len(frames), tempi.span, _RESCALE - now % _RESCALE)
        if self.scores is not self._row:
            self._row[...], self._rest[...] = self.scores, self.pause
        span = self._span = tempi.spans.of(n)
        self._base, self._computed = now, n
        np.matmul(frames[:n, :3], tempi.emission, span.emitted)
        self._begin(span, n, frames[:n, 3:])
        before, begins = self._shifting, tempi.first
        for emitted, row, shifting, first in span.moves:
            np.add(before, emitted, emitted)
            row[begins] = first
            before = shifting
        np.add(before, span.last, self._shifted)
        self._row[begins] = span.firsts[-1]
        self._rest[...] = span.pauses[-1]
        if (now + n) % _RESCALE == 0:
            row, pause = self._row, self._rest
            top = max(float(row.max()), float(pause.max()))
            pause -= top
            row -= top
            np.maximum(row, IMPOSSIBLE, out=row)
        return n

    def _begin(self, span: Span, n: int, begins: Floats) -> None:
        """Score of the cycles that begin at each of ``n`` frames; remember how they do."""
        # fmax, since maximum has to clear the status of the floating-point unit, which takes longer than the rest.
        ended, pauses, first = span.ended, span.pauses, span.first
        self._row.take(span.ends, None, ended, "clip")
        span.cells.take(span.more_ends, None, span.parts, "clip")
        for part in span.more:
            np.add(ended, part, ended)
        np.subtract(ended, self._pause_cost, pauses)
        span.pauses_before[0] = self._rest
        for earlier, later in span.in_turn:
            np.fmax(earlier, later, later)
        begin = self.now - self._oldest
        if begin + n > len(self._before):
            begin = self._forget(begin)
        memory = slice(begin, begin + n)
        np.greater(pauses, span.pauses_before, self._rests[memory])
        # A cycle begins right after another, or after a pause.
        np.greater_equal(ended, pauses, self._direct[memory])
        before = np.fmax(ended, pauses, self._before[memory])
        span.paths[...] = before[:, None]
        np.add(span.all_paths, span.changes, span.all_paths)
        best = span.paths.argmax(2, span.best)
        np.add(best, span.rows_of_paths, best)
        span.all_paths.take(best, None, first, "clip")
        span.cells.take(span.begins_at, None, span.added, "clip")
        np.add(first, span.added, first)
        span.added[...] = begins
        np.add(first, span.added, first)

    def _forget(self, rows: int) -> int:
        """Keep the last of so many rows of the memory, and return how many they are."""
        first = rows - self._kept
        for memory in (self._before, self._direct, self._rests):
            memory[: self._kept] = memory[first:rows]
        self._oldest += first
        return self._kept

    def go_to(self, now: int) -> None:
        """Take the frames before ``now``; those computed beyond it count until something is done to the scores."""
        self.now = now
        frames = now - self._base
        if frames == self._computed:
            self.scores, self.pause = self._row, self._rest
        else:
            self.scores, self.pause = self._span.emitted[frames - 1], self._span.pauses[frames - 1]

    # -- what the decoder reads and does -------------------------------------------------------------------------------

    def best(self) -> int | None:
        """State of the open cycle of the best path; None: it is in a pause."""
        scores, pause = self.scores, self.pause
        best = int(scores.argmax())
        return best if scores.item(best) > pause.item(pause.argmax()) else None

    def lead(self, best: int, near: Numbers) -> float:
        """Lead of the best state over pauses and all states that are not ``near`` it."""
        scores, pause = self.scores, self.pause
        kept, score = scores[near], float(scores[best])
        scores[near] = -np.inf
        rival = max(float(scores.max()), float(pause.max()))
        scores[near] = kept
        return score - rival

    def lower_others(self, near: Numbers, margin: float) -> None:
        """Lower the scores of pauses and of all states that are not among ``near``."""
        kept = self.scores[near]
        self.scores -= margin
        self.scores[near] = kept
        self.pause -= margin

    def last_end(self, best: int | None) -> tuple[int, int]:
        """End and length of the last finished cycle of the best path; the end is -1 where there is none."""
        if best is None:
            length = int(self.pause.argmax())
            return self._last_rest(self.now, length), length
        return self.previous(self.now - self.tempi.ages[best] - 1, self.tempi.lengths[best])

    def previous(self, start: int, length: int) -> tuple[int, int]:
        """End and length of the cycle before the one that begins at ``start``; the end is -1 where there is none."""
        origin = self._origins.get((start, length))
        if origin is None:
            origin = self._origin(start, length)
            if len(self._origins) >= _CACHED:
                self._origins.clear()
            self._origins[start, length] = origin
        return origin

    def _origin(self, start: int, length: int) -> tuple[int, int]:
        row = start - self._oldest
        if row < 0:
            return -1, length
        before = int((self._before[row] + self.tempi.change[length]).argmax())
        return start if self._direct[row, before] else self._last_rest(start, before), before

    def _last_rest(self, end: int, length: int) -> int:
        """End of the cycle of this length before the best pause at ``end``; -1 where none is remembered."""
        rests = self._rests[: end - self._oldest, length][::-1]
        back = int(rests.argmax()) if rests.size else 0
        return end - 1 - back if rests[back : back + 1].any() else -1
