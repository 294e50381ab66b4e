"""Excerpts in the log-mel domain: cut, played at another pace and in a loop, annotation and frames stay together."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames, spans
from tests.support.tiny_segmentation import FRAME_S, HOP_S, SPEC, begins_of, bursts, hiss, loud

PARTS = ("cycles", "inspirations", "expirations", "phase_annotated")


def _loud_spans(excerpt: Excerpt) -> np.ndarray:
    """Begins of loud stretches, in seconds: each output frame spans ``[k * FRAME_S + HOP_S / 2, …)``."""
    return begins_of(loud(excerpt)) * FRAME_S + HOP_S / 2


def _inner(moments: np.ndarray, excerpt: Excerpt) -> np.ndarray:
    """Those that are not at an edge of the excerpt."""
    return moments[(moments > 0.2) & (moments < excerpt.duration_s - 0.2)]


@pytest.mark.parametrize("pace", [0.55, 0.8, 1.0, 1.7, 2.6])
@pytest.mark.parametrize("begin", [0, 1, 61, 130])
def test_onsets_lie_where_it_becomes_loud(begin: int, pace: float) -> None:
    excerpt = bursts().cut(begin, 900).at_pace(pace, 600)
    onsets, becomes = excerpt.truth.cycles[:, 0], _loud_spans(excerpt)
    late = np.array([becomes[np.abs(becomes - onset).argmin()] - onset for onset in _inner(onsets, excerpt)])
    assert len(late) >= 3 and np.abs(late).max() <= FRAME_S and abs(late.mean()) <= 0.75 * FRAME_S
    assert all(np.abs(onsets - moment).min() <= FRAME_S for moment in _inner(becomes, excerpt)), "none is invented"
    assert np.diff(onsets) == pytest.approx(2.0 / pace)


@pytest.mark.parametrize("pace", [0.5, 1.0, 2.0])
def test_every_part_of_the_truth_moves_together(pace: float) -> None:
    excerpt = bursts()
    moved = excerpt.cut(100, 700).at_pace(pace, 9999)
    for name in PARTS:
        wanted = (getattr(excerpt.truth, name) - 100 * HOP_S - HOP_S) / pace + HOP_S
        np.testing.assert_allclose(getattr(moved.truth, name), wanted)
    assert moved.truth.kind is excerpt.truth.kind and moved.truth.weight == excerpt.truth.weight


def test_its_own_pace_changes_no_frame() -> None:
    excerpt = bursts()
    same = excerpt.at_pace(1.0, 10**6)
    np.testing.assert_array_equal(same.frames, excerpt.frames)
    np.testing.assert_allclose(same.truth.cycles, excerpt.truth.cycles)


@pytest.mark.parametrize(("pace", "most", "count"), [(2.0, 999, 50), (0.5, 999, 197), (0.5, 40, 40), (2.6, 20, 20)])
def test_a_pace_gives_as_many_frames_as_there_are(pace: float, most: int, count: int) -> None:
    frames = np.arange(99, dtype=np.float32)[:, None]
    played = Excerpt(frames, SegmentTruth(Annotation.NONE), HOP_S).at_pace(pace, most)
    np.testing.assert_allclose(played.frames[:, 0], np.arange(count) * pace, rtol=1e-5)


def test_the_pace_leaves_the_spectrum_alone() -> None:
    """Twice as fast is not an octave higher, as it would be with audio."""
    excerpt = bursts()
    for pace in (0.5, 2.0):
        played = excerpt.at_pace(pace, 10**6)
        apart = excerpt.frames[np.repeat(loud(excerpt), 2)[: len(excerpt.frames)].nonzero()].mean(axis=0)
        again = played.frames[np.repeat(loud(played), 2)[: len(played.frames)].nonzero()].mean(axis=0)
        assert np.abs(apart - again).max() < 0.5


@pytest.mark.parametrize(("begin", "end"), [(-5, 10), (0, 0), (990, 5000), (2000, 3000)])
def test_a_cut_stays_inside(begin: int, end: int) -> None:
    excerpt = bursts()
    cut = excerpt.cut(begin, end)
    assert len(cut.frames) == max(0, min(end, len(excerpt.frames)) - max(0, begin))
    np.testing.assert_allclose(cut.truth.cycles + max(0, begin) * HOP_S, excerpt.truth.cycles)


@pytest.mark.parametrize("period_s", [1.1, 1.77, 2.5])
def test_loops_are_seamless(period_s: float) -> None:
    """Across a seam too, onsets keep their distance and lie where it becomes loud; nothing is left out."""
    excerpt = bursts(Annotation.CYCLES, on_s=0.5, period_s=period_s)
    looped = excerpt.repeated(3)
    cycles = looped.truth.cycles
    assert len(cycles) == 3 * len(excerpt.truth.cycles) and looped.truth.kind is Annotation.CYCLES
    assert np.abs(np.diff(cycles[:, 0]) - period_s).max() <= HOP_S + 1e-9
    assert np.abs(cycles[1:, 0] - cycles[:-1, 1]).max() <= HOP_S + 1e-9
    assert looped.duration_s == pytest.approx(cycles[-1, 1] - cycles[0, 0], abs=2 * HOP_S)
    becomes, onsets = _loud_spans(looped), cycles[:, 0]
    assert all(np.abs(becomes - onset).min() <= FRAME_S for onset in onsets[1:])
    assert len(becomes) in (len(onsets) - 1, len(onsets))  # the first begins with the excerpt


def test_a_loop_of_a_cut_begins_and_ends_with_a_cycle() -> None:
    looped = bursts(Annotation.CYCLES).cut(20, 950).repeated(2)
    assert looped.truth.cycles[0, 0] == pytest.approx(0.0, abs=HOP_S)
    assert looped.truth.cycles[-1, 1] == pytest.approx(looped.duration_s, abs=2 * HOP_S)


def test_frames_are_those_of_the_device() -> None:
    from edge_sdk.signal.logmel import LogMel

    wave, _ = hiss(3.0, 0.5, 1.0)
    frames, nothing = log_mel_frames([wave, wave[:100]], SPEC)
    device = LogMel(SPEC).accept(wave)
    assert frames.shape == device.shape and frames.dtype == np.float32
    np.testing.assert_allclose(frames, device, atol=2e-3)
    assert nothing.shape == (0, SPEC.mel_bins)


def test_spans_of_nothing_have_two_columns() -> None:
    assert spans([]).shape == (0, 2)
    assert SegmentTruth(Annotation.NONE).moved(1.0, 2.0).cycles.shape == (0, 2)
