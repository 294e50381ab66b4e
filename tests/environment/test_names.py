"""File names that are not UTF-8: screened, kept and shown like any other; never the end of a batch."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_sdk.files import native_name
from edge_sdk.json_lines import json_line, readable
from edge_sdk.screening import archive
from edge_sdk.screening.recordings import ScreenOptions
from tests.cli.conftest import Stetho
from tests.environment.conftest import Place

SHOWN = "caf\\xe9"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café – 3.wav", "café – 3.wav"),
        ("a\\xe9.wav", "a\\xe9.wav"),
        ("caf\udce9.wav", "caf\\xe9.wav"),
        ("é\udcc3(", "é\\xc3("),
        ("\ud83d alone", "\\ud83d alone"),
    ],
)
def test_bytes_that_are_no_text_are_shown_as_numbers(text: str, shown: str) -> None:
    assert readable(text) == shown
    line = json_line({"source": text, text: [Path("/") / text]})
    assert json.loads(line.encode()) == {"source": shown, shown: [f"/{shown}"]}


def test_a_name_that_the_locale_of_a_minimal_container_splits_is_joined_again() -> None:
    assert readable("caf\udcc3\udca9") == "café"


def test_the_case_of_three_recordings(place: Place, data_root: Path) -> None:
    done = place.shell(data_root / "cases" / "name_not_utf8.sh")
    assert done.stderr == b""
    assert done.stdout.split() == [b"3", b"kept:", b"3", b"3"]


def test_kept_results_of_such_a_recording_are_not_made_twice(
    place: Place, latin1_recording: Path, stetho: Stetho, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.work)
    first, second = (stetho("screen", ".", "--json", "--results", "kept.jsonl") for _ in range(2))
    assert first.status == second.status == 0
    assert first.out == second.out
    lines = [json.loads(line) for line in (place.work / "kept.jsonl").read_text("utf-8").splitlines()]
    assert [record["source"] for record in lines if record["type"] == "summary"] == [f"{SHOWN}.wav"]


@pytest.mark.long
def test_such_a_name_works_in_every_place(place: Place, latin1_recording: Path) -> None:
    folder = os.fsdecode(b"k\xe9pt")
    listened = place.run("listen", latin1_recording.name, "--speed", 50, "--record", folder, "--json")
    assert (listened.returncode, listened.stderr) == (0, b"")
    assert json.loads(listened.stdout.splitlines()[-1])["source"] == f"{SHOWN}.wav"
    kept = sorted(path.suffix for path in (place.work / folder).rglob("*.*"))
    assert ".flac" in kept
    shutil.copy(latin1_recording, place.work / "second.wav")
    table = place.run("screen", ".", "--jobs", 2)
    assert (table.returncode, table.stderr) == (0, b"")
    assert f"{SHOWN}.wav".encode() in table.stdout
    shutil.rmtree(place.work / folder)


def test_an_error_names_such_a_file(place: Place) -> None:
    missing = place.run("screen", os.fsdecode(b"n\xf6.wav"))
    assert missing.returncode == 1
    assert missing.stderr == b"stetho: error: no such file: n\\xf6.wav; check the name\n"


@pytest.mark.long
def test_such_a_corpus_trains_and_is_evaluated(place: Place, latin1_recording: Path) -> None:
    name = os.fsencode(latin1_recording.name)
    table = b"file,start_s,end_s,label,patient\n" + b"".join(
        b"%s,%.1f,%.1f,%s,p%d\n" % (name, start, start + 1.5, label, start)
        for start, label in enumerate((b"normal", b"crackle", b"normal", b"wheeze"))
    )
    (place.work / "cycles.csv").write_bytes(table)
    done = place.run("evaluate", "default", "csv", ".", "--split", "all", "--bootstrap", 0, "--json")
    if done.returncode == 0:
        assert json.loads(done.stdout)["n"] == 4
    else:  # a table of names must be text; then the line says so
        assert len(done.stderr.splitlines()) == 1
        assert b"cycles.csv" in done.stderr and b"unexpected" not in done.stderr


def test_libraries_get_the_bytes_of_a_name_that_is_no_text(tmp_path: Path) -> None:
    assert native_name(tmp_path / "é.wav") == str(tmp_path / "é.wav")
    assert native_name(Path("caf\udce9.wav")) == b"caf\xe9.wav"


def test_a_ray_worker_takes_such_a_name_and_sends_its_warnings_along(
    latin1_recording: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = list(logging.getLogger().handlers)
    calls: list[dict[str, object]] = []

    def in_this_process(rows: list[dict[str, object]], **_: object) -> SimpleNamespace:
        def mapped(worker: type, **_: object) -> SimpleNamespace:
            screener = worker()
            logging.getLogger("edge_sdk.runtime.engines").warning("an engine is not used")
            calls.extend(screener(row) for row in rows)
            return SimpleNamespace(iter_rows=lambda: iter(calls))

        return SimpleNamespace(map=mapped)

    context = SimpleNamespace(get_current=lambda: SimpleNamespace(enable_progress_bars=True))
    ray = SimpleNamespace(data=SimpleNamespace(from_items=in_this_process, DataContext=context))
    try:
        (item,) = archive._screen(ray, [latin1_recording], ScreenOptions(), 1)
    finally:
        logging.getLogger().handlers[:] = handlers
    assert item.error is None
    assert item.source == str(latin1_recording)  # as given: a path that opens
    assert item.records[-1]["type"] == "summary"
    assert all(isinstance(value, bytes | str) for row in calls for value in row.values())  # what Arrow transports
    assert [record.getMessage() for record in caplog.records].count("an engine is not used") == 2  # there and here
