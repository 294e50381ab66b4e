"""The look-ahead study: one row per run, in order, with a table and a figure next to the file."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from benchmarks.core.rows import read_results
from benchmarks.report.results import read_folder
from benchmarks.studies.look_ahead import main
from edge_sdk.training.run_folder import RunOptions
from edge_sdk.training.segmentation.run import train_segmenter
from tests.support.tiny_segmentation import tiny_recipe, write_corpus


def test_runs_become_rows_a_table_and_a_figure(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    runs = []
    for look_ahead in (0.5, 0.03):
        recipe = tiny_recipe(
            "segment.window_s=4.0", "fit.epochs=1",
            f"model.options.look_ahead_s={look_ahead}",
        )  # fmt: skip
        out = tmp_path / f"run{look_ahead}"
        options = RunOptions("sprsound", tmp_path / "corpus", out, cache=tmp_path / "cache", logs=(), resamples=0)
        train_segmenter(recipe, options)
        runs.append(str(out))
    app = typer.Typer()
    app.command()(main)
    kept = tmp_path / "results" / "look_ahead.json"
    result = CliRunner().invoke(
        app, [*runs, "--root", str(tmp_path / "corpus"), "--bootstrap", "50", "--out", str(kept)]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["look_ahead_s"] for row in rows] == [0.03, 0.5]
    assert rows[0]["n_true"] >= 1 and rows[0]["parameters"] == rows[1]["parameters"]
    assert "look_ahead_s=0.5" in rows[1]["command"]
    assert [row for row in read_results(kept).rows if row["benchmark"] == "look-ahead"] == rows
    assert read_folder(kept.parent).of("look-ahead")
    assert kept.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    table = kept.with_suffix(".md").read_text()
    assert "| segmenter run0.03" in table and str(tmp_path) not in table
