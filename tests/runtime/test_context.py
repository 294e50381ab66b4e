"""Recording context: what the decoder's setting does in a stream and in an evaluation, and where it starts anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import BundleError, EngineError
from edge_sdk.evaluation.model import load_model
from edge_sdk.evaluation.predict import predict
from edge_sdk.events import AudioBlock, CycleResult
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.context import RecordingContext, in_context
from tests.runtime.conftest import Samples, phantom
from tests.support.tiny_bundle import LABELS, write_tiny_bundle

RATE = 4000
SHARE = 0.4
DECODER = {"temperature": 2.0, "bias": [0.1, 0.0, -0.1, 0.0]}  # of the tiny bundle


@pytest.fixture(scope="module")
def in_context_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle of the fixture ``bundle``, its decoder with context."""
    decoder = Decoder(**DECODER, context=SHARE)  # type: ignore[arg-type]
    folder = write_tiny_bundle(tmp_path_factory.mktemp("context") / "tiny", decoder=decoder)
    return load_bundle(folder, allow_untrained=True)


def results(bundle: Bundle, samples: Samples, *, step: int = 800, lost_at: int | None = None) -> list[CycleResult]:
    """Results of all cycles; from sample ``lost_at`` on, 400 samples are missing from the stream's clock."""
    stream, events = bundle.stream(RATE), []
    for begin in range(0, samples.size, step):
        first = begin + (400 if lost_at is not None and begin >= lost_at else 0)
        events += stream.accept(AudioBlock(samples[begin : begin + step], RATE, first))
    return [event for event in (*events, *stream.finish()) if isinstance(event, CycleResult)]


def log_probabilities(found: list[CycleResult]) -> npt.NDArray[np.float64]:
    """``[n, C]`` of the classified cycles; blending logits blends these but for a constant a row."""
    return np.log([list(r.probabilities.values()) for r in found if r.label is not None])


def softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def by_hand(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities ``[n, C]`` of one recording in context, from the definition."""
    means = np.cumsum(scores, axis=0) / np.arange(1, len(scores) + 1)[:, None]
    return softmax((1 - SHARE) * scores + SHARE * means)


def test_a_stream_pulls_each_cycle_towards_the_mean_so_far(bundle: Bundle, in_context_bundle: Bundle) -> None:
    samples = phantom("copd", 30.0)
    alone, together = results(bundle, samples), results(in_context_bundle, samples)
    assert [r.cycle for r in alone] == [r.cycle for r in together]
    scores, found = log_probabilities(alone), np.exp(log_probabilities(together))
    assert len(scores) >= 5
    np.testing.assert_allclose(found, by_hand(scores), atol=1e-9)
    np.testing.assert_allclose(found[0], np.exp(scores[0]), atol=1e-9)  # the first has no one before it
    assert np.abs(found[1:] - np.exp(scores[1:])).max() > 1e-4


def test_blocks_of_any_size_give_the_same_probabilities(in_context_bundle: Bundle) -> None:
    samples = phantom("asthma", 20.0)
    coarse, fine = (results(in_context_bundle, samples, step=step) for step in (4000, 321))
    assert coarse == fine


def test_a_gap_and_a_new_stream_start_anew(bundle: Bundle, in_context_bundle: Bundle) -> None:
    samples, lost_at = phantom("copd", 40.0), 20 * RATE
    alone = results(bundle, samples, lost_at=lost_at)
    together = results(in_context_bundle, samples, lost_at=lost_at)
    scores, found = log_probabilities(alone), np.exp(log_probabilities(together))
    after = sum(r.label is not None and r.cycle.onset < lost_at for r in alone)
    assert 3 <= after <= len(scores) - 3
    np.testing.assert_allclose(found, np.concatenate([by_hand(scores[:after]), by_hand(scores[after:])]), atol=1e-9)
    assert results(in_context_bundle, samples, lost_at=lost_at) == together


def test_cycles_that_are_not_classified_are_no_part_of_the_mean(bundle: Bundle, in_context_bundle: Bundle) -> None:
    samples = phantom("copd", 30.0)

    def overloaded(used: Bundle) -> list[CycleResult]:
        stream, found = used.stream(RATE), []
        for begin in range(0, samples.size, 800):
            stream.skip_classification = 8 * RATE <= begin < 16 * RATE
            found += [e for e in stream.accept(samples[begin : begin + 800]) if isinstance(e, CycleResult)]
        return found

    alone, together = overloaded(bundle), overloaded(in_context_bundle)
    assert [r.quality for r in alone] == [r.quality for r in together]
    assert any(r.quality == "overload" for r in alone)
    np.testing.assert_allclose(np.exp(log_probabilities(together)), by_hand(log_probabilities(alone)), atol=1e-9)


def test_context_of_many_cycles_follows_time_within_each_recording() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 3))
    recordings, starts = ["b", "a", "b", "a", "b", "c", "a"], [2.0, 0.5, 0.0, 9.0, 1.0, 3.0, 1.0]
    found = in_context(logits, SHARE, recordings, starts)
    for name in "abc":
        rows = sorted((row for row in range(7) if recordings[row] == name), key=lambda row: starts[row])
        context = RecordingContext(SHARE)
        for row in rows:
            np.testing.assert_allclose(found[row], context(logits[row]))
    np.testing.assert_allclose(found[[2, 1, 5]], logits[[2, 1, 5]])  # the first of each
    np.testing.assert_allclose(found[0], 0.6 * logits[0] + 0.4 * logits[[2, 4, 0]].mean(0))
    assert in_context(logits, 0.0, recordings, starts) is logits


def test_an_evaluation_gives_each_annotated_cycle_the_context_of_its_recording(
    bundle: Bundle, in_context_bundle: Bundle, tmp_path: Path
) -> None:
    rows = ["file,start_s,end_s,label,patient"]
    for name, scenario in (("one", "copd"), ("two", "asthma")):
        soundfile.write(tmp_path / f"{name}.wav", phantom(scenario, 12.0), RATE)
        rows += [f"{name}.wav,{begin},{begin + 2},normal,{name}" for begin in (8, 0, 4, 2)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    corpus = load_corpus("csv", table)
    alone, together = predict(load_model(bundle), corpus), predict(load_model(in_context_bundle), corpus)
    starts = np.array([item["start_s"] for item in alone.items])
    of = np.array([item["recording"] for item in alone.items])
    for name in set(of.tolist()):
        rows_of = np.flatnonzero(of == name)
        rows_of = rows_of[np.argsort(starts[rows_of])]
        scores = np.log(alone.probabilities[rows_of])
        np.testing.assert_allclose(together.probabilities[rows_of], by_hand(scores), atol=1e-6)


@pytest.mark.parametrize("context", [-0.1, 1.0, 1.5, 4])
def test_a_context_out_of_range_is_refused(tmp_path: Path, context: float) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny", decoder=Decoder(**DECODER, context=context))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="context must lie from 0 to below 1"):
        load_bundle(folder, allow_untrained=True)


def test_a_bundle_without_context_does_not_name_it(bundle: Bundle, in_context_bundle: Bundle) -> None:
    assert bundle.manifest.decoder.context_share == 0.0
    assert '"context"' not in (bundle.path / "bundle.json").read_text("utf-8")  # so that older SDKs read it
    assert '"context": 0.4' in (in_context_bundle.path / "bundle.json").read_text("utf-8")


def test_logits_that_are_no_numbers_never_enter_the_mean(bundle: Bundle) -> None:
    class Broken:
        name = "broken"

        def run(self, inputs: object) -> dict[str, npt.NDArray[np.float32]]:
            return {"logits": np.full((1, len(LABELS)), np.nan, np.float32)}

    classifier = replace(bundle.classifier, decoder=Decoder(context=SHARE))
    context = classifier.new_context()
    samples = np.zeros(4000, np.float32)
    before = classifier.classify_cycle(samples, context=context)
    with pytest.raises(EngineError, match="NaN"):
        replace(classifier, engine=Broken()).classify_cycle(samples, context=context)  # type: ignore[arg-type]
    assert classifier.classify_cycle(samples, context=context).probabilities == pytest.approx(before.probabilities)
