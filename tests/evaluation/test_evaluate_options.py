"""``stetho evaluate`` beyond one number: groups, a second model, metadata controls, warnings, other label sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from edge_sdk.cli.main import run
from edge_sdk.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edge_sdk.training.untrained import untrained_checkpoint

Stetho = Callable[..., tuple[int, str, str]]

RATE = 4000
PATIENTS = 24
SITES = ("left anterior", "right anterior")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four patients with two breaths each; device 0 records mostly the normal ones of the training half."""
    root = tmp_path_factory.mktemp("options")
    random = np.random.default_rng(0)
    with (root / "cycles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "start_s", "end_s", "label", "patient", "split", "site", "device", "age", "sex"))
        for patient in range(PATIENTS):
            soundfile.write(root / f"r{patient}.wav", (0.1 * random.normal(size=2 * RATE)).astype(np.float32), RATE)
            split = "train" if patient < PATIENTS // 2 else "test"
            for breath in range(2):
                abnormal = (patient + breath) % 2
                label = "normal" if not abnormal else ("crackle", "wheeze")[patient % 2]
                device = f"device {abnormal if patient < 10 else patient % 2}"
                # a device is a recording's: the second breath stands in a file of its own
                name = f"r{patient}.wav" if breath == 0 else f"s{patient}.wav"
                if breath:
                    samples = (0.1 * random.normal(size=2 * RATE)).astype(np.float32)
                    soundfile.write(root / name, samples, RATE)
                metadata = (f"p{patient}", split, SITES[patient % 2], device, 2 + 3 * patient, "")
                writer.writerow((name, 0.0, 1.5, label, *metadata))
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints with random weights, their conditioning moved away from its zero start."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("compact", 0), ("compact", 1), ("film", 0)):
        checkpoint = untrained_checkpoint(name, size="tiny", seed=seed)
        source = {"corpus": "sprsound", "split": "train", "seed": seed}
        save_checkpoint(replace(moved(checkpoint), provenance=source), folder / f"{name}{seed}.pt")
    return folder


def moved(checkpoint: Checkpoint) -> Checkpoint:
    generator = torch.Generator().manual_seed(1)
    state = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) if "generator" in name else tensor
        for name, tensor in checkpoint.state.items()
    }
    return replace(checkpoint, state=state)


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], root: Path, models: Path) -> Callable[..., dict[str, Any]]:
    def call(model: str, *options: object) -> dict[str, Any]:
        arguments = [
            "evaluate",
            models / model,
            "csv",
            root,
            "--split",
            "test",
            "--bootstrap",
            "50",
            "--json",
            *options,
        ]
        with pytest.raises(SystemExit) as stop:
            run([str(argument) for argument in (*arguments, *options)])
        out, err = capsys.readouterr()
        assert stop.value.code in (0, None), err
        report: dict[str, Any] = json.loads(out)
        report["stderr"] = err
        return report

    return call


Evaluate = Callable[..., dict[str, Any]]


def test_groups_add_up_and_small_ones_have_no_interval(evaluate: Evaluate) -> None:
    report = evaluate("compact0.pt", "--by", "device", "--by", "age", "--by", "sex")
    assert set(report["groups"]) == {"device", "age", "sex"}
    for rows in report["groups"].values():
        assert sum(row["n"] for row in rows) == report["n"] == 24
    assert [row["group"] for row in report["groups"]["sex"]] == ["unknown"]
    assert report["groups"]["sex"][0]["auroc"] == report["auroc"]
    assert {row["group"] for row in report["groups"]["age"]} == {"18–64", "65+"}
    assert all(row["score_ci"] is None for row in report["groups"]["device"])  # six patients each


def test_a_second_model_is_compared_on_the_same_breaths(evaluate: Evaluate, models: Path) -> None:
    one, other = evaluate("compact0.pt"), evaluate("compact1.pt")
    report = evaluate("compact0.pt", "--against", models / "compact1.pt")["against"]
    for metric in ("auroc", "score", "ece"):
        row = report["metrics"][metric]
        assert (row["value"], row["against"]) == (one[metric], other[metric])
        assert row["difference"] == pytest.approx(one[metric] - other[metric])
        assert row["low"] <= row["high"]
    same = evaluate("compact0.pt", "--against", models / "compact0.pt")["against"]["metrics"]
    assert all(row["difference"] == row["low"] == row["high"] == 0.0 for row in same.values())


def lines(path: Path) -> np.ndarray:
    return np.array([list(json.loads(line)["probabilities"].values()) for line in path.read_text().splitlines()])


def test_a_model_receives_the_metadata_of_the_option(evaluate: Evaluate, models: Path, tmp_path: Path) -> None:
    predicted = {}
    for mode in ("given", "unknown", "shuffled"):
        report = evaluate("film0.pt", "--metadata", mode, "--predictions", tmp_path / mode)
        assert report.get("metadata", "given") == mode
        predicted[mode] = lines(tmp_path / mode)
    assert not np.allclose(predicted["given"], predicted["unknown"])
    assert not np.allclose(predicted["given"], predicted["shuffled"])
    checkpoint = load_checkpoint(models / "film0.pt")
    again = evaluate("film0.pt", "--metadata", "shuffled", "--predictions", tmp_path / "again")
    assert again["n"] == 24
    np.testing.assert_array_equal(lines(tmp_path / "again"), predicted["shuffled"])
    assert checkpoint.metadata_schema is not None


def test_metadata_alone_is_a_control_of_its_own(evaluate: Evaluate) -> None:
    control = evaluate("compact0.pt", "--control", "metadata-only")["controls"]["metadata-only"]
    assert (control["n"], control["trained_on"]) == (24, 24)
    assert control["auroc"] is not None and control["auroc_ci"] is not None


def test_a_model_scored_on_what_it_learnt_from_is_warned_of(
    evaluate: Evaluate, data_root: Path, root: Path, capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    assert "warnings" not in evaluate("compact0.pt")
    inside = replace(load_checkpoint(models / "compact0.pt"), provenance={"corpus": "csv", "split": "train", "seed": 0})
    save_checkpoint(inside, models / "inside.pt")
    report = evaluate("inside.pt", "--train-root", root)
    assert "warnings" not in report  # other patients, other audio
    arguments = ["evaluate", models / "inside.pt", "csv", root, "--split", "all", "--train-root", root, "--json"]
    with pytest.raises(SystemExit):
        run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "in the training side csv too" in json.loads(out)["warnings"][0]
    assert err.startswith("stetho: warning: ")


def test_options_that_do_not_exist_or_fit_are_refused(
    models: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, code, message in (
        (("--by", "weather"), 2, "is none of"),
        (("--metadata", "guessed"), 2, "is none of"),
        (("--control", "nothing"), 2, "is none of"),
        (("--metadata", "unknown"), 1, "reads no metadata"),
        (("--control", "metadata-only", "--train-split", "test"), 1, "patients are in both"),
        (("--labels", "sprsound7"), 1, "sprsound7"),
    ):
        arguments = ["evaluate", models / "compact0.pt", "csv", root, "--split", "test", *options]
        with pytest.raises(SystemExit) as stop:
            run([str(argument) for argument in arguments])
        assert (stop.value.code or 0) == code
        text = " ".join(capsys.readouterr().err.split())
        assert message in text.replace("│ ", "")


def test_people_see_groups_comparison_and_control(models: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", models / "compact0.pt", "csv", root, "--split", "test", "--bootstrap", "20"]
    options = ["--by", "device", "--against", models / "compact1.pt", "--control", "metadata-only"]
    with pytest.raises(SystemExit) as stop:
        run([str(argument) for argument in (*arguments, *options)])
    assert stop.value.code in (0, None)
    out = capsys.readouterr().out
    for part in ("sensitivity at specificity ≥ 0.9", "device 0", "against", "difference", "control metadata-only"):
        assert part in out
