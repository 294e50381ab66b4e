"""The decoder: frames in, cycles out; early, and final cycles are never revised, for any outputs of the network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edge_sdk.runtime.segmentation.decoder import DecodedCycle, Floats, TempoDecoder
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.runtime.segmentation.outputs import StepOutputs, from_rows

FRAME_S = 0.04
STEP = 2
Frames = tuple[Floats, Floats, Floats, Floats]


def outputs(cycles: list[tuple[int, int]], frames: int, noise: float = 0.0, seed: int = 0) -> Frames:
    """Activity, onset, phases and angles of cycles ``(begin, end)`` in frames; the phase changes in the middle."""
    rng = np.random.default_rng(seed)
    activity, onset, phase = np.full(frames, 0.1), np.full(frames, 0.03), np.full((3, frames), 0.1)
    angle = np.zeros((2, frames))
    phase[2] = 0.8
    for begin, end in cycles:
        activity[begin:end] = 0.9
        for k in range(max(0, begin - 2), min(frames, begin + 3)):
            onset[k] = max(onset[k], 0.9 * (1 - abs(k - begin) / 3))
        middle = (begin + end) // 2
        phase[:, begin:middle] = np.array([[0.8], [0.15], [0.05]])
        phase[:, middle:end] = np.array([[0.15], [0.8], [0.05]])
        turn = 2 * np.pi * (np.arange(end - begin) + 0.5) / (end - begin)
        angle[:, begin:end] = 0.7 * np.stack((np.cos(turn), np.sin(turn)))[:, : max(0, frames - begin)]
    if noise:
        activity = np.clip(activity + rng.normal(0, noise, frames), 0.01, 0.99)
        onset = np.clip(onset + rng.normal(0, noise / 3, frames), 0.01, 0.99)
        angle = angle + rng.normal(0, noise, angle.shape)
    return activity, onset, phase, angle


def decode(frames: Frames, params: DecoderParams | None = None, *, cut: bool = False) -> list[tuple[int, DecodedCycle]]:
    """Every decoded cycle, with the number of frames received by then."""
    decoder = TempoDecoder(FRAME_S, params)
    emitted = []
    for k in range(0, len(frames[0]), STEP):
        emitted += [(decoder.frames, b) for b in decoder.accept(*(row[..., k : k + STEP] for row in frames))]
    return emitted + [(decoder.frames, b) for b in decoder.finish(cut=cut)]


def finals(emitted: list[tuple[int, DecodedCycle]]) -> list[DecodedCycle]:
    return [cycle for _, cycle in emitted if cycle.final]


CYCLES = [(20, 60), (60, 105), (105, 145), (145, 190)]


def near(begin: int, frames: int = 2) -> object:
    return pytest.approx(begin, abs=frames)


def test_clear_cycles_are_decoded_exactly() -> None:
    found = finals(decode(outputs(CYCLES, 240)))
    assert [(b.start, b.end) for b in found] == [(near(begin), near(end, 3)) for begin, end in CYCLES]
    assert all(b.confidence > 0.7 for b in found)
    for cycle, (begin, end) in zip(found, CYCLES, strict=True):
        assert cycle.phase_change == near((begin + end) // 2, 1)


def test_pauses_are_no_part_of_a_cycle_and_keep_the_tempo() -> None:
    """Pauses of half a cycle up to several; the rate is neither halved nor doubled."""
    for pause in (20, 45, 130):
        cycles = [(k, k + 40) for k in range(30, 900, 40 + pause)]
        found = finals(decode(outputs(cycles, 980)))
        assert [b.start for b in found] == [near(begin) for begin, _ in cycles], pause
        assert all(abs(b.end - b.start - 40) <= 6 for b in found)


def test_an_apnoea_is_not_filled() -> None:
    cycles = [(k, k + 50) for k in range(20, 270, 50)] + [(k, k + 50) for k in range(620, 870, 50)]
    found = finals(decode(outputs(cycles, 900)))
    assert len(found) == len(cycles)
    assert not [b for b in found if b.end > 290 and b.start < 600]


def test_an_onset_is_emitted_within_a_fifth_of_a_second() -> None:
    emitted = decode(outputs(CYCLES, 240))
    first = [(at, b) for at, b in emitted if not b.final]
    assert [b.start for _, b in first] == [near(begin) for begin, _ in CYCLES]
    assert all(at - b.start <= 5 for at, b in first[1:])


def test_a_final_cycle_is_emitted_soon_after_its_end() -> None:
    lag = round(DecoderParams().final_lag_s / FRAME_S)
    for at, cycle in decode(outputs(CYCLES, 240)):
        if cycle.final:
            assert at - cycle.end <= lag + 2 * STEP


@pytest.mark.parametrize("seed", range(3))
def test_a_blended_onset_is_nearer_to_the_truth(seed: int) -> None:
    """Broad onsets under noise: the best path takes the highest frame, the blend the mean of the paths around it."""
    edges = np.arange(20, 1470, 45)
    frames = outputs(list(pairwise(edges.tolist())), 1500, noise=0.2, seed=seed)
    broad = np.where(np.abs(np.arange(1500)[:, None] - edges).min(axis=1) < 6, 0.6, 0.05)
    frames[1][:] = (broad + np.random.default_rng(seed).uniform(-0.15, 0.15, 1500)).clip(0.01, 0.99)

    def error(blend_s: float) -> float:
        found = finals(decode(frames, DecoderParams(blend_s=blend_s, withdraw_margin=1.4)))
        return float(np.sqrt(np.mean([np.abs(edges - b.start).min() ** 2 for b in found])))

    assert error(0.2) < 0.95 * error(0.0)


def test_blending_leaves_clear_cycles_as_they_are() -> None:
    found = finals(decode(outputs(CYCLES, 240), DecoderParams(blend_s=0.2)))
    assert [(b.start, b.end) for b in found] == [(near(begin), near(end, 3)) for begin, end in CYCLES]


@pytest.mark.parametrize("blend_s", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(8))
def test_nothing_final_is_ever_revised(seed: int, blend_s: float) -> None:
    """On any outputs: in order, apart, no longer than allowed, and emitted after their end."""
    rng = np.random.default_rng(seed)
    smooth = np.ones(5) / 5
    activity, onset = (np.convolve(rng.random(1500) ** 2 * 1.8, smooth, "same").clip(0.001, 0.999) for _ in range(2))
    phase, angle = rng.dirichlet((1, 1, 1), 1500).T, rng.normal(0, 0.6, (2, 1500))
    emitted = decode((activity, onset, phase, angle), DecoderParams(blend_s=blend_s))
    found = finals(emitted)
    assert len(found) > 5
    assert all(a.end <= b.start for a, b in pairwise(found))
    p = DecoderParams()
    least = p.least_share * p.shortest_s
    least -= 2 * blend_s  # both ends move
    assert all(max(least, FRAME_S) - FRAME_S <= (b.end - b.start) * FRAME_S <= p.longest_s + FRAME_S for b in found)
    assert all(b.end <= at for at, b in emitted)
    for (at, cycle), (later, _) in pairwise(emitted):
        assert at <= later, cycle


def test_a_wrong_provisional_onset_is_withdrawn() -> None:
    """A click that looks like an onset, and nothing after it."""
    frames = outputs([(100, 145), (145, 190)], 240)
    frames[0][30:34], frames[1][30] = 0.95, 0.99
    emitted = decode(frames, DecoderParams(announce_margin=0.1, withdraw_margin=0.5))
    assert [b.start for b in finals(emitted)][-2:] == [near(100), near(145)]
    assert [b.start for _, b in emitted if not b.final][-1] == near(145)


def test_silence_has_no_cycle() -> None:
    decoder = TempoDecoder(FRAME_S)
    quiet = outputs([], STEP)
    for _ in range(5000):
        assert decoder.accept(*quiet) == []
    assert decoder.finish() == []


def test_the_open_cycle_ends_with_the_audio() -> None:
    found = finals(decode(outputs([(20, 60), (60, 100)], 95)))
    assert found[-1].end == 95
    assert len(finals(decode(outputs([(20, 60), (60, 66)], 66)))) == 1, "a stub is no cycle"
    assert len(finals(decode(outputs([(20, 60), (60, 72)], 72), cut=True))) == 2


def test_noise_on_the_outputs_does_not_split_cycles() -> None:
    found = finals(decode(outputs(CYCLES, 240, noise=0.3)))
    assert len(found) == len(CYCLES)
    assert all(abs(f.start - begin) <= 3 for f, (begin, _) in zip(found, CYCLES, strict=True))


@pytest.mark.parametrize("per_minute", [8, 12, 20, 35, 50, 80])
def test_cycles_of_any_rate_are_separated(per_minute: int) -> None:
    period = 60.0 / per_minute / FRAME_S
    edges = [round(10 + k * period) for k in range(int(1500 / period))]
    found = finals(decode(outputs(list(pairwise(edges)), edges[-1])))
    assert [b.start for b in found] == [near(begin, max(3, round(0.05 * period))) for begin in edges[:-1]]


def test_a_rate_that_changes_is_followed() -> None:
    edges = [20]
    while edges[-1] < 1500:
        edges.append(edges[-1] + round(75 - 55 * edges[-1] / 1500))
    found = finals(decode(outputs(list(pairwise(edges)), edges[-1])))
    assert [b.start for b in found] == [near(begin, 3) for begin in edges[:-1]]


def test_hours_leave_no_trace() -> None:
    """The scores are kept near zero: the same cycles are decoded after 100 000 frames."""
    once = outputs(CYCLES, 240)
    busy = outputs(CYCLES, 240, noise=0.2)
    decoder, found = TempoDecoder(FRAME_S), []
    for turn in range(420):
        frames = busy if turn < 418 else once
        for k in range(0, 240, STEP):
            found += decoder.accept(*(row[..., k : k + STEP] for row in frames))
    found += decoder.finish()
    last = [
        [(b.start - 240 * turn, b.end - 240 * turn, b.confidence) for b in found if b.final and b.start // 240 == turn]
        for turn in (418, 419)
    ]
    assert last[0] == last[1]
    assert [start for start, _, _ in last[1]] == [near(begin) for begin, _ in CYCLES]


@pytest.mark.parametrize("seed", [18, 46, 64])
def test_breathing_after_half_a_minute_without_any_is_decoded(seed: int) -> None:
    """After irregular breathing some paths end late; what they remember of it is older than the memory of begins."""
    rng, frames, quiet = np.random.default_rng(seed), 1300, slice(200, 1000)

    def smooth(width: int) -> Floats:
        return np.convolve(rng.standard_normal(frames), np.ones(width) / np.sqrt(width), "same")

    activity, onset = 1 / (1 + np.exp(-2 * smooth(20))), 1 / (1 + np.exp(2 - 3 * smooth(3)))
    angle = np.cumsum(2 * np.pi / np.clip(40 + 30 * smooth(60), 12, 200))
    cycle = 0.6 * np.stack((np.cos(angle), np.sin(angle)))
    activity[quiet], onset[quiet], cycle[:, quiet] = 0.01, 0.001, 0
    found = finals(decode((activity, onset, np.full((3, frames), 1 / 3), cycle)))
    assert all(earlier.end <= later.start for earlier, later in pairwise(found))
    assert any(cycle.end <= 230 for cycle in found)
    assert any(cycle.start >= 990 for cycle in found)
    assert not any(230 < cycle.start < 970 for cycle in found)


def test_streams_decoded_together_have_the_cycles_of_each_alone() -> None:
    """Each at another frame, so that the scores of each are rescaled at another time."""
    frames = [outputs(CYCLES, 700, noise=0.2, seed=seed) for seed in range(5)]
    together, alone = ([TempoDecoder(FRAME_S) for _ in frames] for _ in range(2))
    for k, (one, other, own) in enumerate(zip(together, alone, frames, strict=True)):
        for decoder in (one, other):
            decoder.accept(*(row[..., : 3 * k] for row in own))
    cycles = 0
    for at in range(0, 600, STEP):
        parts = [tuple(row[..., 3 * k + at : 3 * k + at + STEP] for row in own) for k, own in enumerate(frames)]
        joined = [k for k, decoder in enumerate(together) if decoder.joins(together[0], STEP)]
        steps = StepOutputs(
            *(np.concatenate(rows) for rows in zip(*(from_rows(*parts[k]) for k in joined), strict=True))
        )
        found = dict(zip(joined, TempoDecoder.accept_together([together[k] for k in joined], STEP, steps), strict=True))
        for k, part in enumerate(parts):
            if k not in found:
                found[k] = together[k].accept(*part)
            expected = alone[k].accept(*part)
            assert found[k] == expected
            cycles += len(expected)
    assert cycles > 5 * len(CYCLES)


def test_reset_is_a_fresh_start() -> None:
    decoder, frames = TempoDecoder(FRAME_S), outputs(CYCLES, 110)
    first = [*decoder.accept(*frames), *decoder.finish()]
    assert first
    decoder.reset()
    assert [*decoder.accept(*frames), *decoder.finish()] == first


def test_the_audible_span_lies_in_the_cycle() -> None:
    frames = outputs(CYCLES, 240)
    for begin, end in CYCLES:
        frames[0][end - 12 : end] = 0.05
        frames[0][begin : begin + 3] = 0.05
    for cycle, (begin, end) in zip(finals(decode(frames)), CYCLES, strict=True):
        assert cycle.audible == (begin + 3, end - 12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"activity": 1.0}, r"unknown keys \['activity'\]"),
        ({"onset_weight": "2"}, "onset_weight: Expected `float`"),
        ({"shortest_s": 9.0}, "shortest_s"),
        ({"announce_s": 0.0}, "announce_s"),
        ({"pause_cost": -1.0}, "pause_cost"),
        ({"least_share": 1.5}, "least_share"),
        ({"typical_s": 0}, "typical_s"),
        ({"tempo_spread": True}, "tempo_spread"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderParams.from_dict(values)


def test_cycles_of_low_confidence_can_be_left_out() -> None:
    frames = outputs(CYCLES, 240)
    frames[0][CYCLES[1][0] : CYCLES[1][1]] = 0.5
    frames[3][:, CYCLES[1][0] : CYCLES[1][1]] *= 0.4
    assert len(finals(decode(frames))) == 4
    sure = finals(decode(frames, DecoderParams(least_confidence=0.6)))
    assert [b.start for b in sure] == [near(begin) for begin, _ in (CYCLES[0], *CYCLES[2:])]
