"""Labels of breaths that join classifier and frames: the definition, in streams and evaluations; what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import BundleError
from edge_sdk.evaluation.cycle_sounds import recording_frames
from edge_sdk.evaluation.model import ModelUnderTest
from edge_sdk.evaluation.predict import predict
from edge_sdk.events import AudioBlock, CycleResult, Event, Verdict
from edge_sdk.runtime.bundle.load import load_bundle, read_manifest, write_bundle
from edge_sdk.runtime.classifier import Classifier
from edge_sdk.runtime.group import StreamGroup
from edge_sdk.runtime.quality import QualityParams
from edge_sdk.runtime.segmentation.factory import EnvelopeFactory
from edge_sdk.runtime.stream import Stream
from edge_sdk.runtime.verdict.breath_sounds import (
    BreathParams,
    RecentFrames,
    either_logits,
    frame_sums,
    joined,
    joined_scores,
)
from edge_sdk.runtime.verdict.monitor import VerdictModel
from tests.runtime.conftest import phantom
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_verdict import FILE, tiny_verdict_entry, write_tiny_sounds

RATE = 4000
JOIN = BreathParams(own=0.7, running=0.3, temperature=1.5, bias=(0.2, 0.0, -0.1, 0.0))


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


# -- the definition ----------------------------------------------------------------------------------------------------


def test_the_log_odds_of_abnormal_gain_the_weighted_logits_and_kinds_share_the_rest() -> None:
    probabilities = np.array([[0.5, 0.2, 0.25, 0.05]])
    own, running = np.array([[1.0, -2.0]]), np.array([[-1.0, 0.5]])
    (scores,) = joined_scores(probabilities, own, running, JOIN)
    either = [1 - (1 - sigmoid(c)) * (1 - sigmoid(w)) for c, w in (own[0], running[0])]
    gained = sum(w * math.log(p / (1 - p)) for w, p in zip((0.7, 0.3), either, strict=True))
    found = np.exp(scores)
    assert math.log(found[1:].sum() / found[0]) == pytest.approx(math.log(0.5 / 0.5) + gained)
    crackle, wheeze = 0.7 * 1.0 - 0.3 * 1.0, -0.7 * 2.0 + 0.3 * 0.5
    kinds = np.array([0.2 * math.exp(crackle), 0.25 * math.exp(wheeze), 0.05 * math.exp(crackle + wheeze)])
    np.testing.assert_allclose(found[1:] / found[1:].sum(), kinds / kinds.sum())
    after = np.exp(scores / 1.5 + np.array(JOIN.bias))
    np.testing.assert_allclose(joined(probabilities, own, running, JOIN)[0], after / after.sum())


def test_without_weights_the_classifier_decides_alone() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 20)
    own, running = np.random.default_rng(1).normal(0, 5, (2, 20, 2))
    np.testing.assert_allclose(joined(probabilities, own, running, BreathParams(0.0, 0.0)), probabilities)


def test_certain_probabilities_and_extreme_logits_stay_finite() -> None:
    probabilities = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for level in (-80.0, 80.0):
        found = joined(probabilities, np.full((2, 2), level), np.full((2, 2), -level), JOIN)
        assert np.isfinite(found).all() and found.sum(axis=1) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("values", [{"own": -0.1}, {"temperature": 0.0}, {"bias": [0.0] * 3}, {"weight": 1.0}])
def test_settings_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="breaths"):
        BreathParams.from_dict(values)


# -- frames ------------------------------------------------------------------------------------------------------------


def over(frames: RecentFrames, begin_s: float, end_s: float) -> npt.NDArray[np.float64]:
    found = frames.logits(begin_s, end_s)
    assert found is not None
    return found


def test_logits_over_a_span_are_means_of_its_frames_weighted_by_attention() -> None:
    random = np.random.default_rng(2)
    attention, clip = random.normal(0, 2, (2, 2, 40))
    weight = np.exp(attention[:, 10:26])
    expected = (weight * clip[:, 10:26]).sum(axis=1) / weight.sum(axis=1)
    for size in (40, 7, 1):  # of a step
        frames = RecentFrames(0.04)
        for begin in range(0, 40, size):
            part = slice(begin, begin + size)
            frames.add(begin, frame_sums(attention[:, part], clip[:, part]))
        np.testing.assert_allclose(over(frames, 0.4, 1.04), expected)  # frames 10 to 25: bounds of a frame are exact
        np.testing.assert_allclose(over(frames, 0.419, 1.001), expected)  # a frame that is touched counts
        np.testing.assert_allclose(over(frames, 1.58, 9.0), clip[:, 39])  # what is not there yet does not count
        assert frames.logits(1.6, 2.0) is None
        frames.clear()
        assert frames.logits(0.0, 1.0) is None


def test_only_so_many_steps_are_kept() -> None:
    frames = RecentFrames(0.04, steps=2)
    for first in (0, 5, 10):
        frames.add(first, frame_sums(np.zeros((2, 5)), np.full((2, 5), float(first))))
    assert frames.logits(0.0, 0.2) is None
    np.testing.assert_allclose(over(frames, 0.0, 0.6), [7.5, 7.5])


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VerdictModel:
    return VerdictModel(write_tiny_sounds(tmp_path_factory.mktemp("sounds"), threshold=10.0), breaths=JOIN)


def stream_of(classifier: Classifier, model: VerdictModel, rate: int = RATE, *, offline: bool = False) -> Stream:
    return Stream(classifier, EnvelopeFactory(), QualityParams(), rate, verdict=model, offline=offline)


def events_of(stream: Stream, samples: npt.NDArray[np.float32], step: int = 800) -> list[Event]:
    events = [e for begin in range(0, samples.size, step) for e in stream.accept(samples[begin : begin + step])]
    return events + stream.finish()


def labelled(events: list[Event]) -> list[CycleResult]:
    return [e for e in events if isinstance(e, CycleResult) and e.label is not None]


def alone(classifier: Classifier, model: VerdictModel, samples: npt.NDArray[np.float32]) -> list[Event]:
    return events_of(stream_of(classifier, replace(model, breaths=None)), samples)


def test_a_stream_joins_each_breath_with_its_frames(classifier: Classifier, model: VerdictModel) -> None:
    samples = phantom("pneumonia", 24.0).astype(np.float32)
    plain = labelled(alone(classifier, model, samples))
    found = labelled(events_of(stream_of(classifier, model), samples))
    assert len(found) >= 5 and [r.cycle for r in found] == [r.cycle for r in plain]
    frames = recording_frames(model, samples, RATE)
    for one, other in zip(plain[:-1], found[:-1], strict=True):  # the last is cut off before its last step
        assert one.label is not None and other.label is not None
        own = frames.logits(one.cycle.start_s, one.cycle.end_s)
        assert own is not None
        before, after = (np.array([list(r.probabilities.values())]) for r in (one, other))
        # The recording up to where the breath was labelled: from its end to a second later.
        runs = [frames.logits(0.0, one.cycle.end_s + k * 0.04) for k in range(30)]
        rows = [joined(before, own[None], run[None], JOIN)[0] for run in runs if run is not None]
        assert min(float(np.abs(row - after[0]).max()) for row in rows) < 1e-3
        assert other.label == max(other.probabilities, key=other.probabilities.__getitem__)
    moved = [abs(a.probabilities["normal"] - b.probabilities["normal"]) for a, b in zip(plain, found, strict=True)]
    assert max(moved) > 0.05


def test_the_verdict_is_that_of_classifier_and_network_apart(classifier: Classifier, model: VerdictModel) -> None:
    """Its join has the network's logit already; the frames must not count twice."""
    samples = phantom("pneumonia", 16.0).astype(np.float32)
    plain, found = (
        [e for e in events if isinstance(e, Verdict)]
        for events in (alone(classifier, model, samples), events_of(stream_of(classifier, model), samples))
    )
    assert plain == found


@pytest.mark.parametrize("rate", [4000, 44100])
def test_blocks_files_and_groups_give_the_same_labels(classifier: Classifier, model: VerdictModel, rate: int) -> None:
    samples = phantom("asthma", 16.0, rate).astype(np.float32)
    reference = events_of(stream_of(classifier, model, rate), samples, samples.size)
    assert len(labelled(reference)) >= 3
    for step in (37 * rate // 4000, 1024):
        assert events_of(stream_of(classifier, model, rate), samples, step) == reference
    stream, group, together = stream_of(classifier, model, rate), StreamGroup(), []
    for begin in range(0, samples.size, 4096):
        (found,) = group.accept([(stream, samples[begin : begin + 4096])])
        assert isinstance(found, list)
        together += found
    together += stream.finish()
    offline = events_of(stream_of(classifier, model, rate, offline=True), samples, 4096)
    for other in (together, offline):
        one, two = labelled(reference), labelled(other)
        assert [(r.cycle, r.label) for r in one] == [(r.cycle, r.label) for r in two]
        for a, b in zip(one, two, strict=True):
            assert list(a.probabilities.values()) == pytest.approx(list(b.probabilities.values()), abs=1e-6)


def test_after_a_gap_a_breath_has_frames_of_its_own(classifier: Classifier, model: VerdictModel) -> None:
    samples = phantom("copd", 32.0).astype(np.float32)
    stream, half = stream_of(classifier, model), 16 * RATE
    events = stream.accept(AudioBlock(samples[:half], RATE, 0))
    events += stream.accept(AudioBlock(samples[half:], RATE, half + 500, lost_before=500))
    after = [r for r in labelled(events + stream.finish()) if r.cycle.onset >= half + 500]
    second = labelled(events_of(stream_of(classifier, replace(model, breaths=BreathParams(1.0, 0.0))), samples[half:]))
    only_own = stream_of(classifier, replace(model, breaths=BreathParams(1.0, 0.0)))
    events = only_own.accept(AudioBlock(samples[:half], RATE, 0))
    events += only_own.accept(AudioBlock(samples[half:], RATE, half + 500, lost_before=500))
    same = [r for r in labelled(events + only_own.finish()) if r.cycle.onset >= half + 500]
    assert len(after) == len(same) == len(second) > 2
    for one, other in zip(same, second, strict=True):  # of the breath alone: nothing of before the gap is in it
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-6)


# -- evaluation --------------------------------------------------------------------------------------------------------


def test_an_evaluation_of_annotated_cycles_joins_them_as_a_stream_does(
    classifier: Classifier, model: VerdictModel, tmp_path: Path
) -> None:
    rows = ["file,start_s,end_s,label,patient"]
    samples = {name: phantom(name, 12.0).astype(np.float32) for name in ("copd", "asthma")}
    for name, pcm in samples.items():
        soundfile.write(tmp_path / f"{name}.wav", pcm, RATE, subtype="FLOAT")
        rows += [f"{name}.wav,{begin},{begin + 2},normal,{name}" for begin in (8, 0, 4, 2)]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    corpus = load_corpus("csv", tmp_path / "table.csv")
    plain, found = (
        predict(ModelUnderTest("m", "1", "onnx", classifier, verdict=verdict), corpus)
        for verdict in (replace(model, breaths=None), model)
    )
    for item, before, after, decision in zip(
        found.items, plain.probabilities, found.probabilities, found.decisions, strict=True
    ):
        frames = recording_frames(model, samples[item["patient"]], RATE)
        own, running = frames.logits(item["start_s"], item["end_s"]), frames.logits(0.0, item["end_s"])
        assert own is not None and running is not None
        expected = joined(before[None], own[None], running[None], JOIN)[0]
        np.testing.assert_allclose(after, expected, atol=1e-5)
        assert decision == expected.argmax()


# -- bundles -----------------------------------------------------------------------------------------------------------


def with_join(folder: Path, source: Path, join: dict[str, object]) -> Path:
    write_tiny_sounds(folder)
    entry = msgspec.structs.replace(tiny_verdict_entry(folder), breaths=join)
    manifest = msgspec.structs.replace(read_manifest(source), verdict=entry)
    files = {p.name: p.read_bytes() for p in source.iterdir() if p.name != "bundle.json"}
    write_bundle(folder / "bundle", manifest, files | {FILE: (folder / FILE).read_bytes()})
    return folder / "bundle"


def test_a_bundle_carries_the_join(tmp_path: Path) -> None:
    source = write_tiny_bundle(tmp_path / "tiny")
    bundle = load_bundle(with_join(tmp_path, source, JOIN.to_dict()), allow_untrained=True)
    assert bundle.verdict is not None and bundle.verdict.breaths == JOIN
    before = (source / "bundle.json").read_text("utf-8")
    assert '"breaths"' not in before  # what older SDKs read does not change


def test_a_join_that_cannot_be_is_refused(tmp_path: Path) -> None:
    source = write_tiny_bundle(tmp_path / "tiny")
    folder = with_join(tmp_path, source, {"own": -1.0})
    with pytest.raises(BundleError, match="breaths: own"):
        _ = load_bundle(folder, allow_untrained=True).verdict
    swapped = write_tiny_bundle(tmp_path / "swapped", labels=["normal", "wheeze", "crackle", "both"])
    (tmp_path / "other").mkdir()
    folder = with_join(tmp_path / "other", swapped, JOIN.to_dict())
    with pytest.raises(BundleError, match="breaths needs the labels normal, crackle, wheeze, both, not normal, wheeze"):
        load_bundle(folder, allow_untrained=True)


def test_logits_of_either_sound_of_many_rows() -> None:
    rows = np.array([[0.0, 0.0], [3.0, -3.0]])
    expected = [math.log(0.75 / 0.25), 3.0 + math.log(1 + (1 + math.exp(-3.0)) * math.exp(-3.0) / 1.0)]
    assert either_logits(rows)[0] == pytest.approx(expected[0])
    for row, value in zip(rows, either_logits(rows), strict=True):
        p = 1 - (1 - sigmoid(row[0])) * (1 - sigmoid(row[1]))
        assert value == pytest.approx(math.log(p / (1 - p)))
