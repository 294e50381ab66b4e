"""Peers run in the same rounds or are reported as left out; an environment is created completely or not at all."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.core.energy import EnergyMeter
from benchmarks.core.rows import check_row
from benchmarks.peers import environments as peer_environments
from benchmarks.peers import run as peers
from benchmarks.peers import windows
from benchmarks.peers.contests import Contest
from benchmarks.peers.environments import interpreter
from benchmarks.peers.worker import make_workload, reason
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
    for part in (
        "front-end: ours",
        "inference: ours",
        "stream: ours 8000 Hz",
        "stream: ours 16000 Hz",
        "windows: ours",
    ):
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
    rounds = peers._rounds(workers, peers.PeerOptions(rounds=9, warm_up=1))
    assert rounds.interrupted
    assert rounds.cpu == {"ours": [1.0] * 3, "theirs": [1.0] * 3}
    assert rounds.wall == {"ours": [2.0] * 3, "theirs": [2.0] * 3}


def test_ctrl_c_before_the_first_round_leaves_nothing_to_keep() -> None:
    with pytest.raises(KeyboardInterrupt):
        peers._rounds({"ours": _Stopped(1)}, peers.PeerOptions(rounds=9, warm_up=1))  # type: ignore[dict-item]


def test_only_a_machine_with_a_meter_has_energy_fields(rows: dict[str, dict[str, Any]]) -> None:
    found = any({"joules", "energy_ratio", "energy_source"} & set(row) for row in rows.values())
    assert found == EnergyMeter().available


class _Metered:
    """A meter that counts 3 J for ours and 2 J for the peer."""

    working: str = ""  # name of the worker at work
    joules: float | None = None
    source = "rapl"

    def __enter__(self) -> _Metered:
        return self

    def __exit__(self, *_: object) -> None:
        self.joules = 3.0 if _Metered.working == "ours" else 2.0


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name

    def request(self, command: str) -> dict[str, Any]:
        _Metered.working = self.name
        return {"cpu_s": 1.0, "wall_s": 1.0}


def test_energy_is_compared_in_the_same_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "EnergyMeter", _Metered)
    workers: dict[str, Any] = {name: _Named(name) for name in ("ours", "theirs")}
    rounds = peers._rounds(workers, peers.PeerOptions(rounds=4, warm_up=1))
    contest = Contest("stream", "a stream", ("theirs",), {}, 60.0)
    row = peers._figures(contest, rounds, "theirs")
    assert (row["joules"], row["energy_source"], row["energy_ratio"]) == (8.0, "rapl", 1.5)
    rounds.joules["ours"] = []  # a counter that stood still
    assert "energy_ratio" not in peers._figures(contest, rounds, "theirs")
    assert "joules" not in peers._figures(contest, rounds, "ours")


def test_compiling_without_a_compiler_is_a_reason_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(FileNotFoundError) as failed:
        make_workload("inference/torch-compile", {})
    assert "C++ compiler" in reason(failed.value) and "no-such-compiler" in reason(failed.value)
    assert reason(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert reason(RuntimeError()) == "RuntimeError"


class _Interpreter:
    """The part of LiteRT's interpreter that is used; the score is the mean of the window."""

    def __init__(self, path: str, num_threads: int) -> None:
        assert num_threads == 1

    def allocate_tensors(self) -> None: ...

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"index": 0, "shape": np.array([1, 30])}]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": 1}]

    def set_tensor(self, index: int, window: np.ndarray) -> None:
        assert window.shape == (1, 30)
        self.window = window

    def invoke(self) -> None: ...

    def get_tensor(self, index: int) -> np.ndarray:
        return self.window.mean(axis=1, keepdims=True)


@pytest.mark.parametrize(("seconds", "count"), [(1, 1), (3, 1), (9, 3), (10, 4)])
def test_windows_cover_all_of_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, count: int
) -> None:
    module = types.ModuleType("ai_edge_litert.interpreter")
    monkeypatch.setattr(module, "Interpreter", _Interpreter, raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    monkeypatch.setattr(windows.Yamnet, "step_s", 3.0)
    (tmp_path / "yamnet.tflite").write_bytes(b"model")
    np.save(tmp_path / "audio.npy", np.ones(10 * seconds, np.float32))
    settings = {
        "audio": {"yamnet": str(tmp_path / "audio.npy")},
        "rates_hz": {"yamnet": 10},
        "yamnet": str(tmp_path / "yamnet.tflite"),
    }
    workload = windows.Yamnet(settings)
    scores = np.asarray(workload.go())
    assert scores.shape == (count, 1) and workload.about["windows"] == count
    assert scores.sum() * 30 == pytest.approx(10 * seconds)  # every sample once
    with pytest.raises(FileNotFoundError, match="STETHO_DATA"):
        windows.Yamnet({**settings, "yamnet": str(tmp_path / "none")})
