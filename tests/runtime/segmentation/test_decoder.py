"""The decoder: frames in, cycles out; early, and final cycles are never revised, for any probabilities."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from msgspec.structs import replace

from edge_sdk.runtime.segmentation.decoder import DecodedCycle, DecoderParams, Floats, PhaseDecoder

FRAME_S = 0.02
STEP = 4


def probabilities(
    cycles: list[tuple[int, int]], frames: int, noise: float = 0.0, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Activity, onset and phases of cycles ``(begin, end)`` in frames; the phase changes in the middle."""
    rng = np.random.default_rng(seed)
    activity, onset, phase = np.full(frames, 0.1), np.full(frames, 0.03), np.full((3, frames), 0.1)
    phase[2] = 0.8
    for begin, end in cycles:
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
) -> list[tuple[int, DecodedCycle]]:
    """Every decoded cycle, with the number of frames received by then."""
    decoder = PhaseDecoder(FRAME_S, params, most_frames=STEP)
    activity, onset, phase = frames
    emitted = []
    for k in range(0, len(activity), STEP):
        part = slice(k, k + STEP)
        emitted += [(decoder.frames, b) for b in decoder.accept(activity[part], onset[part], phase[:, part])]
    return emitted + [(decoder.frames, b) for b in decoder.finish(cut=cut)]


def finals(emitted: list[tuple[int, DecodedCycle]]) -> list[DecodedCycle]:
    return [cycle for _, cycle in emitted if cycle.final]


CYCLES = [(20, 100), (130, 220), (220, 300), (340, 430)]


def test_the_start_of_a_stream_is_no_onset() -> None:
    """Without any input a network outputs a half-likely cycle: only a clear one may begin with the stream."""
    frames = probabilities([(40, 120), (150, 240)], 300)
    frames[0][:25] = 0.6
    permissive = DecoderParams(activity_bias=0.0, onset_cost=-1.0, duration_weight=0.1)
    careful = replace(permissive, early_cost=4.0)
    assert finals(decode(frames, permissive))[0].start == 0
    assert finals(decode(frames, careful))[0].start == pytest.approx(40, abs=1)
    frames[0][:25] = 0.95  # a cycle that began before the stream
    assert finals(decode(frames, careful))[0].start == 0


def test_clear_cycles_are_decoded_exactly() -> None:
    found = finals(decode(probabilities(CYCLES, 480)))
    assert [(b.start, b.end) for b in found] == [pytest.approx(b, abs=1) for b in CYCLES]
    assert all(b.confidence > 0.8 for b in found)
    for cycle, (begin, end) in zip(found, CYCLES, strict=True):
        assert cycle.phase_change == pytest.approx((begin + end) / 2, abs=1)


def test_an_onset_is_emitted_within_a_fifth_of_a_second() -> None:
    emitted = decode(probabilities(CYCLES, 480))
    first = [(at, b) for at, b in emitted if not b.final]
    assert [b.start for _, b in first] == [pytest.approx(begin, abs=1) for begin, _ in CYCLES]
    assert all(at - b.start <= 10 for at, b in first)


def test_a_final_cycle_is_emitted_soon_after_its_end() -> None:
    lag = round(DecoderParams().final_lag_s / FRAME_S)
    for at, cycle in decode(probabilities(CYCLES, 480)):
        if cycle.final:
            assert at - cycle.end <= lag + 2 * STEP


@pytest.mark.parametrize("seed", range(8))
def test_nothing_final_is_ever_revised(seed: int) -> None:
    """On any probabilities: in order, apart, of allowed lengths, and emitted after their end."""
    rng = np.random.default_rng(seed)
    smooth = np.ones(9) / 9
    activity, onset = (np.convolve(rng.random(1500) ** 2 * 1.8, smooth, "same").clip(0.001, 0.999) for _ in range(2))
    phase = rng.dirichlet((1, 1, 1), 1500).T
    emitted = decode((activity, onset, phase))
    found = finals(emitted)
    assert len(found) > 5
    assert all(a.end <= b.start for a, b in pairwise(found))
    p = DecoderParams()
    assert all(p.shortest_s - FRAME_S <= (b.end - b.start) * FRAME_S <= p.longest_s + FRAME_S for b in found)
    assert all(b.end <= at for at, b in emitted)
    for (at, cycle), (later, _) in pairwise(emitted):
        assert at <= later, cycle


def test_a_wrong_provisional_onset_is_withdrawn() -> None:
    """A click that looks like an onset, and nothing after it."""
    activity, onset, phase = probabilities([(200, 290)], 400)
    activity[60:68], onset[60] = 0.95, 0.99
    emitted = decode((activity, onset, phase), DecoderParams(announce_margin=0.1, withdraw_margin=0.5))
    assert [b.start for b in finals(emitted)] == [pytest.approx(200, abs=1)]
    first = [b.start for _, b in emitted if not b.final]
    assert first[-1] == pytest.approx(200, abs=1)


def test_silence_has_no_cycle() -> None:
    decoder = PhaseDecoder(FRAME_S, most_frames=STEP)
    quiet = probabilities([], STEP)
    for _ in range(5000):
        assert decoder.accept(*quiet) == []
    assert decoder.finish() == []


def test_the_open_cycle_ends_with_the_audio() -> None:
    found = finals(decode(probabilities([(20, 100), (130, 200)], 200)))
    assert found[-1].end == 200
    assert len(finals(decode(probabilities([(20, 100), (130, 140)], 140)))) == 1, "a stub is no cycle"
    assert len(finals(decode(probabilities([(20, 100), (105, 150)], 150), cut=True))) == 2


def test_noise_on_the_probabilities_does_not_split_cycles() -> None:
    found = finals(decode(probabilities(CYCLES, 480, noise=0.3)))
    assert len(found) == len(CYCLES)
    assert all(abs(f.start - begin) <= 4 for f, (begin, _) in zip(found, CYCLES, strict=True))


def test_cycles_of_any_rate_are_separated() -> None:
    for period in (43, 60, 100, 200, 375):  # 70 to 8 cycles a minute
        cycles = [(k, k + round(0.7 * period)) for k in range(10, 1500 - period, period)]
        found = finals(decode(probabilities(cycles, 1500)))
        assert len(found) == len(cycles)


def test_hours_leave_no_trace() -> None:
    """The scores are kept near zero: the same cycles are decoded after 100 000 frames."""
    once = probabilities(CYCLES, 480)
    fresh = [(b.start, b.end, b.confidence) for b in finals(decode(once))]
    decoder = PhaseDecoder(FRAME_S, most_frames=STEP)
    busy, found = probabilities(CYCLES, 480, noise=0.2), []
    for turn in range(209):
        frames = busy if turn < 208 else once
        for k in range(0, 480, STEP):
            part = slice(k, k + STEP)
            found += decoder.accept(frames[0][part], frames[1][part], frames[2][:, part])
    found += decoder.finish()
    last = [(b.start - 208 * 480, b.end - 208 * 480, b.confidence) for b in found if b.final][-4:]
    assert last == fresh


def test_reset_is_a_fresh_start() -> None:
    decoder, frames = PhaseDecoder(FRAME_S, most_frames=480), probabilities(CYCLES, 24)
    first = [*decoder.accept(*frames), *decoder.finish()]
    decoder.reset()
    assert [*decoder.accept(*frames), *decoder.finish()] == first


def test_a_step_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 frames"):
        PhaseDecoder(FRAME_S, most_frames=4).accept(*probabilities([], 5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activity": 1.0}, r"unknown keys \['activity'\]"),
        ({"onset_weight": "2"}, "onset_weight: Expected `float`"),
        ({"shortest_s": 9.0}, "shortest_s"),
        ({"announce_s": 0.0}, "announce_s"),
        ({"early_cost": -1.0}, "early_cost"),
        ({"early_s": 11.0}, "early_s"),
        ({"typical_s": 0}, "typical_s"),
        ({"spread": True}, "spread"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderParams.from_dict(values)


def test_cycles_of_low_activity_can_be_left_out() -> None:
    frames = probabilities(CYCLES, 480)
    frames[0][CYCLES[1][0] : CYCLES[1][1]] = 0.6
    assert len(finals(decode(frames))) == 4
    sure = finals(decode(frames, DecoderParams(least_confidence=0.75)))
    assert [b.start for b in sure] == [pytest.approx(begin, abs=1) for begin, _ in (CYCLES[0], *CYCLES[2:])]
