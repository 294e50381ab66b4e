"""Tables in the terminal never cut a name or a number, at any width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from benchmarks.compare import compare_results
from benchmarks.core.rows import read_results
from edge_sdk.cli import tables
from edge_sdk.cli.bench import (
    accuracy_command,
    faults_command,
    latency_command,
    results_commands,
    rows_output,
    soak_command,
    stream_command,
)
from edge_sdk.cli.doctor import command as doctor
from edge_sdk.cli.doctor.checks import Check
from edge_sdk.cli.export import export
from edge_sdk.cli.runtime import devices
from edge_sdk.cli.tables import Column, print_table
from edge_sdk.cli.training import data, evaluation_tables, train
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.sources import devices as source_devices
from edge_sdk.training.recipes.recipe import load_recipe, recipe_names

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
WIDTHS = (60, 80, 120)
HIDDEN = re.compile(r"hidden at this width: (.*) \(--json has all columns\)")

Printed = tuple[Sequence[Column], list[list[str]], str]


def plain(cell: str | Text) -> str:
    return cell if isinstance(cell, str) else cell.plain


def printed_tables(
    print_all: Callable[[], object], module: ModuleType, width: int, monkeypatch: pytest.MonkeyPatch
) -> list[Printed]:
    """Columns, cells and output of every table that a command prints on a terminal of ``width`` columns."""
    printed: list[Printed] = []
    screen = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)

    def record(columns: Sequence[Column], rows: Any, **options: Any) -> None:
        kept = [list(row) for row in rows]
        console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
        print_table(columns, kept, **{**options, "console": console})
        printed.append((columns, [[plain(c) for c in row] for row in kept], console.file.getvalue()))  # type: ignore[attr-defined]

    for place in (tables, module):
        monkeypatch.setattr(place, "print_table", record, raising=False)
        monkeypatch.setattr(place, "stdout_console", lambda: screen, raising=False)
    print_all()
    assert printed
    return printed


def check_whole(table: Printed, width: int) -> None:
    """Every number, and every word of every name and text, stands whole in its own column."""
    columns, rows, out = table
    assert max(map(len, out.splitlines())) <= width
    flat = " ".join(out.split())
    found = HIDDEN.search(flat)
    hidden = found[1].split(", ") if found else []
    shown = [i for i, column in enumerate(columns) if column.title not in hidden or column.keep]
    assert all(columns[i].kind != "name" for i in range(len(columns)) if i not in shown)
    tokens = out.split()
    for row in rows:
        for i in shown:
            if columns[i].kind == "number" and row[i]:
                assert re.search(rf"(?<!\S){re.escape(row[i])}(?!\S)", out), row[i]
            elif columns[i].kind == "name" and len(row[i]) <= width // 3:
                assert row[i] in out, row[i]
            for word in row[i].split():
                assert word in tokens or len(word) > width // 3, word
    assert out.count("…") == sum(row[i].count("…") for row in rows for i in shown)


def kept_rows(name: str) -> list[dict[str, Any]]:
    return [dict(row) for row in read_results(RESULTS / f"{name}.json").rows]


def bench_table(name: str, columns: Sequence[str]) -> Callable[[], object]:
    machine, *measured = kept_rows(name)
    return lambda: rows_output._print(machine, measured, name, columns)


def compare_table() -> None:
    before, after = kept_rows("latency"), kept_rows("latency")
    for row in after:
        row |= {key: row[key] * 1.25 for key in ("p50_ms", "p95_ms") if isinstance(row.get(key), float)}
    results_commands._print_differences(compare_results(before, after), [], [])


def doctor_table() -> None:
    doctor._print(
        [
            Check("core packages", "ok", "numpy 2.2.6, onnxruntime 1.23.2, soundfile 0.13.1, sounddevice 0.5.3"),
            Check("extra train", "absent", "missing: torch", "pip install 'stethoscope-edge-sdk[train]'"),
        ]
    )


def data_table() -> None:
    report = SimpleNamespace(title="A corpus", root="/data/corpus", discrepancies=["one"], problems=[], licence="CC0")
    report.counts = {
        "recordings": 920, "patients": 126, "events": 6898, "hours": 5.4832, "rates_hz": {4000: 90, 44100: 824},
        "splits_published": {"train": {"recordings": 539, "patients": 79, "events": 4142}}, "split_classes": {},
        "recording_labels": {}, "classes": {"crackle and wheeze": 506},
    }  # fmt: skip
    report.published = {"recordings": 920, "splits": {"train": {"recordings": 539, "patients": 79, "events": 4142}}}
    data._print(report)  # type: ignore[arg-type]


def evaluation_table() -> None:
    names = ("specificity", "sensitivity", "score", "sensitivity_2class", "score_2class", "auroc", "ece")
    figures: dict[str, Any] = {name: 0.123 + k / 10 for k, name in enumerate(names)} | {
        f"{n}_ci": (0.1234, 0.9876) for n in names
    }
    figures["operating_points"] = [
        {"specificity_at_least": 0.9, "sensitivity": 0.456, "sensitivity_ci": (0.321, 0.654)}
    ]
    group = {"group": "AKG C417L microphone", "n": 1234, "patients": 126, "abnormal": 0.42, **figures}
    difference = {"value": 0.5, "against": 0.4, "difference": 0.1, "low": -0.012, "high": 0.211, "p_value": 0.034}
    evaluation_tables.show(
        {
            "name": "compact", "artefact": "onnx-int8-cpu", "corpus": "icbhi", "split": "test", "n": 2756,
            "unit": "cycle", "patients": 49, "labels": ["normal", "crackle", "wheeze", "both"],
            "confusion": [[1200, 101, 202, 76], [0, 649, 0, 0], [1, 2, 385, 3], [4, 5, 6, 143]],
            "reliability": [{"confidence": 0.55, "accuracy": 0.512, "n": 1234}],
            "counts": {"other": 3}, **figures, "groups": {"device": [group]},
            "against": {"model": "other", "artefact": "onnx-fp32", "metrics": {"score": difference, "ece": None}},
            "controls": {"metadata-only": {"model": "logistic regression", "trained_on": 4142, **figures}},
        }
    )  # fmt: skip


def train_tables() -> None:
    row = {"settings": ["sam.rho=0.01", "fit.epochs=10"], "seeds": [0, 1, 2]}
    train._print_runs([{**row, **dict.fromkeys(train._FIGURES, 0.5123), "score_sd": 0.0123}])
    train._print_result({"score": 0.5123, "score_ci": (0.4, 0.6), "n": 1234, "checkpoint": "run/checkpoint.pt"}, 0)


def export_table() -> None:
    exported = SimpleNamespace(manifest=load_bundle("default").manifest, made=[], part_only=False)
    export._print(exported, Path("bundle"), False)  # type: ignore[arg-type]


def recipe_tables() -> None:
    recipes = [load_recipe(name) for name in recipe_names()]
    train._print_recipes(
        [
            {
                "name": recipe.name, "size": recipe.model.size, "model": recipe.model.name, "parameters": 87_654_321,
                "title": recipe.title, "protocol": recipe.protocol, "paper": recipe.paper, "default": True,
            }
            for recipe in recipes
        ]
    )  # fmt: skip


TABLES: dict[str, tuple[ModuleType, Callable[[], object]]] = {
    "latency": (rows_output, bench_table("latency", latency_command._COLUMNS)),
    "accuracy": (rows_output, bench_table("bench_accuracy", accuracy_command._COLUMNS)),
    "stream": (rows_output, bench_table("stream", stream_command._COLUMNS)),
    "soak": (rows_output, bench_table("soak", soak_command._COLUMNS)),
    "faults": (rows_output, bench_table("faults", faults_command._COLUMNS)),
    "compare": (results_commands, compare_table),
    "doctor": (doctor, doctor_table),
    "data check": (data, data_table),
    "evaluate": (evaluation_tables, evaluation_table),
    "train": (train, train_tables),
    "train --list": (train, recipe_tables),
    "export": (export, export_table),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", TABLES)
def test_no_table_of_any_command_cuts_a_name_or_a_number(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, print_all = TABLES[command]
    for table in printed_tables(print_all, module, width, monkeypatch):
        check_whole(table, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_devices_keep_their_names_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    microphone = {"index": 12, "name": "USB Audio Device: Stethoscope capture (hw:2,0)", "channels": 1, "default": True}
    port = {"port": "/dev/ttyACM0", "description": "Electronic stethoscope", "stethoscope": True}
    monkeypatch.setattr(source_devices, "find_microphones", lambda: ([microphone], None))
    monkeypatch.setattr(source_devices, "find_serial_ports", lambda **_: [port])
    for table in printed_tables(devices.devices_command, devices, width, monkeypatch):
        check_whole(table, width)


def show(width: int, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    print_table(columns, rows, console=Console(width=width, file=out, force_terminal=True, color_system=None))
    return out.getvalue()


NUMBERS = [Column(f"figure {k}") for k in range(8)]


def test_columns_that_do_not_fit_are_named_and_the_last_go_first() -> None:
    rows = [["compact onnx-int8", *(f"{1000 + k}.125" for k in range(8))]]
    wide, narrow = (show(width, [Column("model", "name"), *NUMBERS], rows) for width in (200, 60))
    assert "hidden" not in wide
    assert all(f"{1000 + k}.125" in narrow for k in range(4)) and "1007.125" not in narrow
    assert "figure 7 (--json has all columns)" in " ".join(narrow.split())


def test_a_column_that_must_stay_stays_and_a_text_is_folded_before_a_number_goes() -> None:
    columns = [Column("model", "name"), *NUMBERS[:3], Column("why", "text", keep=True)]
    out = show(
        60, columns, [["a model", "11.5", "22.5", "33.5", "a reason with so many words that it fills two lines"]]
    )
    assert "hidden" not in out
    assert {"11.5", "22.5", "33.5", "reason", "lines"} <= set(out.split())


def test_even_a_terminal_too_narrow_for_one_number_breaks_none() -> None:
    assert "123456789.125" in show(12, [Column("", "name"), Column("n", keep=True)], [["x", "123456789.125"]])


def test_a_pipe_has_no_edge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table([Column("model", "name"), *NUMBERS], [["word " * 40, *(f"{1000 + k}.125" for k in range(8))]])
    header, line = capsys.readouterr().out.splitlines()
    assert "1000.125" in line and "1007.125" in line and "figure 7" in header


def test_brackets_in_a_cell_are_text() -> None:
    assert "a[red]b" in show(60, [Column("name", "name")], [["a[red]b"]])
