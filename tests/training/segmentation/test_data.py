"""What a segmenter is trained on: annotated recordings, what their annotation is, and what lies beside them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.corpora import Corpus, Cycle, PhaseEvent, Recording
from edge_sdk.errors import CorpusError
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.data import (
    annotated_recordings,
    annotation_of,
    load_segment_data,
    steady,
)
from edge_sdk.training.segmentation.excerpts import Annotation, spans
from tests.support.tiny_segmentation import RATE, SPEC, hiss

SETTINGS = SegmentSection(cycle_corpus=None, clip_corpus=None, noise_corpus=None)


@pytest.fixture(autouse=True)
def _no_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STETHO_DATA", raising=False)


def _corpus(root: Path, cycles: list[tuple[float, float]], phases: tuple[PhaseEvent, ...] = ()) -> Corpus:
    """One recording with cycles, and one without."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in ("a", "b"):
        soundfile.write(root / f"{name}.wav", hiss(8.0, 0.5, 1.5)[0], RATE)
        rows.append(Recording("csv", name, root / f"{name}.wav", patient=f"p{name}", split="train", device="X"))
    path = root / "a.wav"
    marked = tuple(
        Cycle("a", "csv", path, "pa", index, begin, end, "normal", "normal", "train")
        for index, (begin, end) in enumerate(cycles)
    )
    return Corpus("csv", root, tuple(rows), cycles=marked, phases=phases)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([[(0.0, 2.0), (2.0, 4.1), (4.1, 6.0)]], Annotation.CYCLES),
        ([[(0.0, 2.0), (2.015, 4.1)], [(1.0, 2.0), (1.99, 3.0)]], Annotation.CYCLES),  # rounded to hundredths
        ([[(0.0, 1.0), (2.0, 3.1), (4.1, 5.0)]], Annotation.EVENTS),
        ([[(k, k + 1.0) for k in range(10)], [(0.0, 1.0), (1.5, 2.0), (2.5, 3.0)]], Annotation.EVENTS),  # 9 of 11 touch
        ([[(k, k + 1.0) for k in range(20)], [(0.0, 1.0), (1.5, 2.0)]], Annotation.CYCLES),  # 19 of 20 do
        ([[(0.0, 1.0)], [(3.0, 4.0)]], Annotation.EVENTS),  # nothing shows that they are true cycles
        ([], Annotation.EVENTS),
    ],
)
def test_cycles_that_tile_their_recordings_are_true_ones(
    rows: list[list[tuple[float, float]]], kind: Annotation
) -> None:
    assert annotation_of([spans(row) for row in rows]) is kind


def test_recordings_hold_their_frames_annotation_and_device(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, [(2.0, 3.5), (0.5, 2.0), (3.5, 5.0), (5.0, 5.05)])
    one, other = annotated_recordings(corpus, SPEC, SETTINGS, cache=tmp_path / "cache")
    assert (one.name, one.patient, one.group, one.rate_hz) == ("a", "pa", "X", RATE)
    assert one.samples == 8 * RATE and one.duration_s == 8.0
    assert one.excerpt.frames.shape == (SPEC.frames_of(8 * RATE), SPEC.mel_bins)
    np.testing.assert_allclose(one.excerpt.truth.cycles, [(0.5, 2.0), (2.0, 3.5), (3.5, 5.0)])  # in order, no slips
    assert one.excerpt.truth.kind is Annotation.CYCLES and len(one.labels) == 3
    assert other.excerpt.truth.kind is Annotation.NONE and other.excerpt.truth.weight == SETTINGS.poor_weight


def test_phases_are_read_where_a_corpus_gives_them(tmp_path: Path) -> None:
    phases = (
        PhaseEvent("a", 0.9, 1.5, "expiration"),
        PhaseEvent("a", 0.5, 0.9, "inspiration"),
    )
    one, _ = annotated_recordings(_corpus(tmp_path, [(0.5, 1.5)], phases), SPEC, SETTINGS, cache=tmp_path / "cache")
    np.testing.assert_allclose(one.excerpt.truth.inspirations, [(0.5, 0.9)])
    np.testing.assert_allclose(one.excerpt.truth.expirations, [(0.9, 1.5)])


def test_noise_is_kept_by_its_kind(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "corpus", [(0.5, 1.5)])
    for kind, count in (("rain", 2), ("crying_baby", 1)):
        (tmp_path / "noise" / kind).mkdir(parents=True)
        for k in range(count):
            soundfile.write(tmp_path / "noise" / kind / f"{k}.wav", hiss(2.0, 0.5, 1.5, seed=k)[0], RATE)
    settings = SegmentSection(cycle_corpus=None, clip_corpus=None)
    data = load_segment_data(corpus, SPEC, settings, heart_corpus=None, cache=tmp_path / "cache")
    assert {kind: len(waves) for kind, waves in data.noise.items()} == {"rain": 2, "crying_baby": 1}
    assert steady("rain") and not steady("crying_baby")
    assert [r.name for r in data.recordings] == ["a"] and [r.name for r in data.poor] == ["b"]
    assert data.patients == ("pa", "pb") and data.of_patients(["pb"]).recordings == ()
    (tmp_path / "empty" / "noise").mkdir(parents=True)
    with pytest.raises(CorpusError, match="no recordings in the folders"):
        load_segment_data(
            replace(corpus, root=tmp_path / "empty" / "corpus"), SPEC, settings, heart_corpus=None, cache=tmp_path
        )


def test_true_cycles_of_another_corpus_join_as_other_patients(tmp_path: Path) -> None:
    """ICBHI lies beside the corpus; only its training split is read, and equal names stay apart."""
    folder = tmp_path / "icbhi"
    folder.mkdir()
    sides = {"101": "train", "102": "test"}
    for patient in sides:
        stem = f"{patient}_1b1_Al_sc_Meditron"
        soundfile.write(folder / f"{stem}.wav", hiss(8.0, 0.5, 1.5)[0], RATE)
        (folder / f"{stem}.txt").write_text("0.5\t2.0\t0\t0\n2.0\t3.5\t0\t1\n3.5\t5.0\t0\t0\n")
    lines = [f"{patient}_1b1_Al_sc_Meditron\t{side}\n" for patient, side in sides.items()]
    (folder / "ICBHI_challenge_train_test.txt").write_text("".join(lines))
    corpus = _corpus(tmp_path / "corpus", [(0.5, 1.5), (2.0, 3.0)])
    settings = SegmentSection(clip_corpus=None, noise_corpus=None)
    data = load_segment_data(corpus, SPEC, settings, heart_corpus=None, split="train", cache=tmp_path / "cache")
    kinds = {r.patient: r.excerpt.truth.kind for r in data.recordings}
    assert kinds == {"pa": Annotation.EVENTS, "icbhi/101": Annotation.CYCLES}
    assert data.recordings[1].name == "icbhi/101_1b1_Al_sc_Meditron"
    assert data.recordings[1].labels == ("normal", "wheeze", "normal")


@pytest.mark.parametrize("entry", ["nothing", "icbhi=elsewhere"])
def test_more_corpora_need_a_folder(tmp_path: Path, entry: str) -> None:
    settings = SegmentSection(cycle_corpus=None, clip_corpus=None, noise_corpus=None, extra=(entry,))
    with pytest.raises(CorpusError, match="does not exist; set STETHO_DATA"):
        load_segment_data(_corpus(tmp_path, [(0.5, 1.5)]), SPEC, settings, heart_corpus=None, cache=tmp_path / "cache")


def test_a_corpus_without_cycles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no annotated cycles"):
        load_segment_data(_corpus(tmp_path, []), SPEC, SETTINGS, heart_corpus=None, cache=tmp_path / "cache")


def test_clips_of_the_other_patients_are_kept_for_the_phase_accuracy(tmp_path: Path) -> None:
    folder = tmp_path / "hf_lung_phase_clips"
    folder.mkdir()
    rows = []
    for k, (phase, split) in enumerate([("I", "train"), ("E", "train"), ("I", "val")]):
        soundfile.write(folder / f"rec_{k}.wav", hiss(1.0, 0.4, 0.5)[0], RATE)
        rows.append((f"rec_{k}.wav", "rec", f"2020-0{k + 1}", phase, split))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "recording", "date_group", "phase", "split"), *rows])
    settings = SegmentSection(cycle_corpus=None, noise_corpus=None)
    data = load_segment_data(
        _corpus(tmp_path / "corpus", [(0.5, 1.5)]), SPEC, settings, heart_corpus=None, cache=tmp_path / "cache"
    )
    assert data.clips is not None and data.clips.phases == ["I", "E"]
    assert data.held_out_clips is not None and data.held_out_clips.phases == ["I"]
