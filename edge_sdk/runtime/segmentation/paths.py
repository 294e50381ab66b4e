"""The paths of the decoder: sequences of cycles and pauses with their scores, some frames ahead at a time.

No cycle is shorter than ``shortest_s``, so that which cycles end within the next frames does not depend on those that
begin within them. All that concerns ends and begins is therefore computed for up to so many frames in one go, and a
frame by itself costs little more than adding what it emits to the scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.tempi import Floats, Numbers, Place, Span, tempi

IMPOSSIBLE = -1e9
"""Score of a path that cannot be."""

_RESCALE = 256  # frames after which the best score is called zero again
_SLACK = 64  # frames after which the memory of begins is moved: it is never searched around an edge
_CACHED = 64  # begins of which the cycle before is kept


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

    @property
    def at_once(self) -> int:
        """Frames that can be computed in one go."""
        return min(self.tempi.span, _RESCALE - self.now % _RESCALE)

    def prepare(self, span: Span, place: Place) -> None:
        """Give the scores before the frames."""
        if self.scores is not self._row:
            self._row[...], self._rest[...] = self.scores, self.pause
        place.pause[...] = self._rest
        self._row.take(span.ends, None, place.ended, "clip")

    def move(self, place: Place, n: int) -> None:
        """Go through the frames, of which all that concerns ends and begins is known."""
        begin = self.now - self._oldest
        end = begin + n
        if end > len(self._before):
            begin, end = self._forget(begin, n)
        self._before[begin:end], self._direct[begin:end], self._rests[begin:end] = place.memory
        self._base, self._computed, self._place = self.now, n, place
        scores, begins = self._shifting, self.tempi.first
        for emitted, row, shifting, first in place.moves:
            np.add(scores, emitted, emitted)
            row[begins] = first
            scores = shifting
        np.add(scores, place.emitted_last, self._shifted)
        self._row[begins] = place.first_last
        self._rest[...] = place.pauses[-1]
        if (self.now + n) % _RESCALE == 0:
            row, pause = self._row, self._rest
            top = max(float(row.max()), float(pause.max()))
            pause -= top
            row -= top
            np.maximum(row, IMPOSSIBLE, out=row)

    def _forget(self, rows: int, more: int) -> tuple[int, int]:
        """Keep the last of so many rows of the memory, and return where so many more begin and end."""
        first = rows - self._kept
        for memory in (self._before, self._direct, self._rests):
            memory[: self._kept] = memory[first:rows]
        self._oldest += first
        return self._kept, self._kept + more

    def go_to(self, now: int) -> None:
        """Take the frames before ``now``; those computed beyond it count until something is done to the scores."""
        self.now = now
        frames = now - self._base
        if frames == self._computed:
            self.scores, self.pause = self._row, self._rest
        else:
            self.scores, self.pause = self._place.scores[frames - 1], self._place.pauses[frames - 1]

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


def advance(paths: Sequence[Paths], n: int, frames: Floats) -> None:
    """Compute ``n`` frames that follow in each of some streams with the same tempi; :meth:`Paths.go_to` goes there.

    Parameters
    ----------
    paths
        Of the streams.
    n
        Up to :attr:`Paths.at_once` of each, and to ``MOST_ROWS`` over all streams.
    frames
        ``[streams * n, 4]``: cosine and sine of the cycle's angle, what the activity adds to the scores of all cycles
        over its weight, and what is added to the score of a cycle that begins at the frame.
    """
    own = paths[0].tempi
    span = own.spans.of(len(paths), n)
    for one, place in zip(paths, span.places, strict=True):
        one.prepare(span, place)
    np.matmul(frames[:, :3], own.emission, span.emitted)
    _begin(span, frames[:, 3:], own.pause_cost)
    for one, place in zip(paths, span.places, strict=True):
        one.move(place, n)


def _begin(span: Span, begins: Floats, pause_cost: Floats) -> None:
    """Pauses and begins of cycles at each frame."""
    # fmax, since maximum has to clear the status of the floating-point unit, which takes longer than the rest.
    ended, pauses, first, added = span.ended, span.pauses, span.first, span.added
    span.cells.take(span.more_ends, None, span.parts, "clip")
    for part in span.more:
        np.add(ended, part, ended)
    np.subtract(ended, pause_cost, pauses)
    for earlier, later in span.in_turn:
        np.fmax(earlier, later, later)
    np.greater(pauses, span.pauses_before, span.rests)
    # A cycle begins right after another, or after a pause.
    np.greater_equal(ended, pauses, span.direct)
    np.fmax(ended, pauses, span.before)
    span.paths[...] = span.origins
    np.add(span.all_paths, span.changes, span.all_paths)
    best = span.paths.argmax(2, span.best)
    np.add(best, span.rows_of_paths, best)
    span.all_paths.take(best, None, first, "clip")
    span.cells.take(span.begins_at, None, added, "clip")
    np.add(first, added, first)
    added[...] = begins
    np.add(first, added, first)
