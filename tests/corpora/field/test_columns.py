"""A table from the field: columns and rows that would be ignored or guessed are named instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import CorpusError

HEADER = "file,start_s,end_s,label,patient"
ROWS = "a.wav,0.2,1.6,normal,p0\nb.wav,0.4,1.9,crackle,p1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two recordings."""
    for seed, name in enumerate("ab"):
        noise = np.random.default_rng(seed).normal(0, 0.05, 8000)
        soundfile.write(tmp_path / f"{name}.wav", noise, 4000, subtype="PCM_16")
    return tmp_path


def refused(root: Path, text: str | bytes, *, partial: bool) -> str:
    (root / "t.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(CorpusError) as error:
        load_corpus("csv", root, partial=partial)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_given_table_with_start_and_end_is_refused(data_root: Path) -> None:
    for partial in (False, True):
        with pytest.raises(CorpusError, match=r"unknown columns start, end; known are .*start_s, end_s"):
            load_corpus("csv", data_root / "cases" / "csv_start_end_columns", partial=partial)


COLUMNS: dict[str, tuple[str | bytes, str]] = {
    "start and end": ("file,start,end,label\na,0.2,1.6,normal\n", "unknown columns start, end"),
    "onset": ("file,onset,duration,label\na,0.2,1.6,normal\n", "unknown columns onset, duration"),
    "milliseconds": ("file,start_ms,end_ms,label\na,200,1600,normal\n", "unknown columns start_ms, end_ms"),
    "comment": ("file,label,comment\na,normal,fine\n", "unknown columns comment"),
    "no end": ("file,start_s,label\na,0.2,normal\n", "start_s without end_s"),
    "no start": ("file,end_s,label\na,0.2,normal\n", "end_s without start_s"),
    "two labels": ("file,start_s,end_s,label,label\na,0.2,1.6,normal,crackle\n", "two columns label"),
    "two labels in two cases": ("file,label, Label \na,normal,crackle\n", "two columns label"),
    "semicolons": ("file;start_s;end_s;label\na;0,2;1,6;normal\n", "separated by semicolons"),
    "tabs": ("file\tstart_s\tend_s\tlabel\na\t0.2\t1.6\tnormal\n", "separated by tabs"),
    "Excel's first line": ("sep=;\nfile;label\na;normal\n", "separated by semicolons"),
    "no header": (ROWS, "lacks the columns file, label"),
    "UTF-16": (f"{HEADER}\n{ROWS}".encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (f"{HEADER}\n{ROWS}".encode("utf-16-le"), "UTF-16"),
    "latin-1": (f"{HEADER}\n{ROWS}".encode() + b"caf\xe9,0,1,normal,p\n", "not a text in UTF-8"),
    "empty": ("", "lacks the columns file, label; it has none"),
    "header alone": (HEADER + "\n", "no rows"),
}


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_that_would_be_ignored_are_named(root: Path, kind: str, partial: bool) -> None:
    text, message = COLUMNS[kind]
    assert message in refused(root, text, partial=partial)


BAD_ROWS: dict[str, tuple[str, str]] = {
    "underscore": ("a,1_0,1_1,normal,p0", "'1_0'"),
    "decimal commas": ("a,0,2,1,6,normal,p0", "line 2: 7 fields in 5 columns"),
    "quoted decimal commas": ('a,"0,2","1,6",normal,p0', "decimal points"),
    "negative": ("a,-0.2,1.6,normal,p0", "need 0 <= start_s"),
    "backwards": ("a,1.6,0.2,normal,p0", "need 0 <= start_s"),
    "no time": ("a,,1.6,normal,p0", "need 0 <= start_s"),
    "not a number": ("a,nan,inf,normal,p0", "need 0 <= start_s"),
    "label": ("a,0.2,1.6,Normal?,p0", "label 'Normal?' is none of"),
    "file": (",0.2,1.6,normal,p0", "file is empty"),
    "over the end": ("a,0.2,9.0,normal,p0", "overruns the audio"),
    "two labels": ("a,0.2,1.6,normal,p0\na,0.2,1.6,crackle,p0", "is crackle, and normal in line 2"),
    "two labels, other spelling": ("a,0.2,1.6,normal,p0\n./a.wav,0.2,1.6,crackle,p0", "is crackle, and normal"),
    "two patients": ("a,0.2,0.6,normal,p0\na,0.7,1.6,normal,p9", "another path, patient or split"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_one_bad_row_is_named_and_stops_nothing(root: Path, kind: str) -> None:
    rows, message = BAD_ROWS[kind]
    assert message in refused(root, f"{HEADER}\n{rows}\nb,0.4,1.9,crackle,p1\n", partial=False)
    kept = load_corpus("csv", root, partial=True)
    assert [(cycle.patient, cycle.label) for cycle in kept.cycles] == [("p1", "crackle")]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sex", "x", "female, male"),
        ("site", "knee", "trachea"),
        ("age", "old", "no number"),
        ("bmi", "1_0", "no number"),
    ],
)
def test_metadata_outside_its_vocabulary_is_named(root: Path, column: str, value: str, message: str) -> None:
    text = f"{HEADER},{column}\na,0.2,1.6,normal,p0,{value}\nb,0.4,1.9,crackle,p1,\n"
    found = refused(root, text, partial=False)
    assert message in found and value in found


def test_extra_columns_beside_the_times_can_be_accepted(root: Path) -> None:
    text = f"{HEADER},nurse,age_years\na,0.2,1.6,normal,p0,Ada,63\n"
    assert "unknown columns nurse" in refused(root, text, partial=False)
    (cycle,) = load_corpus("csv", root, partial=True).cycles
    assert (cycle.start_s, cycle.age_years) == (0.2, 63.0)


def test_a_mark_and_windows_line_ends_are_read(root: Path) -> None:
    (root / "t.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\n{ROWS}".replace("\n", "\r\n").encode())
    assert [cycle.label for cycle in load_corpus("csv", root).cycles] == ["normal", "crackle"]


@pytest.mark.parametrize("table", ["file;split\na;train\n", "file,split,split\na,train,test\n", "\ufeffa,b\n"])
def test_a_split_file_is_as_strict(root: Path, table: str) -> None:
    (root / "t.csv").write_text(f"{HEADER}\n{ROWS}")
    (root / "split.csv").write_text(table)
    with pytest.raises(CorpusError, match=r"split\.csv"):
        load_corpus("csv", root)
