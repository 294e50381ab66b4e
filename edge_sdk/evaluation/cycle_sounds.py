"""Annotated cycles with the frames of the network of continuous audio, as a stream joins them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.audio import read_recording
from edge_sdk.runtime.verdict.adventitious import SoundRun
from edge_sdk.runtime.verdict.breath_sounds import RecentFrames, frame_sums, joined
from edge_sdk.signal.resample import StreamResampler

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus
    from edge_sdk.runtime.verdict.monitor import VerdictModel


def with_sounds(
    verdict: VerdictModel,
    corpus: Corpus,
    probabilities: npt.NDArray[np.float64],
    decisions: npt.NDArray[np.int64],
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Join the classifier's probabilities of the annotated cycles with the network's logits over each of them.

    Parameters
    ----------
    verdict
        With settings of the join.
    corpus
        Each recording is read whole; a cycle that lies beyond its end stays as it is.
    probabilities, decisions
        ``[n, 4]`` and ``[n]`` of the classifier, in the order of the cycles.
    progress
        Called with (what, done, total).

    Returns
    -------
    probabilities, decisions
        Joined.

    Raises
    ------
    AudioError
        A recording that cannot be read.
    """
    params = verdict.breaths
    assert params is not None
    rows: dict[str, list[int]] = defaultdict(list)
    for row, cycle in enumerate(corpus.cycles):
        rows[cycle.recording_id].append(row)
    paths = {recording.id: recording.path for recording in corpus.recordings}
    probabilities, decisions = probabilities.copy(), decisions.copy()
    for done, (name, chosen) in enumerate(rows.items(), 1):
        frames = recording_frames(verdict, *read_recording(paths[name]))
        for row in chosen:
            cycle = corpus.cycles[row]
            own, running = frames.logits(cycle.start_s, cycle.end_s), frames.logits(0.0, cycle.end_s)
            if own is not None and running is not None:
                probabilities[row] = joined(probabilities[row][None], own[None], running[None], params)[0]
                decisions[row] = probabilities[row].argmax()
        if progress is not None:
            progress("sounds of recordings", done, len(rows))
    return probabilities, decisions


def recording_frames(verdict: VerdictModel, samples: npt.NDArray[np.float32], rate: int) -> RecentFrames:
    """The network's frames of ``[n]`` samples at ``rate`` Hz, all of them kept."""
    resampler = StreamResampler(rate, verdict.rate_hz)
    run = SoundRun(verdict.sounds, offline=True)
    steps = run.accept(np.concatenate((resampler.accept(samples), resampler.flush())))
    frames = RecentFrames(verdict.sounds.settings.frame_s)
    for step in (*steps, *run.finish()):
        frames.add(step.first, frame_sums(step.attention, step.clip))
    return frames
