"""Curves are written as the run goes, and a resumed run does not double them."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from edge_sdk.errors import MissingDependencyError, RecipeError
from edge_sdk.training.loop import loggers
from edge_sdk.training.loop.fit import EpochReport
from edge_sdk.training.loop.loggers import RunLogs, flat, numbers
from edge_sdk.training.run_folder import LOG_FILE


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / LOG_FILE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_line_an_epoch_and_follows_a_resumed_run(tmp_path: Path) -> None:
    first = RunLogs(tmp_path, ["csv"], {})
    for epoch in (1, 2, 3):
        first.epoch(EpochReport(epoch, 1.0 / epoch, 1e-3, 0.5))
    resumed = RunLogs(tmp_path, ["csv"], {})
    resumed.epoch(EpochReport(3, 0.25, 1e-4, None))
    resumed.finish({"score": 0.5})
    rows = _rows(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert (rows[0]["validation"], rows[2]["loss"], rows[2]["validation"]) == ("0.5", "0.25", "")


def test_nothing_is_written_before_the_first_epoch(tmp_path: Path) -> None:
    RunLogs(tmp_path / "run", None, {})
    assert not (tmp_path / "run").exists()


def test_logs_that_are_absent_or_unknown_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="csv, tensorboard, mlflow"):
        RunLogs(tmp_path, ["wandb"], {})
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert loggers.available() == ["csv"]
    with pytest.raises(MissingDependencyError, match=r"stethoscope-edge-sdk\[mlflow\]"):
        RunLogs(tmp_path, ["mlflow"], {})


def test_tensorboard_joins_by_itself_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: importlib.util.find_spec("csv"))
    assert loggers.available() == ["csv", "tensorboard"]


def test_settings_and_figures_are_flattened() -> None:
    assert flat({"fit": {"batch": 8}, "name": "x"}) == {"fit.batch": 8, "name": "x"}
    assert numbers({"n": 3, "score": 0.5, "ok": True, "labels": ["a"]}) == {"n": 3.0, "score": 0.5}
