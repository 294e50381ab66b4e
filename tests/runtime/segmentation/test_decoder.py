"""The decoder: frames in, breaths out; early, never revising what is final, whatever the probabilities are."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edge_sdk.runtime.segmentation.decoder import DecodedBreath, DecoderParams, Floats, PhaseDecoder

FRAME_S = 0.02
STEP = 4


def sound(
    breaths: list[tuple[int, int]], frames: int, noise: float = 0.0, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Activity, onset and phases of breaths ``(begin, end)`` in frames; they turn in the middle."""
    rng = np.random.default_rng(seed)
    activity, onset, phase = np.full(frames, 0.1), np.full(frames, 0.03), np.full((3, frames), 0.1)
    phase[2] = 0.8
    for begin, end in breaths:
        activity[begin:end] = 0.9
        for k in range(max(0, begin - 3), min(frames, begin + 4)):
            onset[k] = max(onset[k], 0.9 * (1 - abs(k - begin) / 4))
        middle = (begin + end) // 2
        phase[:, begin:middle] = np.array([[0.8], [0.15], [0.05]])
        phase[:, middle:end] = np.array([[0.15], [0.8], [0.05]])
    if noise:
        activity = np.clip(activity + rng.normal(0, noise, frames), 0.01, 0.99)
        onset = np.clip(onset + rng.normal(0, noise / 3, frames), 0.01, 0.99)
    return activity, onset, phase


def decode(
    frames: tuple[Floats, Floats, Floats], params: DecoderParams | None = None, *, cut: bool = False
) -> list[tuple[int, DecodedBreath]]:
    """Every breath told, with the frames heard when it was."""
    decoder = PhaseDecoder(FRAME_S, params, most_frames=STEP)
    activity, onset, phase = frames
    told = []
    for k in range(0, len(activity), STEP):
        part = slice(k, k + STEP)
        told += [(decoder.frames, b) for b in decoder.accept(activity[part], onset[part], phase[:, part])]
    return told + [(decoder.frames, b) for b in decoder.finish(cut=cut)]


def finals(told: list[tuple[int, DecodedBreath]]) -> list[DecodedBreath]:
    return [breath for _, breath in told if breath.final]


BREATHS = [(20, 100), (130, 220), (220, 300), (340, 430)]


def test_a_start_is_no_onset() -> None:
    """A network that has heard nothing yet thinks a breath half likely: only a clear one may begin unheard."""
    frames = sound([(40, 120), (150, 240)], 300)
    frames[0][:25] = 0.6
    hasty = DecoderParams(activity_bias=0.0, onset_cost=-1.0, duration_weight=0.1)
    careful = replace(hasty, early_cost=4.0)
    assert finals(decode(frames, hasty))[0].start == 0
    assert finals(decode(frames, careful))[0].start == pytest.approx(40, abs=1)
    frames[0][:25] = 0.95  # a breath under way
    assert finals(decode(frames, careful))[0].start == 0


def test_clear_breaths_come_out_as_they_are() -> None:
    found = finals(decode(sound(BREATHS, 480)))
    assert [(b.start, b.end) for b in found] == [pytest.approx(b, abs=1) for b in BREATHS]
    assert all(b.confidence > 0.8 for b in found)
    for breath, (begin, end) in zip(found, BREATHS, strict=True):
        assert breath.phase_change == pytest.approx((begin + end) / 2, abs=1)


def test_an_onset_is_told_within_a_fifth_of_a_second() -> None:
    told = decode(sound(BREATHS, 480))
    first = [(at, b) for at, b in told if not b.final]
    assert [b.start for _, b in first] == [pytest.approx(begin, abs=1) for begin, _ in BREATHS]
    assert all(at - b.start <= 10 for at, b in first)


def test_a_final_breath_comes_soon_after_its_end() -> None:
    lag = round(DecoderParams().final_lag_s / FRAME_S)
    for at, breath in decode(sound(BREATHS, 480)):
        if breath.final:
            assert at - breath.end <= lag + 2 * STEP


@pytest.mark.parametrize("seed", range(8))
def test_nothing_final_is_ever_revised(seed: int) -> None:
    """On any probabilities: in order, apart, of allowed lengths, and told after they ended."""
    rng = np.random.default_rng(seed)
    smooth = np.ones(9) / 9
    activity, onset = (np.convolve(rng.random(1500) ** 2 * 1.8, smooth, "same").clip(0.001, 0.999) for _ in range(2))
    phase = rng.dirichlet((1, 1, 1), 1500).T
    told = decode((activity, onset, phase))
    found = finals(told)
    assert len(found) > 5
    assert all(a.end <= b.start for a, b in pairwise(found))
    p = DecoderParams()
    assert all(p.shortest_s - FRAME_S <= (b.end - b.start) * FRAME_S <= p.longest_s + FRAME_S for b in found)
    assert all(b.end <= at for at, b in told)
    for (at, breath), (later, _) in pairwise(told):
        assert at <= later, breath


def test_a_provisional_onset_that_was_wrong_is_given_up() -> None:
    """A click that looks like an onset, and nothing after it."""
    activity, onset, phase = sound([(200, 290)], 400)
    activity[60:68], onset[60] = 0.95, 0.99
    told = decode((activity, onset, phase), DecoderParams(announce_margin=0.1, withdraw_margin=0.5))
    assert [b.start for b in finals(told)] == [pytest.approx(200, abs=1)]
    first = [b.start for _, b in told if not b.final]
    assert first[-1] == pytest.approx(200, abs=1)


def test_silence_has_no_breath_and_keeps_nothing() -> None:
    decoder = PhaseDecoder(FRAME_S, most_frames=STEP)
    quiet = sound([], STEP)
    for _ in range(5000):
        assert decoder.accept(*quiet) == []
    assert decoder.finish() == []


def test_the_open_breath_ends_with_the_sound() -> None:
    found = finals(decode(sound([(20, 100), (130, 200)], 200)))
    assert found[-1].end == 200
    assert len(finals(decode(sound([(20, 100), (130, 140)], 140)))) == 1, "a stub is no breath"
    assert len(finals(decode(sound([(20, 100), (105, 150)], 150), cut=True))) == 2


def test_noise_on_the_probabilities_does_not_break_breaths() -> None:
    found = finals(decode(sound(BREATHS, 480, noise=0.3)))
    assert len(found) == len(BREATHS)
    assert all(abs(f.start - begin) <= 4 for f, (begin, _) in zip(found, BREATHS, strict=True))


def test_breaths_of_any_rate_are_told_apart() -> None:
    for period in (43, 60, 100, 200, 375):  # 70 to 8 breaths a minute
        breaths = [(k, k + round(0.7 * period)) for k in range(10, 1500 - period, period)]
        found = finals(decode(sound(breaths, 1500)))
        assert len(found) == len(breaths)


def test_hours_leave_no_trace() -> None:
    """The scores are kept near zero: the same breaths come out the same after 100 000 frames."""
    once = sound(BREATHS, 480)
    fresh = [(b.start, b.end, b.confidence) for b in finals(decode(once))]
    decoder = PhaseDecoder(FRAME_S, most_frames=STEP)
    busy, found = sound(BREATHS, 480, noise=0.2), []
    for turn in range(209):
        frames = busy if turn < 208 else once
        for k in range(0, 480, STEP):
            part = slice(k, k + STEP)
            found += decoder.accept(frames[0][part], frames[1][part], frames[2][:, part])
    found += decoder.finish()
    last = [(b.start - 208 * 480, b.end - 208 * 480, b.confidence) for b in found if b.final][-4:]
    assert last == fresh


def test_reset_is_a_fresh_start() -> None:
    decoder, frames = PhaseDecoder(FRAME_S, most_frames=480), sound(BREATHS, 24)
    first = [*decoder.accept(*frames), *decoder.finish()]
    decoder.reset()
    assert [*decoder.accept(*frames), *decoder.finish()] == first


def test_a_step_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 frames"):
        PhaseDecoder(FRAME_S, most_frames=4).accept(*sound([], 5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activity": 1.0}, "unknown params"),
        ({"onset_weight": "2"}, "must be numbers"),
        ({"shortest_s": 9.0}, "shortest_s"),
        ({"announce_s": 0.0}, "announce_s"),
        ({"early_cost": -1.0}, "early_cost"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderParams.from_dict(values)


def test_a_breath_that_the_network_doubts_can_be_left_out() -> None:
    frames = sound(BREATHS, 480)
    frames[0][BREATHS[1][0] : BREATHS[1][1]] = 0.6
    assert len(finals(decode(frames))) == 4
    sure = finals(decode(frames, DecoderParams(least_confidence=0.75)))
    assert [b.start for b in sure] == [pytest.approx(begin, abs=1) for begin, _ in (BREATHS[0], *BREATHS[2:])]
