"""The decoder by probabilities: the same promises as of the best path, and onsets that are early and stand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge_sdk.runtime.segmentation.decoder import DecodedCycle, DecoderParams, TempoDecoder
from edge_sdk.runtime.segmentation.posterior import PosteriorDecoder, new_decoder
from tests.runtime.segmentation.test_decoder import CYCLES, FRAME_S, STEP, Frames, finals, near, outputs

PARAMS = DecoderParams(search="posterior", activity_weight=0.25)


def decode(frames: Frames, params: DecoderParams = PARAMS, *, cut: bool = False) -> list[tuple[int, DecodedCycle]]:
    """Every decoded cycle, with the number of frames received by then."""
    decoder = PosteriorDecoder(FRAME_S, params)
    emitted = []
    for k in range(0, len(frames[0]), STEP):
        emitted += [(decoder.frames, b) for b in decoder.accept(*(row[..., k : k + STEP] for row in frames))]
    return emitted + [(decoder.frames, b) for b in decoder.finish(cut=cut)]


def test_the_settings_choose_the_decoder() -> None:
    assert isinstance(new_decoder(FRAME_S, PARAMS), PosteriorDecoder)
    assert isinstance(new_decoder(FRAME_S, DecoderParams.from_dict({"onset_bonus": 0.4})), TempoDecoder), "as before"
    with pytest.raises(ValueError, match="search"):
        DecoderParams.from_dict({"search": "all"})


def test_clear_cycles_are_decoded_early() -> None:
    emitted = decode(outputs(CYCLES, 240))
    found = finals(emitted)
    assert [(b.start, b.end) for b in found] == [(near(begin), near(end, 4)) for begin, end in CYCLES]
    assert all(b.confidence > 0.7 for b in found)
    first = [(at, b) for at, b in emitted if not b.final]
    assert [b.start for _, b in first] == [near(begin) for begin, _ in CYCLES]
    assert all(at - b.start <= 6 for at, b in first)


@pytest.mark.parametrize("pause", [25, 45, 130])
def test_pauses_are_no_part_of_a_cycle_and_keep_the_tempo(pause: int) -> None:
    cycles = [(k, k + 40) for k in range(30, 900, 40 + pause)]
    found = finals(decode(outputs(cycles, 980)))
    assert [b.start for b in found] == [near(begin) for begin, _ in cycles]
    assert all(abs(b.end - b.start - 40) <= 6 for b in found)


def test_an_apnoea_is_not_filled() -> None:
    cycles = [(k, k + 50) for k in range(20, 270, 50)] + [(k, k + 50) for k in range(620, 870, 50)]
    found = finals(decode(outputs(cycles, 900)))
    assert len(found) == len(cycles)
    assert not [b for b in found if b.end > 290 and b.start < 600]


@pytest.mark.parametrize("per_minute", [8, 12, 20, 35, 50, 80])
def test_cycles_of_any_rate_are_separated(per_minute: int) -> None:
    period = 60.0 / per_minute / FRAME_S
    edges = [round(10 + k * period) for k in range(int(1500 / period))]
    found = finals(decode(outputs(list(pairwise(edges)), edges[-1])))
    assert [b.start for b in found] == [near(begin, max(3, round(0.05 * period))) for begin in edges[:-1]]


@pytest.mark.parametrize("seed", range(8))
def test_nothing_final_is_ever_revised(seed: int) -> None:
    """On any outputs: in order, apart, no longer than allowed, and emitted after their end."""
    rng = np.random.default_rng(seed)
    smooth = np.ones(5) / 5
    activity, onset = (np.convolve(rng.random(1500) ** 2 * 1.8, smooth, "same").clip(0.001, 0.999) for _ in range(2))
    phase, angle = rng.dirichlet((1, 1, 1), 1500).T, rng.normal(0, 0.6, (2, 1500))
    emitted = decode((activity, onset, phase, angle))
    found = finals(emitted)
    assert len(found) > 2
    assert all(a.end <= b.start for a, b in pairwise(found))
    least = PARAMS.least_share * PARAMS.shortest_s
    assert all(least - FRAME_S <= (b.end - b.start) * FRAME_S <= PARAMS.longest_s + FRAME_S for b in found)
    assert all(b.start < b.end <= at for at, b in emitted)
    assert all(at <= later for (at, _), (later, _) in pairwise(emitted))


def test_a_wrong_provisional_onset_is_withdrawn() -> None:
    """A click that looks like an onset, and nothing after it."""
    frames = outputs([(100, 145), (145, 190)], 240)
    frames[1][30] = 0.999
    hasty = {"announce_share": 0.2, "late_share": 0.2, "withdraw_margin": 0.0}
    emitted = decode(frames, DecoderParams.from_dict(PARAMS.to_dict() | hasty))
    starts = [b.start for _, b in emitted if not b.final]
    assert starts[0] == near(30) and starts[-2:] == [near(100), near(145)]
    assert [b.start for b in finals(emitted)] == [near(100), near(145)]


def test_silence_has_no_cycle_and_what_follows_it_has() -> None:
    decoder, quiet, busy = PosteriorDecoder(FRAME_S, PARAMS), outputs([], STEP), outputs(CYCLES, 240)
    for _ in range(5000):
        assert decoder.accept(*quiet) == []
    found = []
    for k in range(0, 240, STEP):
        found += decoder.accept(*(row[..., k : k + STEP] for row in busy))
    assert [b.start - 10000 for b in finals([(0, b) for b in found + decoder.finish()])] == [near(b) for b, _ in CYCLES]


def test_extreme_outputs_keep_the_probabilities_finite() -> None:
    """Certain of one thing for minutes, then of its opposite."""
    decoder = PosteriorDecoder(FRAME_S, PARAMS)
    for sign in (1.0, -1.0, 1.0):
        for _ in range(1500):
            certain = np.full(STEP, float(sign > 0))
            decoder.accept(certain, 1.0 - certain, np.tile(certain, (3, 1)), np.full((2, STEP), sign))
            assert np.isfinite(decoder._states).all() and np.isfinite(decoder._scale)
            assert 0.0 <= decoder._resting <= 1.0


def test_the_open_cycle_ends_with_the_audio() -> None:
    found = finals(decode(outputs([(20, 60), (60, 100)], 95)))
    assert found[-1].end == 95
    assert len(finals(decode(outputs([(20, 60), (60, 66)], 66)))) == 1, "a stub is no cycle"
    assert len(finals(decode(outputs([(20, 60), (60, 74)], 74), cut=True))) == 2


def test_reset_is_a_fresh_start() -> None:
    decoder, frames = PosteriorDecoder(FRAME_S, PARAMS), outputs(CYCLES, 110)

    def all_cycles() -> list[DecodedCycle]:
        found = []
        for k in range(0, 110, STEP):
            found += decoder.accept(*(row[..., k : k + STEP] for row in frames))
        return found + decoder.finish()

    first = all_cycles()
    assert first
    decoder.reset()
    assert all_cycles() == first
