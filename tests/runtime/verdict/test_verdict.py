"""The verdict: adventitious sounds, join, thresholds, reasons; a pure function of the samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_sdk.events import Adventitious, AudioBlock, Event, Verdict
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.segmentation.factory import EnvelopeFactory
from edge_sdk.runtime.stream import Stream
from edge_sdk.runtime.verdict.adventitious import FrameEvent, SoundDetector, SoundParams
from edge_sdk.runtime.verdict.breath_sounds import either_logits
from edge_sdk.runtime.verdict.familiarity import FEATURES, FamiliarityParams, SpectrumSums
from edge_sdk.runtime.verdict.monitor import VerdictModel
from edge_sdk.runtime.verdict.params import VerdictParams, share_logit
from edge_sdk.signal.logmel import log_mel
from tests.runtime.conftest import phantom
from tests.support.tiny_verdict import tiny_sound_spec, write_tiny_sounds

RATE = 4000
Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VerdictModel:
    return VerdictModel(write_tiny_sounds(tmp_path_factory.mktemp("sounds")))


def stream_of(classifier: Classifier, model: VerdictModel | None, rate: int = RATE) -> Stream:
    return Stream(classifier, EnvelopeFactory(), QualityParams(), rate, verdict=model)


def events_of(stream: Stream, samples: Samples, sizes: int | None = None) -> list[Event]:
    events: list[Event] = []
    random, at = np.random.default_rng(3), 0
    while at < samples.size:
        size = int(random.integers(1, 5000)) if sizes is None else sizes
        events += stream.accept(samples[at : at + size])
        at += size
    return events + stream.finish()


def verdicts(events: list[Event]) -> list[Verdict]:
    return [event for event in events if isinstance(event, Verdict)]


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_any_block_size_gives_the_same_events(classifier: Classifier, model: VerdictModel, rate: int) -> None:
    samples = phantom("pneumonia", 12.0, rate).astype(np.float32)
    reference = events_of(stream_of(classifier, model, rate), samples, sizes=samples.size)
    assert sum(isinstance(event, Adventitious) for event in reference) > 3
    for sizes in (None, 37, 1024):
        assert events_of(stream_of(classifier, model, rate), samples, sizes) == reference


def test_running_verdicts_begin_at_six_usable_seconds_and_end_with_a_final_one(
    classifier: Classifier, model: VerdictModel
) -> None:
    found = verdicts(events_of(stream_of(classifier, model), phantom("asthma", 10.0).astype(np.float32)))
    *running, last = found
    assert last.final and not any(verdict.final for verdict in running)
    assert [math.floor(verdict.usable_s) for verdict in running] == [6, 7, 8, 9]
    assert running[0].at_s < 6.5  # what waits for the quality gate counts while it finds no fault
    assert last.at == 10 * RATE and last.usable_s == pytest.approx(10.0, abs=0.1)
    assert all(v.verdict != "uncertain" or v.reason is None for v in found)


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 44100])
def test_a_recording_of_just_the_least_audio_gets_an_answer(
    classifier: Classifier, model: VerdictModel, rate: int
) -> None:
    samples = phantom("asthma", 8.0, rate).astype(np.float32)
    for seconds, reason in ((6.0, None), (5.8, "too-little-audio")):
        (*_, last) = verdicts(events_of(stream_of(classifier, model, rate), samples[: round(seconds * rate)]))
        assert (last.final, last.reason) == (True, reason)


def test_a_running_verdict_takes_back_what_the_quality_gate_refuses_later(
    classifier: Classifier, model: VerdictModel
) -> None:
    breath = phantom("asthma", 6.5).astype(np.float32)
    events = events_of(stream_of(classifier, model), np.concatenate((breath, np.zeros(6 * RATE, np.float32))), 320)
    *running, last = verdicts(events)
    assert running[0].usable_s >= 6.0 and last.usable_s < 7.5


def test_without_a_verdict_model_no_such_events(classifier: Classifier) -> None:
    events = events_of(stream_of(classifier, None), phantom("asthma", 10.0).astype(np.float32))
    assert not [event for event in events if isinstance(event, Verdict | Adventitious)]


@pytest.mark.parametrize(
    ("seconds", "silence", "reason"),
    [(4.0, 0.0, "too-little-audio"), (5.0, 10.0, "poor-quality"), (7.0, 12.0, "poor-quality"), (9.0, 3.0, None)],
)
@pytest.mark.requirement("RES-3")
def test_too_little_usable_audio_gives_no_answer_and_the_reason(
    classifier: Classifier, model: VerdictModel, seconds: float, silence: float, reason: str | None
) -> None:
    breath = phantom("asthma", seconds).astype(np.float32)
    samples = np.concatenate((breath, np.zeros(round(silence * RATE), np.float32)))
    last = verdicts(events_of(stream_of(classifier, model), samples))[-1]
    assert last.reason == reason
    assert last.verdict == "uncertain" or reason is None
    assert last.usable_s == pytest.approx(seconds, abs=1.3)


def test_a_gap_restarts_the_network_and_keeps_the_evidence(classifier: Classifier, model: VerdictModel) -> None:
    samples = phantom("pneumonia", 16.0).astype(np.float32)
    stream, half, lost = stream_of(classifier, model), 8 * RATE, 1000
    events = list(stream.accept(AudioBlock(samples[:half], RATE, 0)))
    events += stream.accept(AudioBlock(samples[half:], RATE, half + lost, lost_before=lost))
    events += stream.finish()
    last = verdicts(events)[-1]
    assert last.usable_s == pytest.approx(16.0, abs=0.2) and last.at == samples.size + lost
    after = [event for event in events if isinstance(event, Adventitious) and event.onset >= half + lost]
    alone = stream_of(classifier, model)
    second = [e for e in [*alone.accept(samples[half:]), *alone.finish()] if isinstance(e, Adventitious)]
    assert [(e.onset - half - lost, e.end - half - lost, e.kind) for e in after] == [
        (e.onset, e.end, e.kind) for e in second
    ]
    within = [event for event in events if isinstance(event, Adventitious) and event.onset < half]
    assert within and all(event.end <= half for event in within)


@pytest.mark.requirement("RES-3")
def test_unfamiliar_audio_gets_no_answer(classifier: Classifier, model: VerdictModel) -> None:
    samples = phantom("asthma", 10.0).astype(np.float32)
    sums = SpectrumSums()
    sums.add(log_mel(samples, tiny_sound_spec()).T)
    whitening = tuple(tuple(row) for row in np.eye(FEATURES).tolist())
    near = FamiliarityParams(centres=(tuple(sums.features().tolist()),), whitening=whitening, farthest=1.0)
    far = FamiliarityParams(centres=(tuple((sums.features() + 1.0).tolist()),), whitening=whitening, farthest=1.0)
    reasons = []
    for params in (near, far):
        judge = VerdictModel(model.sounds, model.params, params)
        reasons.append(verdicts(events_of(stream_of(classifier, judge), samples))[-1].reason)
    assert reasons == [None, "unfamiliar"]


def test_the_distance_is_free_of_the_level() -> None:
    samples = phantom("asthma", 8.0).astype(np.float32)
    features = []
    for gain in (1.0, 0.25):
        sums = SpectrumSums()
        sums.add(log_mel((gain * samples).astype(np.float32), tiny_sound_spec()).T)
        features.append(sums.features())
    assert np.abs(features[0] - features[1]).max() < 0.2


# -- join and thresholds -----------------------------------------------------------------------------------------------


def test_the_join_works_when_either_evidence_is_missing() -> None:
    params = VerdictParams(both=(0.1, 0.5, 0.25, 0.2), network=(0.2, 1.0, 0.0, 0.0), cycles=(-0.3, 0.0, 2.0, 0.0))

    def expected(score: float) -> float:
        return 1.0 / (1.0 + math.exp(-score))

    assert params.probability(None, None, 9.0) is None
    assert params.probability(1.5, None, 9.0) == pytest.approx(expected(0.2 + 1.5))
    assert params.probability(None, 0.8, 9.0) == pytest.approx(expected(-0.3 + 2.0 * math.log(4.0)))
    joined = params.probability(1.5, 0.8, 18.0)
    assert joined == pytest.approx(expected(0.1 + 0.75 + 0.25 * math.log(4.0) + 0.2 * math.log(2.0)))
    assert params.probability(1e9, 1.0, 1e9) == pytest.approx(1.0)
    with_offsets = VerdictParams(network=(0.2, 1.0, 0.0, 0.0, 0.5, -0.5))
    found = [with_offsets.probability(1.5, None, 9.0, group) for group in (0, 1, 2)]
    assert found == pytest.approx([expected(2.2), expected(1.2), expected(1.7)])


def test_thresholds_follow_the_usable_seconds() -> None:
    params = VerdictParams(thresholds=((0.0, 0.2, 0.8), (9.0, 0.4, 0.6)))
    assert [params.answer(0.3, s) for s in (6.0, 8.9, 9.0, 60.0)] == ["uncertain", "uncertain", "normal", "normal"]
    assert [params.answer(p, 10.0) for p in (0.4, 0.59, 0.6)] == ["uncertain", "uncertain", "abnormal"]


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": ()},
        {"thresholds": ((9.0, 0.2, 0.8),)},
        {"thresholds": ((0.0, 0.8, 0.2),)},
        {"thresholds": ((6.0, 0.2, 0.8), (3.0, 0.2, 0.8))},
        {"error": 0.6},
        {"both": (0.0, 1.0, 1.0)},
        {"least_s": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="verdict"):
        VerdictParams(**changes)  # type: ignore[arg-type]


def test_the_logit_of_either_sound_is_that_of_independent_ones() -> None:
    for one, other in ((-2.0, 1.0), (0.0, 0.0), (-40.0, -41.0), (30.0, -5.0)):
        p, q = (1.0 / (1.0 + math.exp(-x)) for x in (one, other))
        either = p + q - p * q
        assert either_logits(np.array([one, other])) == pytest.approx(math.log(either) - math.log1p(-either), rel=1e-3)
    assert either_logits(np.array([-700.0, -700.0])) < -600.0 and math.isfinite(either_logits(np.array([300.0, 300.0])))
    assert share_logit(0.5) == 0.0 and math.isfinite(share_logit(0.0)) and math.isfinite(share_logit(1.0))


# -- events of sounds --------------------------------------------------------------------------------------------------


def detected(row: list[float], *, pieces: int = 100) -> list[FrameEvent]:
    detector = SoundDetector(SoundParams(crackle_from=0.6, keep_share=0.5, hold_s=0.08, least_s=0.08), 0.04)
    frames = np.array([row, [0.0] * len(row)], np.float32)
    events: list[FrameEvent] = []
    for at in range(0, len(row), pieces):
        events += detector.accept(at, frames[:, at : at + pieces])
    return events + detector.finish()


def test_a_sound_begins_above_one_threshold_and_goes_on_above_a_lower_one() -> None:
    row = [0.5, 0.5, 0.7, 0.4, 0.9, 0.35, 0.1, 0.1, 0.1, 0.5]
    assert detected(row) == [FrameEvent("crackle", 2, 6, 0.9)]
    assert detected(row, pieces=1) == detected(row, pieces=3) == detected(row)


def test_short_dips_are_bridged_and_short_sounds_are_not_reported() -> None:
    assert detected([0.7, 0.7, 0.0, 0.0, 0.7, 0.0, 0.0, 0.0]) == [FrameEvent("crackle", 0, 5, 0.7)]
    assert [e.begin for e in detected([0.7, 0.7, 0.0, 0.0, 0.0, 0.7, 0.7])] == [0, 5]
    assert detected([0.0, 0.7, 0.0, 0.0, 0.0, 0.0]) == []
    assert detected([0.0, 0.0, 0.7, 0.7]) == [FrameEvent("crackle", 2, 4, 0.7)]


def test_a_sound_without_an_end_is_reported_in_parts(tmp_path: Path) -> None:
    detector = SoundDetector(SoundParams(longest_s=1.0), 0.04)
    events = detector.accept(0, np.array([[0.9] * 60, [0.0] * 60], np.float32))
    assert [(e.begin, e.end) for e in events] == [(0, 25), (25, 50)]
