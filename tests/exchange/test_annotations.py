"""Annotations go to the formats of other tools and come back: times to a sample or 1 ms, labels equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_sdk
from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.formats import ANNOTATION_FORMATS, read_annotations
from edge_sdk.exchange.examination import ExaminedRecording, load_examination, recording_of
from edge_sdk.exchange.spans import CycleSpan, GapSpan, SoundSpan, Span

ONLY_CYCLES = ("icbhi", "sprsound")
EVERYTHING = ("csv", "jsonl")
TYPES = ("Normal", "Fine Crackle", "Coarse Crackle", "Wheeze", "Rhonchi", "Stridor", "Wheeze+Crackle")


def round_trip(recording: ExaminedRecording, form: str, folder: Path) -> ExaminedRecording:
    row = ANNOTATION_FORMATS[form]
    path = folder / f"{recording.name}{row.suffix}"
    path.write_text(row.write([recording]).text, "utf-8")
    found, _ = read_annotations(path, form)
    if form == "csv" and not recording.spans:  # has rows of spans only
        assert found == []
        return recording
    (back,) = found
    return back


def kept(recording: ExaminedRecording, form: str) -> Sequence[Span]:
    spans = recording.spans
    if form in ONLY_CYCLES:
        return [span for span in spans if isinstance(span, CycleSpan) and span.label is not None]
    return spans


def identity(span: Span) -> tuple[object, ...]:
    if isinstance(span, CycleSpan):
        return "cycle", span.label, "" if span.label else span.quality
    if isinstance(span, SoundSpan):
        return "sound", span.kind
    return "gap", span.lost_samples if isinstance(span, GapSpan) else span


def assert_same(recording: ExaminedRecording, back: ExaminedRecording, form: str) -> None:
    limit_s = 0.0005001 if form == "sprsound" else 0.00005001 if form == "icbhi" else 0.0000005001
    spans = sorted(kept(recording, form), key=lambda span: (span.start_s, span.end_s, str(identity(span))))
    returned = sorted(back.spans, key=lambda span: (round(span.start_s, 4), round(span.end_s, 4), str(identity(span))))
    assert len(spans) == len(returned), form
    for before, after in zip(spans, returned, strict=True):
        assert identity(before) == identity(after), form
        assert abs(before.start_s - after.start_s) <= limit_s, form
        assert abs(before.end_s - after.end_s) <= limit_s, form
        if form in EVERYTHING:
            assert before == after


def annotated_recordings(data_root: Path) -> list[tuple[Path, str]]:
    files = [(path, "icbhi") for path in sorted((data_root / "icbhi").glob("[0-9]*.txt"))]
    return files + [(path, "sprsound") for path in sorted((data_root / "sprsound" / "train_json").glob("*.json"))]


@pytest.fixture(scope="module")
def screened(kauh_file: Path) -> ExaminedRecording:
    recording = recording_of(edge_sdk.screen(kauh_file).records, audio=kauh_file)
    (first, *rest) = recording.cycles
    assert rest
    return replace(
        recording,
        cycles=(first, replace(rest[0], label=None, quality="noisy"), *rest[1:]),
        sounds=(*recording.sounds, SoundSpan(1.0, 1.0, "crackle", 0.5), SoundSpan(1.0, 2.25, "wheeze", 0.75)),
        gaps=(GapSpan(3.0, 3.25, 1000),),
    )


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_results_come_back_from_each_format(screened: ExaminedRecording, form: str, tmp_path: Path) -> None:
    written = ANNOTATION_FORMATS[form].write([screened])
    assert_same(screened, round_trip(screened, form, tmp_path), form)
    lost = " ".join(written.notes)
    assert ("probabilities" in lost) == (form not in EVERYTHING)
    assert ("without a label are left out" in lost) == (form in ONLY_CYCLES)
    assert ("1 gaps are left out" in lost) == (form in ONLY_CYCLES)


@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_published_annotations_come_back_from_each_format(form: str, data_root: Path, tmp_path: Path) -> None:
    files = annotated_recordings(data_root)
    for path, own in files[:3] + files[-3:]:
        (recording,), _ = read_annotations(path, own)
        assert recording.cycles
        assert_same(recording, round_trip(recording, form, tmp_path), form)


@pytest.mark.long
@pytest.mark.parametrize("form", ANNOTATION_FORMATS)
def test_annotations_of_two_hundred_recordings_come_back(form: str, data_root: Path, tmp_path: Path) -> None:
    files = annotated_recordings(data_root)
    chosen = files[: len(files) : max(1, len(files) // 200)]
    assert len(chosen) >= 200
    for path, own in chosen:
        (recording,), _ = read_annotations(path, own)
        assert_same(recording, round_trip(recording, form, tmp_path), form)
        if form == own == "sprsound":
            before, after = json.loads(path.read_text("utf-8")), json.loads((tmp_path / path.name).read_text("utf-8"))
            assert after["record_annotation"] == before["record_annotation"]
            events = sorted(before["event_annotation"], key=lambda e: (float(e["start"]), float(e["end"])))
            assert [event["type"] for event in after["event_annotation"]] == [event["type"] for event in events]


spans = st.tuples(st.integers(0, 600_000), st.integers(1, 60_000), st.sampled_from(TYPES))


@settings(max_examples=15)
@given(st.lists(spans, min_size=1, max_size=8))
def test_any_cycles_come_back_even_where_they_overlap(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, str]]
) -> None:

    content = [{"start": str(s), "end": str(s + n), "type": kind} for s, n, kind in drawn]
    path = tmp_path_factory.mktemp("drawn") / "child.json"
    path.write_text(json.dumps({"record_annotation": "Normal", "event_annotation": content}), "utf-8")
    (recording,), _ = read_annotations(path, "sprsound")
    assert len(recording.cycles) == len(drawn)
    for form in ANNOTATION_FORMATS:
        assert_same(recording, round_trip(recording, form, path.parent), form)


HAND_EDITED = (
    "\ufeff3,250000\t4,100000\tWheezes\r\n"
    "\\\t150,0\t1200,0\r\n"
    "0,500000\t1,750000\tcrackle \r\n"
    "\r\n"
    "1,750000\t3,250000\r\n"
    "4.1\t5\tCrackles and wheezes\r\n"
    "5\t5\tsound: crackle"
)


def test_a_label_track_edited_by_hand_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "visit.txt"
    path.write_text(HAND_EDITED, "utf-8", newline="")
    (recording,), notes = read_annotations(path, "audacity")
    assert [(c.start_s, c.end_s, c.label) for c in recording.cycles] == [
        (0.5, 1.75, "crackle"),
        (1.75, 3.25, None),
        (3.25, 4.1, "wheeze"),
        (4.1, 5.0, "both"),
    ]
    assert recording.sounds == (SoundSpan(5.0, 5.0, "crackle"),)
    assert notes == ["1 frequency ranges were left out"]
    for form in ANNOTATION_FORMATS:
        assert_same(recording, round_trip(recording, form, tmp_path), form)


def test_the_audio_beside_an_annotation_gives_rate_and_length(kauh_file: Path, tmp_path: Path) -> None:
    (tmp_path / "visit_labels.txt").write_text("0\t1\tnormal\n", "utf-8")
    (tmp_path / "visit.flac").write_bytes(kauh_file.read_bytes())
    (recording,), _ = read_annotations(tmp_path / "visit_labels.txt", "audacity")
    assert recording.audio == tmp_path / "visit.flac"
    assert (recording.sample_rate, recording.name) == (4000, "visit")
    assert recording.duration_s == pytest.approx(len(recording.samples()) / 4000)


def test_selections_of_raven_count_once_and_by_file(tmp_path: Path) -> None:
    path = tmp_path / "a.selections.txt"
    head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tSpecies\n"
    rows = [
        "1\tWaveform 1\t1\t0.5\t1.5\ta.wav\t0.5\twheeze",
        "1\tSpectrogram 1\t1\t0.5\t1.5\ta.wav\t0.5\twheeze",
        "2\tSpectrogram 1\t1\t61.0\t62.5\tb.wav\t1.0\tCrackle",
    ]
    path.write_text(head + "\r\n".join(rows), "utf-8")
    found, _ = read_annotations(path, "raven")
    assert [(r.source, [(c.start_s, c.end_s, c.label) for c in r.cycles]) for r in found] == [
        ("a.wav", [(0.5, 1.5, "wheeze")]),
        ("b.wav", [(1.0, 2.5, "crackle")]),
    ]


def test_an_export_of_label_studio_gives_what_the_person_annotated(tmp_path: Path) -> None:
    region = {"type": "labels", "value": {"start": 1, "end": 2.5, "labels": ["crackle", "wheeze"]}}
    rejected = {"was_cancelled": True, "result": []}
    task = {
        "data": {"audio": "/data/upload/3/1a2b3c4d-visit.wav"},
        "annotations": [rejected, {"result": [region]}],
        "predictions": [{"result": []}],
    }
    minimal = {"audio": "visit.wav", "label": [{"start": 1, "end": 2.5, "labels": ["crackle", "wheeze"]}]}
    for content in ([task], [minimal]):
        path = tmp_path / "export.json"
        path.write_text(json.dumps(content), "utf-8")
        (recording,), _ = read_annotations(path, "label-studio")
        assert (recording.source, recording.cycles) == ("visit.wav", (CycleSpan(1, 2.5, "both"),))


def test_a_spreadsheet_with_semicolons_and_decimal_commas_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("file;start_s;end_s;label\r\na.wav;0,5;1,25;Wheeze\r\nb.wav;0;1;\r\n", "utf-8")
    first, second = read_annotations(path, "csv")[0]
    assert first.cycles == (CycleSpan(0.5, 1.25, "wheeze", publisher_label="Wheeze"),)
    assert second.cycles == (CycleSpan(0, 1, None),)


def test_a_textgrid_of_praat_in_utf16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "short.TextGrid"
    text = 'File type = "ooTextFile short"\n"TextGrid"\n\n0\n2\n<exists>\n1\n"IntervalTier"\n"Atem"\n0\n2\n2\n'
    path.write_text(text + '0\n0.75\n""\n0.75\n2\n"wheeze"\n', "utf-16")
    (recording,), _ = read_annotations(path, "textgrid")
    assert recording.cycles == (CycleSpan(0.75, 2.0, "wheeze"),)


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("audacity", "0.5 1.5 wheeze", "no label of Audacity"),
        ("audacity", "2\t1\twheeze", "starts at 2 s and ends at 1 s"),
        ("audacity", "-1\t1\twheeze", "no valid times"),
        ("audacity", "nan\t1\twheeze", "no valid times"),
        ("raven", "Selection\tAnnotation\n1\twheeze\n", "'begin time"),
        ("textgrid", "nothing of Praat", "no TextGrid"),
        ("label-studio", "{", "no JSON"),
        ("label-studio", '[{"data": {"text": "x"}}]', "no field 'audio'"),
        ("csv", "start_s,label\n0,wheeze\n", "no column 'end_s'"),
        ("sprsound", '{"event_annotation": [{"start": "0", "end": "1", "type": "Cough"}]}', "unknown type 'Cough'"),
        ("sprsound", "[]", "no annotation of SPRSound"),
        ("icbhi", "0.1\t1.0\t2\t0\n", "no line of ICBHI"),
        ("jsonl", '{"start_s": 0}\n', "no JSON line"),
    ],
)
def test_what_is_no_such_format_is_refused_in_one_line(form: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(content, "utf-8")
    with pytest.raises(ExchangeError, match=message):
        read_annotations(path, form)


def test_a_label_that_a_corpus_does_not_know_is_refused_not_dropped(tmp_path: Path) -> None:
    recording = ExaminedRecording("a.wav", 4000, 2.0, cycles=(CycleSpan(0, 1, "abnormal"),))
    for form in ONLY_CYCLES:
        with pytest.raises(ExchangeError, match="no place for the label 'abnormal'"):
            ANNOTATION_FORMATS[form].write([recording])


def test_written_json_lines_are_an_examination_again(screened: ExaminedRecording, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(ANNOTATION_FORMATS["jsonl"].write([screened]).text, "utf-8")
    (back,) = load_examination([path]).recordings
    assert (back.cycles, back.sounds, back.gaps) == (screened.cycles, screened.sounds, screened.gaps)
    assert back.summary == screened.summary
