"""``listen`` with a broker, a page of metrics and an audit log beside it; ``verify --audit``."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from edge_sdk.cli.runtime.outputs import _name_of
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.sources.file import FileSource
from edge_sdk.sources.phantom import PhantomSource
from tests.cli.conftest import Stetho
from tests.support.tiny_bundle import write_tiny_bundle

FAST = ["--speed", "50"]


def entries(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


@pytest.mark.requirement("AUT-3")
def test_a_recorded_session_is_in_the_audit_log_with_its_hashes(stetho: Stetho, tmp_path: Path) -> None:
    log, visits = tmp_path / "audit.jsonl", tmp_path / "visits"
    outcome = stetho("listen", "phantom:copd:7", "--duration", 9, *FAST, "--record", visits, "--audit", log, "--json")
    assert outcome.status == 0
    start, end = (entry["details"] for entry in entries(log))
    assert [entry["action"] for entry in entries(log)] == ["session-start", "session-end"]
    assert isinstance(start, dict) and isinstance(end, dict)
    assert start["source"] == end["source"] == "phantom:copd:7"
    assert start["bundle"] == load_bundle().identity
    (session,) = visits.glob("*.session.json")
    about = json.loads(session.read_text("utf-8"))
    assert {name: about[name] for name in ("bundle", "metadata", "device")} == {
        name: start[name] for name in ("bundle", "metadata", "device")
    }
    assert end["failure"] is None and end["ended"] is None
    summary = outcome.records[-1]
    assert {name: end[name] for name in ("cycles", "verdict", "respiratory_rate_bpm", "lost_samples")} == {
        name: summary[name] for name in ("cycles", "verdict", "respiratory_rate_bpm", "lost_samples")
    }
    files = {Path(fact["file"]): fact["sha256"] for fact in end["files"]}
    assert sorted(files) == sorted(visits.iterdir())
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == digest for path, digest in files.items())

    verified = stetho("verify", "--audit", log)
    assert verified.status == 0 and "2 entries in an unbroken chain" in verified.out
    text = log.read_bytes()
    log.write_bytes(text.replace(b"phantom:copd:7", b"phantom:copd:8", 1))
    broken = stetho("verify", "--audit", log)
    assert broken.status == 1 and "line 1 was changed" in broken.error
    assert stetho("verify", "--audit", log, "--json").records[0]["broken_line"] == 1


@pytest.mark.requirement("AUT-3")
def test_the_environment_names_the_log_of_every_command(
    stetho: Stetho, tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "audit.jsonl"
    monkeypatch.setenv("STETHO_AUDIT", str(log))
    assert stetho("listen", recording, *FAST, "--json").status == 0
    write_tiny_bundle(tmp_path / "bundle")
    write_tiny_bundle(tmp_path / "bundle")
    found = entries(log)
    assert [e["action"] for e in found] == ["session-start", "session-end", "bundle-written", "bundle-written"]
    first, second = (entry["details"] for entry in found[2:])
    assert isinstance(first, dict) and isinstance(second, dict)
    manifest = [fact for fact in first["files"] if fact["file"].endswith("bundle.json")]
    assert first["replaced"] == [] and second["replaced"] == manifest


def test_a_session_does_not_start_without_its_audit_log(stetho: Stetho, tmp_path: Path, recording: Path) -> None:
    (tmp_path / "file").touch()
    outcome = stetho("listen", recording, *FAST, "--audit", tmp_path / "file" / "log", "--json")
    assert outcome.status == 1 and "cannot write the audit log" in outcome.error
    assert not any(record["type"] == "cycle" for record in outcome.records)


def test_metrics_can_be_scraped_while_listening(
    stetho: Stetho, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    pages: list[str] = []
    monkeypatch.setattr("edge_sdk.cli.runtime.outputs.note_line", notes.append)

    def scrape() -> None:
        while not pages or "stetho_cycles_total{" not in pages[-1]:
            time.sleep(0.02)
            if notes:
                (url,) = re.findall(r"http://\S+", notes[0])
                with urllib.request.urlopen(url) as reply:
                    pages.append(reply.read().decode())

    scraper = threading.Thread(target=scrape, daemon=True)
    scraper.start()
    outcome = stetho("listen", recording, "--speed", 8, "--metrics", 0, "--name", "bed 7", "--json")
    scraper.join(5)
    assert (outcome.status, outcome.err) == (0, "")
    assert 'stetho_stream_health{stetho_stream_health="healthy",stream="bed 7"} 1.0' in pages[-1]
    assert re.search(r'stetho_build_info\{.*bundle="compact".*engine="[^"]+', pages[-1])
    assert str(recording) not in pages[-1]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--mqtt", "http://host"], 1, "not the URL of a broker"),
        (["--mqtt", "mqtt://u:secret@host"], 1, "can be read by every user"),
        (["--metrics", "nine"], 1, "is not PORT"),
        (["--mqtt-password-file", "x"], 2, "goes with --mqtt"),
    ],
)
def test_bad_addresses_are_one_line(
    stetho: Stetho, recording: Path, options: list[str], status: int, message: str
) -> None:
    outcome = stetho("listen", recording, *FAST, *options)
    assert outcome.status == status
    assert message in outcome.err and "secret" not in outcome.err


def test_names_hold_no_path_of_a_recording(recording: Path) -> None:
    assert _name_of(FileSource(str(recording))).endswith(" file")
    assert _name_of(PhantomSource("asthma", seed=5, duration_s=1)).endswith(" phantom:asthma:5")

    class Serial(PhantomSource):
        live = True

        @property
        def name(self) -> str:
            return "serial:/dev/serial/by-id/usb-1"

    assert _name_of(Serial("asthma", duration_s=1)).endswith(" serial:usb-1")
