"""Committed ratios: what got worse is named and ends the gate; noise, other processors and missing peers do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.core.machine import machine_name
from benchmarks.core.rows import own_results_file, read_results, write_results
from benchmarks.ratios import check_ratios, doubts, keep_ratios, ratios_of
from edge_sdk.cli.bench.group import app
from edge_sdk.errors import StethoError

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def machine(cpu: str = "AMD EPYC", **more: Any) -> dict[str, Any]:
    return {
        "benchmark": "machine", "cpu": cpu, "cores": 2, "architecture": "x86_64", "os": "Linux", "python": "3",
        "versions": {}, "when": "2026-01-02T03:04:05Z", **more,
    }  # fmt: skip


def peer(
    ratio: float, spread: float = 0.02, *, part: str = "stream: silero-vad 8000 Hz", model: str = "compact 1.0"
) -> Any:
    ends = {"cpu_ratio_low": ratio * (1 - spread), "cpu_ratio_high": ratio * (1 + spread)}
    return {"benchmark": "peers", "subject": {"model": model, "part": part}, "cpu_ratio": ratio, **ends, "n": 30}


def failed(part: str, reason: str = "no network") -> dict[str, Any]:
    return {"benchmark": "peers", "subject": {"model": "compact 2.0", "part": part}, "failed": reason}


@pytest.mark.parametrize(
    ("now", "spread", "verdict"),
    [
        (1.0, 0.02, "no difference"),
        (1.19, 0.02, "no difference"),  # within the tolerance
        (1.3, 0.02, "worse"),
        (1.3, 0.4, "no difference"),  # beyond it, but not beyond the noise
        (0.7, 0.02, "better"),
    ],
)
def test_a_ratio_is_worse_beyond_the_tolerance_and_the_noise(now: float, spread: float, verdict: str) -> None:
    (one,) = check_ratios([machine(), peer(1.0)], [machine(), peer(now, spread, model="compact 2.0")], tolerance=0.2)
    assert one.verdict == verdict
    assert one.line.startswith(f"{verdict}: peers: compact · stream: silero-vad 8000 Hz: {now:.3g}")


def test_a_committed_ratio_with_wide_noise_needs_more() -> None:
    (one,) = check_ratios([machine(), peer(1.0, 0.5)], [machine(), peer(1.4)], tolerance=0.2)
    assert one.verdict == "no difference"


def test_a_row_without_an_interval_is_judged_by_itself() -> None:
    lone = {k: v for k, v in peer(1.3).items() if not k.startswith("cpu_ratio_")}
    (one,) = check_ratios([machine(), peer(1.0)], [machine(), lone])
    assert (one.verdict, one.interval) == ("worse", None)


def test_the_ratio_of_the_same_processor_counts_and_else_the_largest() -> None:
    committed = [machine("Intel(R) Xeon(R) Processor"), peer(2.0), machine("AMD EPYC"), peer(1.0)]
    (same,) = check_ratios(committed, [machine("AMD EPYC"), peer(1.5)])
    assert (same.verdict, same.committed) == ("worse", 1.0)
    (other,) = check_ratios(committed, [machine("ARM Neoverse"), peer(1.5)])
    assert (other.verdict, other.committed) == ("better", 2.0)
    assert "Intel Xeon, 2 cores" in other.line


def test_a_peer_that_is_not_there_is_named_and_our_own_failure_is_worse() -> None:
    parts = ("stream: silero-vad 8000 Hz", "front-end: librosa", "windows: birdnet")
    committed = [machine(), *(peer(1.0, part=part) for part in parts)]
    now = [machine(), peer(1.0, part=parts[0]), failed(parts[1]), failed("windows: ours", "it crashed")]
    found = {one.name.rpartition(" · ")[2]: one for one in check_ratios(committed, now)}
    assert found["front-end: librosa"].verdict == "not measured"
    assert "no network" in found["front-end: librosa"].line
    assert found["windows: birdnet"].verdict == "worse" and "it crashed" in found["windows: birdnet"].line


def test_our_row_of_the_same_rate_is_the_one_that_fails() -> None:
    committed = [machine(), peer(1.0), peer(1.0, part="stream: silero-vad 16000 Hz")]
    now = [machine(), peer(1.0, part="stream: silero-vad 16000 Hz"), failed("stream: ours 8000 Hz", "it crashed")]
    assert [one.verdict for one in check_ratios(committed, now)] == ["worse", "no difference"]


def test_a_run_without_any_committed_ratio_is_an_error() -> None:
    with pytest.raises(StethoError, match="none of the committed ratios"):
        check_ratios([machine(), peer(1.0)], [machine(), peer(1.0, part="front-end: librosa")])


def test_few_rounds_are_no_measurement() -> None:
    committed = [machine(), peer(1.0), peer(1.0, part="front-end: librosa")]
    now = [machine(), {**peer(9.0), "n": 4}, peer(1.0, part="front-end: librosa")]
    first, second = check_ratios(committed, now)
    assert (first.verdict, second.verdict) == ("not measured", "no difference") and "only 4 rounds" in first.line


def test_a_file_without_ratios_is_an_error() -> None:
    with pytest.raises(StethoError, match="stetho bench ratios"):
        check_ratios([machine()], [machine(), peer(1.0)])


def test_the_latency_of_an_artefact_is_a_ratio_to_torch() -> None:
    subject = {"model": "compact 1.0", "artefact": "onnx-int8-cpu", "threads": 2}
    row = {"benchmark": "latency", "subject": subject, "ratio_to_torch": 4.0, "ratio_to_torch_ci": [3.2, 5.0], "n": 9}
    newer = {**row, "cpu_ratio": 0.3, "cpu_ratio_low": 0.2, "cpu_ratio_high": 0.4}
    assert next(ratios_of([newer]))["cpu_ratio"] == 0.3  # CPU time, where the rows have it
    torch = {**row, "subject": {**subject, "artefact": "torch-eager"}, "ratio_to_torch": 1.0}
    (one,) = ratios_of([machine(), row, torch], "stetho bench latency")
    assert one["cpu_ratio"] == 0.25 and one["cpu_ratio_low"] == 0.2 and one["cpu_ratio_high"] == 0.3125
    assert one["subject"] == {"model": "compact", "part": "onnx-int8-cpu / torch eager", "threads": 2}
    assert one["command"] == "stetho bench latency" and one["machine"] == "AMD EPYC, 2 cores"


def test_the_file_of_ratios_keeps_those_of_other_processors(tmp_path: Path) -> None:
    for number, (cpu, ratio) in enumerate((("Intel", 2.0), ("AMD EPYC", 1.0), ("AMD EPYC", 0.9))):
        write_results(tmp_path / f"{number}.json", "stetho bench peers", [machine(cpu), peer(ratio)])
        keep_ratios(tmp_path / "ratios.json", [tmp_path / f"{number}.json"], "stetho bench ratios")
    rows = read_results(tmp_path / "ratios.json").rows
    assert [(row["machine"], row["cpu_ratio"]) for row in rows] == [("Intel, 2 cores", 2.0), ("AMD EPYC, 2 cores", 0.9)]
    write_results(tmp_path / "more.json", "c", [machine(), peer(3.0, part="front-end: librosa")])
    assert len(keep_ratios(tmp_path / "ratios.json", [tmp_path / "more.json"], "c")) == 1
    assert [row["cpu_ratio"] for row in read_results(tmp_path / "ratios.json").rows] == [2.0, 0.9, 3.0]
    write_results(tmp_path / "none.json", "c", [machine(), failed("stream: silero-vad")])
    with pytest.raises(StethoError, match="no ratio"):
        keep_ratios(tmp_path / "ratios.json", [tmp_path / "none.json"], "c")
    assert len(read_results(tmp_path / "ratios.json").rows) == 3


def test_the_gate_ends_with_1_and_a_line_for_each_ratio_that_got_worse(tmp_path: Path) -> None:
    parts = ("stream: silero-vad 8000 Hz", "front-end: librosa", "windows: birdnet")
    write_results(tmp_path / "before.json", "c", [machine(), *(peer(1.0, part=part) for part in parts)])
    write_results(tmp_path / "a.json", "c", [machine(load_average=[7.0]), peer(1.5, part=parts[0])])
    write_results(tmp_path / "b.json", "c", [machine(), peer(1.4, part=parts[1]), peer(1.0, part=parts[2])])
    keep_ratios(tmp_path / "ratios.json", [tmp_path / "before.json"], "c")
    paths = [str(tmp_path / f"{name}.json") for name in ("ratios", "a", "b")]
    result = CliRunner().invoke(app, ["compare", *paths, "--gate", "0.2"], catch_exceptions=False)
    assert result.exit_code == 1
    worse = [line for line in result.stderr.splitlines() if line.startswith("worse: ")]
    assert len(worse) == 2 and "silero-vad" in worse[0] and "librosa" in worse[1]
    assert "load 3.5 a core" in result.stderr and "no difference: peers: compact · windows: birdnet" in result.stdout
    found = CliRunner().invoke(app, ["compare", *paths, "--gate", "0.6", "--json"], catch_exceptions=False)
    assert found.exit_code == 0
    assert [json.loads(line)["verdict"] for line in found.stdout.splitlines()] == ["no difference"] * 3


def test_the_committed_ratios_pass_their_own_gate_and_name_their_commands() -> None:
    rows = read_results(RESULTS / "ratios.json").rows
    assert all(row["command"].startswith("stetho bench ") and row["machine"] for row in rows)
    names = {str(row["subject"]["part"]) for row in rows}
    assert names >= {"stream: silero-vad 8000 Hz", "front-end: kaldi-native-fbank", "windows: birdnet", "files"}
    for name in {row["machine"] for row in rows}:
        own = [row for row in rows if row["machine"] == name]
        assert {one.verdict for one in check_ratios(rows, own)} <= {"no difference", "not measured"}


def test_a_busy_machine_is_named_once() -> None:
    busy = machine(load_average=[2.1, 1.0, 1.0])
    assert len(doubts([busy, peer(1.0), busy, machine(load_average=[1.9])])) == 1
    (kept,) = ratios_of([busy, peer(1.0)])
    assert "load 1.1 a core) when ratios were committed" in doubts([kept])[0]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (machine("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz"), "Intel Xeon E5-2680 v4, 2 cores"),
        (machine("unknown", board="Raspberry Pi 5 Model B, x"), "unknown, 2 cores, Raspberry Pi 5 Model B"),
        (machine("AMD EPYC", gpu={"name": "NVIDIA H200"}), "AMD EPYC, 2 cores, NVIDIA H200"),
        ({"benchmark": "machine"}, "unknown"),
    ],
)
def test_a_machine_has_a_short_name(row: dict[str, Any], name: str) -> None:
    assert machine_name(row) == name


def test_no_results_file_of_another_machine_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    write_results(path, "c", [machine("Intel(R) Xeon(R) Processor"), peer(1.0)])
    assert own_results_file(path, machine("Intel(R) Xeon(R) Processor"), "peers") == path
    with pytest.raises(StethoError, match=r"--out \S+/peers\.amd-epyc-2-cores\.json"):
        own_results_file(path, machine("AMD EPYC"), "peers")
    assert own_results_file(tmp_path, machine("AMD EPYC"), "peers") == tmp_path / "peers.amd-epyc-2-cores.json"
    assert own_results_file(tmp_path / "new.json", machine(), "peers") == tmp_path / "new.json"


def test_a_benchmark_refuses_the_file_of_another_machine_before_it_measures(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    write_results(path, "c", [machine("A made-up processor"), peer(1.0)])
    before = path.read_bytes()
    result = CliRunner().invoke(app, ["peers", "--quick", "--only", "events", "--out", str(path)])
    assert isinstance(result.exception, StethoError) and "another machine" in str(result.exception)
    assert path.read_bytes() == before
    (tmp_path / "kept").mkdir()
    options = ["--quick", "--only", "events", "--out", str(tmp_path / "kept")]
    assert CliRunner().invoke(app, ["peers", *options], catch_exceptions=False).exit_code == 0
    (file,) = (tmp_path / "kept").iterdir()
    assert file.name.startswith("peers.") and len(read_results(file).rows) == 3
