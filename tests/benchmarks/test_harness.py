"""The harness counts every call, keeps the tail, and reports its machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper

from benchmarks.core.audio import LiveLoopSource, ScheduledLoopSource, folder_samples
from benchmarks.core.energy import EnergyMeter, board_power, energy_of, tegrastats_watts
from benchmarks.core.harness import (
    Interrupted,
    Row,
    deadline_misses,
    interleave,
    linear_fit,
    machine_row,
    median_ratio,
    peak_rss_mb,
    percentiles,
    pinned,
    round_order,
)
from benchmarks.core.roofline import Ceilings, count_macs
from benchmarks.core.rows import check_row, json_schema, markdown_table, read_results, write_results
from benchmarks.stream.stages import StageClock
from edge_sdk.errors import StethoError


def test_no_call_always_follows_the_same_other_one() -> None:
    orders = [round_order("abcd", index) for index in range(24)]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert all(odd == even[::-1] for even, odd in zip(orders[::2], orders[1::2], strict=True))
    before = {name: {o[o.index(name) - 1] for o in orders if o.index(name)} for name in "abcd"}
    assert all(before[name] == set("abcd") - {name} for name in "abcd")


def test_every_call_runs_in_every_round_and_the_order_alternates() -> None:
    calls: list[tuple[str, int]] = []
    timings = interleave(
        {"a": lambda i: calls.append(("a", i)), "b": lambda i: calls.append(("b", i))}, rounds=4, warm_up=1
    )
    assert calls[:2] == [("a", 0), ("b", 0)]
    order = "".join(call[0] for call in calls[2:])
    assert [order[i : i + 4] for i in (0, 4)] in [[x, y] for x in ("abba", "baab") for y in ("abba", "baab")]
    assert all(len(t["seconds"]) == len(t["cpu_seconds"]) == 4 for t in timings.values())


def test_a_slower_call_has_the_larger_ratio() -> None:
    timings = interleave({"slow": lambda _: time.sleep(0.004), "fast": lambda _: None}, rounds=5, warm_up=1)
    assert median_ratio(timings["slow"]["seconds"], timings["fast"]["seconds"]) > 10


def test_percentiles_keep_the_tail() -> None:
    row = percentiles([0.001] * 99 + [5.0])
    assert row["max_ms"] == 5000.0
    assert row["p50_ms"] == 1.0
    assert row["n"] == 100
    assert row["p99_ms"] == np.percentile([1.0] * 99 + [5000.0], 99)


@pytest.mark.parametrize(
    ("n", "given"), [(9, []), (10, [90]), (19, [90]), (20, [90, 95]), (99, [90, 95]), (100, [90, 95, 99])]
)
def test_a_percentile_is_given_only_where_a_measurement_can_lie_beyond_it(n: int, given: list[int]) -> None:
    row = percentiles([0.001 * (k + 1) for k in range(n)])
    assert [percent for percent in (90, 95, 99) if row[f"p{percent}_ms"] is not None] == given
    assert row["max_ms"] == pytest.approx(n)


def test_the_machine_row_names_cpu_and_versions() -> None:
    row = machine_row()
    assert row["benchmark"] == "machine"
    assert row["cores"] >= 1
    assert "numpy" in row["versions"]


def test_peak_memory_of_a_child_does_not_inherit_its_parents_size() -> None:
    ballast = np.ones(40_000_000, np.uint8)
    code = "from benchmarks.core.harness import peak_rss_mb; print(peak_rss_mb())"
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert ballast.sum() == 40_000_000
    assert 5 < child < peak_rss_mb()


def test_ctrl_c_between_rounds_keeps_the_whole_rounds() -> None:
    def stop(index: int) -> None:
        if index == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        interleave({"a": lambda _: None, "b": stop}, rounds=10, warm_up=0)
    assert {name: len(t["seconds"]) for name, t in stopped.value.timings.items()} == {"a": 3, "b": 3}


def test_a_deadline_is_missed_only_beyond_it() -> None:
    assert deadline_misses([0.1, 0.2, 0.3], 0.2) == 1
    assert deadline_misses([], 0.1) == 0


def test_a_straight_line_fits_and_a_crooked_one_does_not() -> None:
    straight = linear_fit([1, 2, 3, 4], [3, 5, 7, 9])
    assert straight is not None
    assert (straight.slope, straight.intercept, straight.r2) == pytest.approx((2.0, 1.0, 1.0))
    crooked = linear_fit([1, 2, 3, 4], [0, 9, 0, 9])
    assert crooked is not None
    assert crooked.r2 < 0.5
    assert linear_fit([1, 1], [2, 3]) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads to cores")
def test_pinned_threads_stay_on_their_cores_and_are_free_afterwards() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert os.sched_getaffinity(0) == set(cores)
        assert len(cores) == 1
    assert os.sched_getaffinity(0) == before


def test_energy_counts_rapl_packages_once_and_across_a_wrap(tmp_path: Path) -> None:
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:0:0", 5), ("intel-rapl:1", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(value * 1_000_000))
        (tmp_path / name / "max_energy_range_uj").write_text(str(1000 * 1_000_000))
    with EnergyMeter(tmp_path, tmp_path / "none") as meter:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text(str(20 * 1_000_000))
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text(str(107 * 1_000_000))
    assert meter.source == "rapl"
    assert meter.joules == pytest.approx(120.0 + 7.0)


def test_energy_reads_the_input_rail_of_a_jetson(tmp_path: Path) -> None:
    sensor = tmp_path / "hwmon3"
    sensor.mkdir()
    files = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "2000"}
    for name, text in files.items():
        (sensor / name).write_text(text + "\n")
    found = board_power(tmp_path)
    assert found is not None
    assert found[0] == "VDD_IN"
    assert found[1]() == pytest.approx(10.0)
    with EnergyMeter(tmp_path / "none", tmp_path) as meter:
        time.sleep(0.05)
    assert meter.source == "ina3221 VDD_IN"
    assert meter.joules is not None
    assert meter.joules > 0
    assert tegrastats_watts("RAM 1/2MB VDD_IN 4970mW/4970mW VDD_CPU 500mW/500mW") == 4.97
    assert tegrastats_watts("POM_5V_IN 3000/3000") == 3.0


def test_a_machine_without_a_meter_reports_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with EnergyMeter(tmp_path, tmp_path) as meter:
        pass
    assert not meter.available
    assert meter.joules is None
    assert meter.figures() == energy_of([]) == {}


def test_a_counter_that_stands_still_is_no_energy_of_zero(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    for name in ("energy_uj", "max_energy_range_uj"):
        (tmp_path / "intel-rapl:0" / name).write_text("1000000")
    with EnergyMeter(tmp_path, tmp_path / "none") as still:
        pass
    assert still.figures() == {}
    with EnergyMeter(tmp_path, tmp_path / "none") as moving:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1500000")
    assert energy_of([moving, moving]) == {"joules": 1.0, "energy_source": "rapl"}
    assert energy_of([moving, still]) == {}


def test_kept_results_are_readable_old_and_new(tmp_path: Path) -> None:
    for path in sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json")):
        if not path.name.endswith("_cv.json"):  # one report each, no rows
            rows = read_results(path).rows
            assert rows
            for row in rows:
                if "benchmark" in row:  # the others are rows of 'stetho evaluate', 'export' and 'train'
                    check_row(row)
    write_results(tmp_path / "new.json", "stetho bench x", [machine_row(), {"benchmark": "x", "n": np.int64(3)}])
    kept = read_results(tmp_path / "new.json")
    assert kept.command == "stetho bench x"
    assert kept.rows[1]["n"] == 3
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(StethoError, match=r"bad\.json"):
        read_results(tmp_path / "bad.json")


def test_a_row_of_wrong_types_is_refused() -> None:
    check_row({"benchmark": "latency", "subject": {"model": "x"}, "p50_ms": 1.0, "anything": "else"})
    with pytest.raises(StethoError, match="p50_ms"):
        check_row({"benchmark": "latency", "p50_ms": "fast"})
    assert "definitions" in json_schema()


def test_a_bad_row_is_not_written_and_the_refusal_names_row_and_field(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    good: Row = {"benchmark": "latency", "subject": {"model": "compact 1", "artefact": "onnx-fp32"}, "p50_ms": 1.0}
    write_results(path, "stetho bench latency", [machine_row(), good])
    before = path.read_bytes()
    for bad, field in (
        ({**good, "p50_ms": "fast"}, "p50_ms"),
        ({**good, "subject": {**good["subject"], "threads": "two"}}, "subject.threads"),
        ({k: v for k, v in good.items() if k != "benchmark"}, "benchmark"),
    ):
        with pytest.raises(StethoError, match=rf"row 3 .*compact 1 · onnx-fp32.*{field}"):
            write_results(path, "stetho bench latency", [machine_row(), good, bad])
    with pytest.raises(StethoError, match=r"row 1 \(machine\).*cpu"):
        write_results(path, "stetho bench latency", [{"benchmark": "machine"}, good])
    assert path.read_bytes() == before


def test_a_live_source_plays_recordings_in_a_loop_and_counts_what_it_delivered() -> None:
    recordings = [np.arange(30, dtype=np.float32), np.arange(100, 112, dtype=np.float32)]
    source = LiveLoopSource(recordings, 1000, seconds=0.08, speed=100.0, block_s=0.02)
    blocks = list(source)
    expected = np.concatenate([*recordings, *recordings])[:80]
    assert np.concatenate([block.samples for block in blocks]).tolist() == expected.tolist()
    assert source.delivered == 80


def test_recordings_for_a_live_source_have_one_rate(tmp_path: Path) -> None:
    for name, rate in (("a.wav", 4000), ("b.flac", 8000)):
        soundfile.write(tmp_path / name, np.zeros(rate, np.float32), rate)
    assert [samples.size for samples in folder_samples(tmp_path, 8000)] == [8000, 8000]
    with pytest.raises(StethoError, match="no wav or flac"):
        folder_samples(tmp_path / "none", 8000)


def test_the_markdown_table_has_a_line_a_row_and_the_reasons_below() -> None:
    rows: list[Row] = [
        {"benchmark": "machine"},
        {"benchmark": "latency", "subject": {"artefact": "onnx-fp32", "batch": 8}, "p50_ms": 1.5},
        {"benchmark": "latency", "subject": {"artefact": "onnx-fp16"}, "failed": "no GPU"},
    ]
    assert markdown_table(rows, ("p50_ms",)).splitlines() == [
        "| subject | p50 ms |", "|---|---:|", "| onnx-fp32 × 8 | 1.50 |", "", "* onnx-fp16: no GPU",
    ]  # fmt: skip


def test_multiplications_are_counted_in_convolutions_and_products(tmp_path: Path) -> None:
    weights = np.zeros((6, 2, 3), np.float32)  # 4 input channels in 2 groups
    matrix = np.zeros((60, 7), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], group=2),
            helper.make_node("Flatten", ["c"], ["f"]),
            helper.make_node("MatMul", ["f", "m"], ["p"]),
            helper.make_node("Gemm", ["p", "g"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(array, name)
            for name, array in (("w", weights), ("m", matrix), ("g", np.zeros((5, 7), np.float32)))
        ],
    )
    path = tmp_path / "graph.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    for batch in (1, 3):
        macs = count_macs(path, {"x": np.zeros((batch, 4, 12), np.float32)})
        assert macs == batch * (6 * 10 * 2 * 3 + 60 * 7 + 7 * 5)


def test_the_slower_of_two_ceilings_sets_the_least_time() -> None:
    ceilings = Ceilings(1, gemm_flops=1e9, memory_bytes=1e9)
    assert ceilings.least_s(1_000_000, 1000) == (2e-3, "compute")
    assert ceilings.least_s(1000, 5_000_000) == (5e-3, "memory")


def test_stages_within_stages_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    monkeypatch.setattr("benchmarks.stream.stages.time.thread_time_ns", lambda: now_ns[0])
    clock = StageClock()

    def work(milliseconds: int) -> None:
        now_ns[0] += milliseconds * 1_000_000

    front_end = clock.timed("front end", lambda: work(20))

    def segmenter() -> None:
        work(3)
        front_end()
        work(4)

    clock.timed("segmenter", segmenter)()
    assert clock.seconds["front end"] == [0.020]
    assert clock.seconds["segmenter"] == [0.007]


def test_a_scheduled_source_stamps_each_block_with_its_due_time() -> None:
    samples = np.arange(30, dtype=np.float32)
    blocks = list(ScheduledLoopSource(samples, 1000, 0.1, block_s=0.04, start_ns=0))
    assert np.concatenate([b.samples for b in blocks]).tolist() == [float(k % 30) for k in range(100)]
    assert [b.host_ns for b in blocks] == [40_000_000, 80_000_000, 100_000_000]
