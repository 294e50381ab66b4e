"""``stetho train`` from folder to checkpoint, resumable, with one-line errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.cli.main import run
from edge_sdk.training.checkpoint import load_checkpoint
from tests.support.tiny_corpus import EVENTS_PER_RECORDING, RATE, RECORDINGS, synthetic_data
from tests.support.tiny_segmentation import ALONE, write_corpus

_SHORT = [
    *("--set", "heart_corpus=null", "--set", "fit.epochs=2", "--set", "fit.batch=16"),
    *("--set", "sampling.per_epoch=32", "--set", "front_end.window_s=1.0", "--size", "tiny"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic corpus as wavs and a generic table; the last four patients are val."""
    root = tmp_path_factory.mktemp("corpus")
    data = synthetic_data()
    names = ("normal", "crackle", "wheeze", "both")
    rows = []
    for recording in range(RECORDINGS):
        start = data.bank.starts[recording]
        pcm = data.bank.samples[start : start + data.bank.lengths[recording]].numpy()
        soundfile.write(root / f"r{recording}.wav", pcm, RATE, subtype="PCM_16")
        split = "val" if recording >= RECORDINGS - 4 else "train"
        for event in range(EVENTS_PER_RECORDING):
            row = recording * EVENTS_PER_RECORDING + event
            begin, end = data.events.begin[row] / RATE, data.events.end[row] / RATE
            rows.append((f"r{recording}.wav", begin, end, names[data.events.bits[row]], f"p{recording}", split))
    with (root / "cycles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "start_s", "end_s", "label", "patient", "split"))
        writer.writerows(rows)
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "cache"))


def _stetho(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def _train(corpus: Path, out: Path) -> list[str]:
    return ["train", "compact", "--corpus", "csv", "--root", str(corpus), "--out", str(out), *_SHORT]


def test_one_command_writes_a_checkpoint_with_its_provenance(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = _stetho([*_train(corpus, tmp_path / "run"), "--json", "--seed", "4"], capsys)
    assert status == 0
    (result,) = (json.loads(line) for line in out.splitlines())
    assert result["n"] == 4 * EVENTS_PER_RECORDING
    checkpoint = load_checkpoint(Path(result["checkpoint"]), model="compact")
    assert checkpoint.size == "tiny"
    assert checkpoint.metrics["score"] == result["score"]
    source = checkpoint.provenance
    assert (source["corpus"], source["split"], source["seed"], source["patients"]) == ("csv", "train", 4, 8)
    assert sum(source["cycles"].values()) == 8 * EVENTS_PER_RECORDING
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "checkpoint.pt",
        "identity.json",
        "last-state.pt",
        "log.csv",
        "metrics.json",
        "recipe.yaml",
    }


def test_the_written_recipe_reproduces_the_weights(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _stetho(_train(corpus, tmp_path / "one"), capsys)[0] == 0
    again = ["train", str(tmp_path / "one" / "recipe.yaml"), "--corpus", "csv", "--root", str(corpus)]
    assert _stetho([*again, "--out", str(tmp_path / "two")], capsys)[0] == 0
    one, two = (load_checkpoint(tmp_path / name / "checkpoint.pt").state for name in ("one", "two"))
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor.numpy(), two[name].numpy())


def test_cross_validation_names_the_decision_to_ship(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, _ = _stetho([*_train(corpus, tmp_path / "cv"), "--cv", "3"], capsys)
    assert status == 0
    report = json.loads((tmp_path / "cv" / "cv.json").read_text())
    assert report["metrics"]["n"] == RECORDINGS * EVENTS_PER_RECORDING == sum(fold["n"] for fold in report["folds"])
    assert report["decision"]["temperature"] > 0


def test_seeds_and_sweeps_end_in_a_table_of_means(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*_train(corpus, tmp_path / "runs"), "--set", "epochs=1", "--sweep", "batch=8,16", "--seeds", "2"]
    status, out, _ = _stetho([*command, "--json"], capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["settings"] for row in rows] == [["batch=8"], ["batch=16"]]
    assert all(row["seeds"] == [0, 1] and len(row["score_runs"]) == 2 for row in rows)
    assert (tmp_path / "runs" / "batch=8" / "seed-1" / "checkpoint.pt").is_file()
    status, out, _ = _stetho(command, capsys)  # nothing is left to train
    assert status == 0 and "batch=16" in out and "±" in out


def test_the_figures_of_a_step_network_come_by_what_is_annotated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.training.segmentation.crossval._PHANTOMS", 2)
    write_corpus(tmp_path / "corpus")
    alone = [part for name in ALONE for part in ("--set", f"segment.{name}=null")]
    place = ["--corpus", "sprsound", "--root", str(tmp_path / "corpus"), "--out", str(tmp_path / "cv")]
    small = ["--size", "tiny", "--set", "heart_corpus=null", "--set", "epochs=1"]
    command = ["train", "segmenter", "--cv", "2", *place, *small, *alone]
    status, out, _ = _stetho(command, capsys)
    figures = json.loads((tmp_path / "cv" / "cv.json").read_text())["metrics"]
    assert status == 0 and "nothing measured" not in out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert "event" in lines["of"] and lines["events"][0] == str(figures["events"]["n_true"])
    assert f"{figures['exact']['event_f1']:.3f}" in lines["exact"]


def test_list_gives_a_row_per_recipe_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _stetho(["train", "--list", "--json"], capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    compact = {row["size"]: row["parameters"] for row in rows if row["name"] == "compact"}
    assert compact["tiny"] < compact["small"] < compact["base"]
    assert {"name", "size", "model", "parameters", "paper", "protocol"} <= set(rows[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "fit.epoch=1"], "unknown field `epoch`"),
        (["--set", "heart_corpus=nowhere"], "--set heart_corpus=null"),
        (["--corpus", "nothing"], "nothing"),
    ],
)
def test_mistakes_are_one_line_with_the_fix_and_leave_nothing_behind(
    change: list[str], message: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = _stetho([*_train(corpus, tmp_path / "run"), *change], capsys)
    assert status == 1
    assert err.count("\n") == 1 and message in err
    assert out == ""
    assert not (tmp_path / "run").exists()


def test_missing_arguments_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert _stetho(["train", "compact"], capsys)[0] == 2
