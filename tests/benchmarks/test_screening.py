"""The screening benchmark counts every recording, failed ones too, and ends with the reason where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from benchmarks.core.rows import check_row, read_results
from benchmarks.studies.screening import main, screening_rows
from edge_sdk.errors import StethoError
from edge_sdk.sources.phantom import PhantomSource

RATE = 4000


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five recordings, one of them no audio."""
    folder = tmp_path_factory.mktemp("archive")
    with PhantomSource("asthma", duration_s=12.0, sample_rate=RATE) as patient:
        samples = np.concatenate([block.samples for block in patient])
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", samples, RATE)
    (folder / "broken.wav").write_text("no audio")
    return folder


def test_every_recording_counts_for_every_number_of_workers(archive: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    out = tmp_path / "screening.json"
    result = CliRunner().invoke(
        app, [str(archive), "--engine", "local", "--workers", "1", "--workers", "2", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    machine, *measured = (json.loads(line) for line in result.stdout.splitlines())
    assert machine["benchmark"] == "machine"
    assert [row["workers"] for row in measured] == [1, 2]
    for row in measured:
        check_row(row)
        assert (row["n"], row["failed_recordings"]) == (5, 1)
        assert row["audio_s"] == pytest.approx(48.0)
        assert 0 < row["first_answer_s"] <= row["wall_s"]
    assert measured[0]["ratio"] == 1.0
    assert len(read_results(out).rows) == 3


def test_an_unknown_bundle_ends_with_the_error_of_the_command(archive: Path) -> None:
    with pytest.raises(StethoError, match="does not exist"):
        list(screening_rows(archive, ["local"], [1], bundle="nowhere"))


def test_a_folder_without_recordings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StethoError, match="no wav or flac"):
        list(screening_rows(tmp_path, ["local"], [1]))


def test_an_unknown_engine_is_a_usage_error(archive: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    assert CliRunner().invoke(app, [str(archive), "--engine", "abacus"]).exit_code == 2
