"""Every fault runs in its short form, counts lost samples, and leaves nothing behind; time bounds are findings."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.core.rows import check_row
from benchmarks.faults.row import ON_TIME_S, fault_row, on_device_clock, recovery_s
from benchmarks.faults.run import FAULTS
from edge_sdk.cli.bench.group import app

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(app, ["faults", "--quick", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    for line in lines:
        check_row(line)
    assert lines[0]["benchmark"] == "machine"
    return {line["subject"]["part"]: line for line in lines[1:]}


def test_there_is_a_row_for_every_fault_with_its_bounds(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == list(FAULTS)
    for row in rows.values():
        assert isinstance(row["passed"], bool) and row["fault"]
        assert row["lost_samples"] <= row["lost_bound_samples"] or not row["passed"]


def test_every_lost_sample_is_counted(rows: dict[str, dict[str, Any]]) -> None:
    assert [name for name, row in rows.items() if not row["accounted"]] == []


def test_an_unplugged_device_loses_the_audio_of_that_time(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["unplug"]["lost_samples"] > 0.3 * rows["unplug"]["sample_rate"]
    assert rows["unplug"]["gaps"] == 1


def test_a_clock_that_jumps_changes_no_cycle(rows: dict[str, dict[str, Any]]) -> None:
    for name in ("clock-wall", "clock-monotonic"):
        assert rows[name]["same_events"] and rows[name]["lost_samples"] == 0


def test_a_full_disk_is_a_typed_error_and_the_recording_can_be_read(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["disk-full"]["passed"], rows["disk-full"]
    assert "what was recorded so far is kept" in rows["disk-full"]["message"]


def test_no_device_is_left_running(rows: dict[str, dict[str, Any]]) -> None:
    assert [t.name for t in threading.enumerate() if t.name in ("emulated device", "fault", "stetho-source")] == []


def arrival(at_s: float, late_s: float) -> tuple[int, int, int, float]:
    return round(at_s * SECOND), 0, 10, late_s


def test_recovery_lasts_until_the_last_late_block() -> None:
    on_time, late = ON_TIME_S / 2, 2 * ON_TIME_S
    blocks = [arrival(1, late), arrival(2.5, late), arrival(3, on_time), arrival(3.5, late), arrival(4, on_time)]
    assert recovery_s(blocks, 2 * SECOND) == pytest.approx(1.5)
    assert recovery_s(blocks[:3], 2 * SECOND) == pytest.approx(0.5)
    assert recovery_s(blocks[:1] + blocks[2:3], 2 * SECOND) == 0.0


def test_a_session_that_is_late_at_the_end_never_recovered() -> None:
    assert recovery_s([arrival(3, 1.0)], 2 * SECOND) is None
    assert recovery_s([], 0) is None


def test_a_block_held_in_a_buffer_is_late_on_the_devices_clock() -> None:
    on_time = [(k * SECOND, k * 8000, 8000, 0.0) for k in range(3)]
    held_back = [(5 * SECOND, 3 * 8000, 8000, 0.0)]
    assert [a[3] for a in on_device_clock([*on_time, *held_back])] == pytest.approx([0.0, 0.0, 0.0, 2.0])


def test_a_row_names_the_bound_that_does_not_hold() -> None:
    row = fault_row("x", recovery_s=3.0, recovery_bound_s=1.0, lost=5, lost_bound=0, accounted=False)
    assert row["passed"] is False
    for word in ("recovered after 3.00 s", "lost 5 samples", "count of lost samples is wrong"):
        assert word in row["why"]
    never = fault_row("x", recovery_s=None, recovery_bound_s=1.0, lost=0, lost_bound=0, accounted=True)
    assert never["passed"] is False
    assert fault_row("x", recovery_s=0.2, recovery_bound_s=1.0, lost=0, lost_bound=0, accounted=True)["passed"] is True


def test_an_unknown_fault_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["faults", "--only", "meteor"]).exit_code == 2
