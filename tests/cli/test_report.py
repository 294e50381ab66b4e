"""``stetho report`` on sessions and recordings: what the session kept comes back, in one file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_sdk.cli.main import run
from edge_sdk.digests import sha256_file
from tests.cli.conftest import Stetho


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sessions."""
    folder = tmp_path_factory.mktemp("visit")
    for seed, site in ((5, "left posterior"), (6, "trachea")):
        options = ["--duration", "8", "--speed", "50", "--record", str(folder), "--site", site, "--json"]
        with pytest.raises(SystemExit) as ended:
            run(["listen", f"phantom:copd:{seed}", *options])
        assert not ended.value.code
    return folder


@pytest.mark.requirement("AUT-3")
def test_a_folder_of_sessions_is_one_report(stetho: Stetho, visit: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "visit.html", tmp_path / "audit"
    outcome = stetho("report", visit, "--out", out, "--reference", "Visit 7", "--audit", log, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    (made,) = outcome.records
    assert (made["type"], made["recordings"], made["sha256"]) == ("report", 2, sha256_file(out))
    page = out.read_text("utf-8")
    sessions = [json.loads(path.read_text("utf-8")) for path in sorted(visit.glob("*.session.json"))]
    events = [visit / session["events"] for session in sessions]
    for path in events:
        summary = json.loads(path.read_text("utf-8").splitlines()[-1])
        assert f"{summary['respiratory_rate_bpm']:.1f} /min" in page
        assert (
            f'<p class="value {"good" if summary["verdict"] == "normal" else ""}' in page or summary["verdict"] in page
        )
    assert sessions[0]["bundle"]["sha256"] in page and "AUROC of abnormal" in page  # the card of that very bundle
    assert "Visit 7" in page and page.count("<audio") == 2
    (entry,) = (json.loads(line) for line in log.read_text("utf-8").splitlines())
    assert entry["action"] == "export"
    assert [fact["sha256"] for fact in entry["details"]["outputs"]] == [sha256_file(out)]
    assert [fact["file"] for fact in entry["details"]["inputs"]] == [str(path) for path in sorted(visit.iterdir())]


def test_what_names_a_recording_can_stay_here(
    stetho: Stetho, visit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STETHO_AUDIT", str(tmp_path / "audit"))
    sessions = [json.loads(path.read_text("utf-8")) for path in sorted(visit.glob("*.session.json"))]
    out, labels = tmp_path / "visit.html", tmp_path / "labels"
    assert stetho("report", visit, "--out", out, "--deidentify").status == 0
    page = out.read_text("utf-8")
    facts = page.partition("How this was made")[0].partition("report of")[2]
    for session in sessions:
        assert session["sound"].removesuffix(".flac") not in page and session["source"] not in page
        assert session["started"][:10] not in facts.partition("</p>")[2]
    assert page.count("recording-") > 2 and page.count("Left posterior") >= 1
    assert stetho("convert", visit, "--to", "audacity", "--out", labels).status == 0
    report, convert = (
        json.loads(line)["details"] for line in (tmp_path / "audit").read_text("utf-8").splitlines()[-2:]
    )
    assert [report["command"], convert["command"], convert["format"]] == ["report", "convert", "audacity"]
    assert {fact["sha256"] for fact in convert["outputs"]} == {sha256_file(path) for path in labels.iterdir()}


def test_recordings_are_screened_and_placed(stetho: Stetho, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.html"
    sites = ["--site", "left anterior", "--site", "right posterior"]
    assert stetho("report", recording, recording, "--out", out, *sites, "--no-player").status == 0
    page = out.read_text("utf-8")
    assert "<audio" not in page
    assert re.search(r"Sites: 1 left anterior, 2 right posterior", page)
    screened = stetho("screen", recording, "--json").records
    assert page.count(f"{screened[-1]['respiratory_rate_bpm']:.1f} /min") == 2
    wrong = stetho("report", recording, recording, recording, "--out", out, *sites)
    assert wrong.status == 2 and "2 sites for 3 recordings" in wrong.err


@pytest.mark.parametrize(("out", "message"), [("a.doc", "neither in .html nor in .pdf"), (".", "neither in .html")])
def test_a_wrong_ending_is_refused_before_any_work(stetho: Stetho, tmp_path: Path, out: str, message: str) -> None:
    assert message in stetho("report", tmp_path / "absent.wav", "--out", out).error


def test_results_of_another_bundle_have_no_figures_of_this_one(stetho: Stetho, recording: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text(stetho("screen", recording, "--json").out, "utf-8")
    out = tmp_path / "a.html"
    assert stetho("report", lines, "--out", out).status == 0
    page = out.read_text("utf-8")
    assert "The bundle is not at hand" in page and "AUROC" not in page  # these lines do not name their bundle
