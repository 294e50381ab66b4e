"""``make results``: committed figures are made again by the command that stands beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import benchmarks.rerun as subject
from benchmarks.rerun import RERUN, RESULTS, RerunError, moved, provenance, rerun

COMMAND = "stetho segment-eval default phantom . --json"


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1.0}, {"a": 1.0 + 1e-9}, []),
        ({"a": 1.0, "b": [1, 2]}, {"a": 1.1, "b": [1, 3]}, [("a", 1.0, 1.1), ("b[1]", 2, 3)]),
        ({"a": {"b": 0.0}}, {"a": {"b": None}}, [("a.b", 0.0, None)]),
        ({"a": "x"}, {"a": "x", "new": 3}, [("new", None, 3)]),
        ({"a": 1, "provenance": {"git_commit": "x"}}, {"a": 1, "provenance": {"git_commit": "y"}}, []),
    ],
)
def test_what_moved_is_named(old: Any, new: Any, found: list[Any]) -> None:
    assert list(moved(old, new)) == found


def test_every_row_that_is_rerun_holds_its_command_and_origin() -> None:
    for name in RERUN:
        rows = json.loads((RESULTS / name).read_text())["rows"]
        assert rows
        for row in rows:
            assert row["command"].startswith("stetho ") and row["command"].endswith("--json")
            assert len(row["provenance"]["bundle_sha256"]) == 64


def test_a_command_that_fails_names_itself(tmp_path: Path) -> None:
    with pytest.raises(RerunError, match=r"evaluate default csv .*nowhere"):
        rerun({"command": "stetho evaluate default csv nowhere --json"}, tmp_path, None)


def test_the_data_hash_changes_with_the_data(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    words = ["stetho", "evaluate", "default", "csv", str(tmp_path / "corpus")]
    hashes = {provenance(words, tmp_path, None)["data_sha256"]}
    for content in ("a", "bb"):
        (tmp_path / "corpus" / "x.csv").write_text(content)
        hashes.add(provenance(words, tmp_path, None)["data_sha256"])
    assert len(hashes) == 3 and provenance(COMMAND.split(), tmp_path, "abc")["data_sha256"] is None


def test_new_rows_are_kept_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.json").write_text(json.dumps({"note": "kept", "rows": [{"command": COMMAND, "event_f1": 0.5}]}))
    monkeypatch.setattr(subject, "RESULTS", tmp_path)
    monkeypatch.setattr(subject, "rerun", lambda row, data, commit: {**row, "event_f1": 0.75})
    app = typer.Typer()
    app.command()(subject.main)
    listed = CliRunner().invoke(app, ["some.json", "--data", str(tmp_path)])
    assert listed.exit_code == 1 and "0.75" in listed.output
    assert json.loads((tmp_path / "some.json").read_text())["rows"][0]["event_f1"] == 0.5
    written = CliRunner().invoke(app, ["some.json", "--data", str(tmp_path), "--write"])
    assert written.exit_code == 0
    kept = json.loads((tmp_path / "some.json").read_text())
    assert kept["note"] == "kept" and kept["rows"][0]["event_f1"] == 0.75
    assert "no figure moved" in CliRunner().invoke(app, ["some.json", "--data", str(tmp_path)]).output
