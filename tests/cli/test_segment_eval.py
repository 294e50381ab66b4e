"""``stetho segment-eval``: streams recordings, scores them, takes the lines of ``screen`` as well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.sources.phantom import PhantomSource
from tests.cli.conftest import RATE, Stetho
from tests.support.tiny_segmenter import write_tiny_segmenter

KEYS = {
    "n_true", "n_predicted", "event_f1", "event_f1_iou70", "onset_error_p50_s", "onset_error_p95_s",
    "detection_delay_p50_s", "detection_delay_p95_s", "revision_rate", "rate_mae_bpm", "event_f1_ci",
    "event_f1_ignoring_gaps", "missed_per_minute", "extra_per_minute", "end_to_end", "look_ahead_s",
    "onset_f1_200ms", "event_f1_phase_free", "event_f1_regional", "count_ratio", "rate_within_15pct", "rate_halved",
    "rate_doubled", "rate_bias_above_40_bpm", "rate_mae_8_to_80_bpm", "rate_bias_40_to_80_bpm", "rate_undefined",
    "rate_mae_confident_bpm", "rate_confident_fraction",
}  # fmt: skip
SCENARIOS = ("healthy", "asthma", "pneumonia")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated patients as a generic CSV."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = ["file,start_s,end_s,label,patient"]
    for scenario in SCENARIOS:
        with PhantomSource(scenario, seed=1_000_042, duration_s=20.0, sample_rate=RATE) as source:
            samples = np.concatenate([block.samples for block in source])
            truth = [t for t in source.truth if t.end <= samples.size]
        soundfile.write(folder / f"{scenario}.wav", samples, RATE)
        lines += [f"{scenario}.wav,{t.start_s},{t.end_s},{t.label},{scenario}" for t in truth]
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_it_scores_the_default_bundle(stetho: Stetho, corpus: Path) -> None:
    outcome = stetho("segment-eval", "default", "csv", corpus, "--json", "--bootstrap", 50)
    assert outcome.status == 0, outcome.err
    (report,) = outcome.records
    assert set(report) >= KEYS
    assert report["recordings"] == report["patients"] == 3
    assert report["event_f1"] >= 0.8 and report["onset_error_p50_s"] <= 0.2
    assert report["event_f1_ci"][0] <= report["event_f1"] <= report["event_f1_ci"][1]
    assert report["detection_delay_p50_s"] > 0
    assert 0.0 <= report["end_to_end"]["event_f1"] <= report["event_f1"]
    assert 0.0 <= report["annotated_cycles"]["score"] <= 1.0


def test_a_person_gets_a_table(stetho: Stetho, corpus: Path) -> None:
    outcome = stetho("segment-eval", "default", "csv", corpus, "--bootstrap", 0)
    assert outcome.status == 0
    assert "event F1, IoU ≥ 0.5" in outcome.out and "respiratory rate, mean error" in outcome.out
    assert "in annotated regions only" in outcome.out and "within 15 %" in outcome.out
    assert "0 of 3" in outcome.out  # recordings without a rate stay visible


def test_the_lines_of_screen_score_the_same(stetho: Stetho, corpus: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    recordings = [corpus.parent / f"{scenario}.wav" for scenario in SCENARIOS]
    lines.write_text(stetho("screen", *recordings, "--json").out)
    streamed = stetho("segment-eval", "default", "csv", corpus, "--json", "--bootstrap", 0).records[0]
    scored = stetho(
        "segment-eval", "default", "csv", corpus, "--json", "--bootstrap", 0, "--from-cycles", lines
    ).records[0]
    for key in ("n_true", "n_predicted", "event_f1", "event_f1_iou70"):
        assert scored[key] == streamed[key], key
    given, found = (record["end_to_end"] for record in (scored, streamed))
    assert given.pop("auroc_labelled") == pytest.approx(found.pop("auroc_labelled"), abs=1e-3)  # rounded in the lines
    assert given == found
    assert scored["rate_mae_bpm"] == pytest.approx(streamed["rate_mae_bpm"], abs=0.01)
    assert scored["detection_delay_p95_s"] is None and scored["look_ahead_s"] is None


def test_lines_that_miss_recordings_are_refused(stetho: Stetho, corpus: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text(stetho("screen", corpus.parent / "asthma.wav", "--json").out)
    arguments = ("segment-eval", "default", "csv", corpus, "--json", "--bootstrap", 0, "--from-cycles", lines)
    assert "2 of 3 annotated recordings" in stetho(*arguments).error
    assert stetho(*arguments, "--partial").records[0]["recordings"] == 1
    lines.write_text(json.dumps({"type": "cycle"}) + "\n")
    assert "line 1" in stetho(*arguments).error


def test_another_segmenter_can_be_tried(stetho: Stetho, corpus: Path, tmp_path: Path) -> None:
    graph = write_tiny_segmenter(tmp_path)
    arguments = ("segment-eval", "default", "csv", corpus, "--json", "--bootstrap", 0, "--segmenter")
    assert stetho(*arguments, graph).records[0]["segmenter"] == "learned"
    assert stetho(*arguments, "envelope").records[0]["segmenter"] == "envelope"
    assert "does not exist" in stetho(*arguments, tmp_path / "none.onnx").error


def test_a_corpus_without_breaths_is_refused(stetho: Stetho, corpus: Path, tmp_path: Path) -> None:
    table = tmp_path / "whole.csv"
    table.write_text(f"file,label,patient\n{corpus.parent / 'asthma.wav'},wheeze,a\n")
    assert "marks no breaths" in stetho("segment-eval", "default", "csv", table).error
