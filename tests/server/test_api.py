"""Recordings over HTTP: upload, list, audio, corrections, the corpus of corrected ones, the documents."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from edge_sdk.corpora.loaders.generic_csv import load as load_csv
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.screening.recordings import ScreenOptions, screen_recording
from edge_sdk.server.store.recordings import worst_quality
from tests.server.serving import Served, ServedHere, comparable


@pytest.fixture(scope="module")
def uploads(served: Served, wav: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A form with a good wav, an ogg, a text and an empty file."""
    samples, rate = soundfile.read(wav)
    ogg = tmp_path_factory.mktemp("ogg") / "breaths.ogg"
    soundfile.write(ogg, samples, rate)
    files = [
        ("file", ("good.wav", wav.read_bytes())),
        ("file", ("notes.txt.zip.wav", b"PK\x03\x04" + b"\x00" * 2000)),
        ("file", ("empty.wav", b"")),
        ("file", ("breaths.ogg", ogg.read_bytes())),
    ]
    with served.client() as client:
        answer = client.post("/api/recordings?wait=1", data={"patient": "P-017", "site": "left posterior"}, files=files)
    assert answer.status_code == 202, answer.text
    return list(answer.json()["uploads"])


def details(served: Served, recording: str) -> dict[str, Any]:
    with served.client() as client:
        return dict(client.get(f"/api/recordings/{recording}").json())


def test_good_files_become_recordings_and_faulty_ones_are_named(served: Served, uploads: list[dict[str, Any]]) -> None:
    assert [row["state"] for row in uploads] == ["done", "failed", "refused", "done"]
    assert "notes.txt.zip.wav is a zip archive, no audio" in uploads[1]["message"]
    assert uploads[2]["message"] == "empty.wav: empty.wav is empty"
    names = {path.name for path in served.recordings.iterdir()}
    assert {f"{uploads[0]['recording']}{end}" for end in (".flac", ".events.jsonl", ".session.json")} <= names
    assert not list((served.recordings / ".incoming").iterdir())


def test_an_uploaded_recording_has_the_events_of_screen(
    served: Served, uploads: list[dict[str, Any]], wav: Path
) -> None:
    screened = screen_recording(load_bundle(), wav, ScreenOptions())
    found = details(served, uploads[0]["recording"])
    mine = [{k: v for k, v in c.items() if k != "id"} for c in found["original"]]
    assert comparable(mine) == comparable(r for r in screened.records if r["type"] == "cycle")
    assert found["summary"]["cycles"] == screened.summary["cycles"] > 3
    assert (found["patient"], found["site"]) == ("P-017", "left posterior")


def test_the_list_shows_what_a_person_looks_for(served: Served, uploads: list[dict[str, Any]]) -> None:
    with served.client() as client:
        rows = client.get("/api/recordings?patient=P-017").json()["recordings"]
    (row,) = [row for row in rows if row["id"] == uploads[0]["recording"]]
    assert row["verdict"] in ("normal", "abnormal", "uncertain")
    assert row["quality"] == "ok" and row["duration_s"] == 15.0 and row["complete"]


def test_filters_change_what_is_played_and_nothing_else(
    served: Served, uploads: list[dict[str, Any]], wav: Path
) -> None:
    recording = uploads[0]["recording"]
    before = details(served, recording)["original"]
    samples, rate = soundfile.read(wav, dtype="int16")
    with served.client() as client:
        power = {}
        for name in ("raw", "bell", "extended"):
            answer = client.get(f"/api/recordings/{recording}/audio?filter={name}")
            played, played_rate = soundfile.read(io.BytesIO(answer.content), dtype="int16")
            assert (played_rate, played.size) == (rate, samples.size)
            power[name] = np.abs(np.fft.rfft(played.astype(float))) ** 2
        flac = client.get(f"/api/recordings/{recording}/audio?format=flac")
        part = client.get(f"/api/recordings/{recording}/audio", headers={"Range": "bytes=44-143"})
        assert client.get(f"/api/recordings/{recording}/audio?filter=loud").status_code == 422
    np.testing.assert_array_equal(soundfile.read(io.BytesIO(flac.content), dtype="int16")[0], samples)
    assert part.status_code == 206 and len(part.content) == 100
    hz = np.fft.rfftfreq(samples.size, 1 / rate)
    high = (hz > 300) & (hz < 900)
    assert power["bell"][high].sum() < 1e-3 * power["raw"][high].sum() < 2e-3 * power["extended"][high].sum()
    assert details(served, recording)["original"] == before


def test_corrections_reach_the_corpus_that_training_reads(
    served: Served, uploads: list[dict[str, Any]], tmp_path: Path
) -> None:
    recording = uploads[3]["recording"]
    with served.client() as client:
        path = f"/api/recordings/{recording}/corrections"
        first = details(served, recording)["cycles"][0]
        answer = client.post(path, json={"action": "label", "cycle": first["id"], "label": "both", "who": "ab"})
        assert answer.status_code == 201
        client.post(path, json={"action": "add", "start_s": 14.0, "end_s": 14.9, "label": "other", "who": "ab"})
        assert client.post(path, json={"action": "undo", "who": "ab"}).json()["cycles"][-1]["id"] != "a2"
        assert len(client.get(path).json()["history"]) == 3
        corpus = client.get(f"/api/corpus?recordings={recording}")
        assert client.get("/api/corpus?which=some").status_code == 422
    with zipfile.ZipFile(io.BytesIO(corpus.content)) as archive:
        archive.extractall(tmp_path)
    loaded = load_csv(tmp_path)
    assert not loaded.problems
    assert loaded.cycles[0].label == "both" and "other" not in {c.label for c in loaded.cycles}
    assert {(c.patient, c.site) for c in loaded.cycles} == {("P-017", "left posterior")}
    actions = [(line["action"], line.get("what")) for line in served.audit()]
    assert ("correction", "undo") in actions and ("export", "corpus") in actions


def test_documents_and_counters_are_served(served: Served) -> None:
    with served.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/api/recordings/{id}/audio", "/api/streams", "/api/corpus", "/metrics"} <= set(paths)
        served_paths = {p for p in paths if "{" not in p and p not in ("/api/streams", "/api/live", "/api/corpus")}
        assert {p: client.get(p).status_code for p in served_paths} == dict.fromkeys(served_paths, 200)
        text = client.get("/metrics").text
        assert 'stetho_uploads_total{result="failed"}' in text and "process_resident_memory_bytes" in text
        info = client.get("/api/info").json()
    assert info["labels"] == list(load_bundle().labels) and len(info["points"]) == 12


@pytest.mark.parametrize(("form", "kind", "begin"), [("html", "text/html", b"<!"), ("pdf", "application/pdf", b"%PDF")])
def test_a_recording_is_reported(
    served: Served, uploads: list[dict[str, Any]], form: str, kind: str, begin: bytes
) -> None:
    with served.client() as client:
        answer = client.get(f"/api/recordings/{uploads[0]['recording']}/report", params={"format": form})
        assert client.get(f"/api/recordings/{uploads[0]['recording']}/report?format=doc").status_code == 422
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(kind) and answer.content.startswith(begin)
    if form == "html":
        assert "Research" in answer.text or "research" in answer.text
        assert load_bundle().manifest.version in answer.text
        assert load_bundle().identity["sha256"] in answer.text


@pytest.mark.parametrize("path", ["/api/recordings/none", "/api/uploads/none", "/api/examinations/none", "/nothing"])
def test_what_does_not_exist_is_a_line_and_a_404(served: Served, path: str) -> None:
    with served.client() as client:
        answer = client.get(path)
    assert answer.status_code == 404 and answer.json()["type"] == "error"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"patient": "Jane Doe"}, "never by a name"),
        ({"patient": "Miller"}, "never by a name"),
        ({"age_years": "-3"}, "age_years"),
        ({"site": "x" * 100}, "site"),
    ],
)
def test_names_and_wrong_metadata_are_refused(served: Served, wav: Path, fields: dict[str, str], match: str) -> None:
    with served.client() as client:
        answer: httpx.Response = client.post("/api/recordings", params=fields, content=wav.read_bytes())
    assert answer.status_code == 422 and match in answer.text


def test_sessions_of_listen_are_shown_too_even_half_written_ones(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cut.session.json").write_text('{"type": "session", "sample_rate"')
    (tmp_path / "begun.session.json").write_text('{"type": "session", "sample_rate": 8000, "started": "2026"}')
    (tmp_path / "begun.events.jsonl").write_text('{"type": "cycle", "start_s": 0, "end_s": 1, "label"')
    with ServedHere(tmp_path, tiny) as server, server.client() as client:
        rows = client.get("/api/recordings").json()["recordings"]
        assert [(row["id"], row["complete"]) for row in rows] == [("begun", False)]
        assert client.get("/api/recordings/begun").status_code == 404
        assert client.get("/api/recordings/cut").status_code == 404


def test_the_quality_of_a_recording_is_its_most_frequent_trouble() -> None:
    assert worst_quality({"ok": 9.0, "silence": 1.0}) == "ok"
    assert worst_quality({"ok": 5.0, "silence": 1.0, "noisy": 4.0}) == "noisy"
    assert worst_quality({}) is None
