"""Standard streams as pipes, services and small machines have them: other encodings, closed, full, broken."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from edge_sdk.cli.surroundings import READABLE, prepare_streams
from edge_sdk.json_lines import json_line
from tests.environment.conftest import Place

POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("cp1252", "✓ café – 5 s ≥ 3 \udce9", "+ café – 5 s >= 3 \\xe9"),
        ("ascii", "✗ Müller → ½ ²", "x Muller -> 12 2"),
        ("ascii", "肺\ud800", "?\\ud800"),
        ("latin-1", "−3 dB, 1…2 µs", "-3 dB, 1...2 µs"),
        ("utf-8", "✓ caf\udce9", "✓ caf\\xe9"),
    ],
)
def test_what_a_stream_cannot_encode_becomes_plain(encoding: str, text: str, shown: str) -> None:
    prepare_streams()
    assert codecs.encode(text, encoding, READABLE).decode(encoding).replace("⁄", "") == shown


def test_the_case_of_code_page_1252(place: Place, data_root: Path) -> None:
    done = place.shell(data_root / "cases" / "stdout_cp1252.sh")
    assert done.stderr == b""
    assert done.stdout.splitlines() == [b"doctor rc=0", b"verify default rc=0"]


@pytest.mark.long
def test_json_is_exact_in_every_code_page(place: Place, recording: Path) -> None:
    named = recording.rename(recording.with_name("肺 – é.wav"))
    done = place.run("screen", named, "--json", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert {json.loads(line.decode("ascii"))["source"] for line in done.stdout.splitlines()} == {str(named)}
    assert "肺" in json_line({"a": "肺"})


@pytest.mark.long
def test_a_locale_without_letters_beyond_ascii_shows_plain_text(place: Place, recording: Path) -> None:
    named = recording.rename(recording.with_name("é.wav"))
    done = place.run("screen", named, **POSIX)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"breaths" in done.stdout


@pytest.mark.parametrize(
    "closing", ["<&- >&- 2>&-", *(pytest.param(text, marks=pytest.mark.long) for text in (">&-", ">&- 2>&-", "2>&-"))]
)
def test_closed_streams_are_no_error_and_get_no_other_file(place: Place, recording: Path, closing: str) -> None:
    done = place.shell(f"stetho screen {recording} --results kept.jsonl {closing}; echo $?")
    assert done.stdout.splitlines()[-1] == b"0"
    assert done.stderr == b""
    records = [json.loads(line)["type"] for line in (place.work / "kept.jsonl").read_text().splitlines()]
    assert (records[0], records[-1]) == ("run", "summary")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is part of Linux")
def test_a_full_disk_under_stdout_is_one_line(place: Place) -> None:
    done = place.shell("stetho doctor --json > /dev/full; echo $?")
    assert done.stdout == b"1\n"
    assert done.stderr == b"stetho: error: standard output: No space left on device\n"


def test_nobody_reads_stderr_is_no_error(place: Place) -> None:
    done = place.shell("{ stetho nonsense; echo $? > status; } 2>&1 >/dev/null | true; cat status")
    assert done.stdout == b"2\n"
    assert done.stderr == b""
