"""Peers run in the same rounds or are reported as left out; an environment is created completely or not at all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.core.rows import check_row
from benchmarks.peers import environments as peer_environments
from benchmarks.peers import run as peers
from benchmarks.peers.environments import interpreter
from edge_sdk.cli.bench.group import app
from edge_sdk.errors import StethoError


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    cache = str(tmp_path_factory.mktemp("peers"))
    result = CliRunner().invoke(app, ["peers", "--quick", "--json", "--cache", cache], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    for line in lines:
        check_row(line)
    return {line["subject"]["part"]: line for line in lines[1:]}


def test_ours_is_measured_in_every_contest(rows: dict[str, dict[str, Any]]) -> None:
    for part in ("front-end: ours", "inference: ours", "stream: ours 8000 Hz", "stream: ours 16000 Hz"):
        assert rows[part]["cpu_s"] > 0 and len(rows[part]["samples_ms"]) == rows[part]["n"] == 3


def test_the_stream_reports_the_shares_of_its_stages(rows: dict[str, dict[str, Any]]) -> None:
    stages = rows["stream: ours 8000 Hz"]["stages"]
    assert {"resample", "segmenter", "classifier", "quality", "emit"} <= set(stages)
    assert sum(stages.values()) == pytest.approx(1.0)


def test_a_peer_has_its_ratio_with_an_interval(rows: dict[str, dict[str, Any]]) -> None:
    row = rows["inference: onnxruntime-default"]
    assert 0 < row["cpu_ratio_low"] <= row["cpu_ratio"] <= row["cpu_ratio_high"]


def test_what_is_left_out_is_a_row_with_the_reason(rows: dict[str, dict[str, Any]]) -> None:
    parts = {name for name, row in rows.items() if row.get("failed")}
    assert {
        "front-end: torchaudio",
        "front-end: librosa",
        "inference: torch-eager",
        "inference: torch-compile",
    } <= parts
    assert "run without --quick" in rows["front-end: torchaudio"]["failed"]


def test_event_scores_agree_with_sed_eval(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["events: sed_eval"]["agrees"] is True
    assert rows["events: ours"]["f1"] == pytest.approx(rows["events: sed_eval"]["f1"])


def test_quick_makes_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_environments, "importable", lambda module: False)
    with pytest.raises(StethoError, match="without --quick"):
        interpreter("kaldi-native-fbank", make=False, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_could_not_be_filled_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    broken = [True]

    def call(command: list[str], name: str) -> None:
        calls.append(command)
        if "pip" in command and broken[0]:
            raise StethoError("no network")

    monkeypatch.setattr(peer_environments, "_call", call)
    with pytest.raises(StethoError, match="no network"):
        interpreter("librosa", make=True, folder=tmp_path)
    broken[0] = False
    monkeypatch.setattr("shutil.rmtree", lambda *a, **k: None)
    (next(iter(tmp_path.iterdir()), tmp_path / peer_name(calls))).mkdir(exist_ok=True)
    python, where = interpreter("librosa", make=True, folder=tmp_path)
    assert where == "own environment" and python.startswith(str(tmp_path))
    made = len(calls)
    assert interpreter("librosa", make=True, folder=tmp_path)[0] == python and len(calls) == made


def peer_name(calls: list[list[str]]) -> str:
    return Path(calls[0][-1]).name


def test_torch_runs_in_the_present_environment(tmp_path: Path) -> None:
    assert interpreter("torchaudio", make=True, folder=tmp_path) == (sys.executable, "present environment")


class _Stopped:
    """A worker whose request ``n`` ends in Ctrl-C."""

    def __init__(self, n: int) -> None:
        self.left = n

    def request(self, command: str) -> dict[str, Any]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return {"cpu_s": 1.0, "wall_s": 2.0}


def test_ctrl_c_between_two_peers_keeps_the_whole_rounds() -> None:
    workers: dict[str, Any] = {"ours": _Stopped(99), "theirs": _Stopped(4)}
    cpu, wall, interrupted = peers._rounds(workers, peers.PeerOptions(rounds=9, warm_up=1))
    assert interrupted
    assert cpu == {"ours": [1.0] * 3, "theirs": [1.0] * 3}
    assert wall == {"ours": [2.0] * 3, "theirs": [2.0] * 3}


def test_ctrl_c_before_the_first_round_leaves_nothing_to_keep() -> None:
    with pytest.raises(KeyboardInterrupt):
        peers._rounds({"ours": _Stopped(1)}, peers.PeerOptions(rounds=9, warm_up=1))  # type: ignore[dict-item]
