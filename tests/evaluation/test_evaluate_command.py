"""``stetho evaluate``: exact figures of a model with known predictions, and one clear line per error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

import edge_sdk.evaluation.report as evaluation
from edge_sdk.cli.main import run
from edge_sdk.events import BreathCycle, CycleResult
from edge_sdk.metrics import CLASSES
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.signal.spec import FrontEndSpec

TONES = {"normal": 100, "crackle": 300, "wheeze": 500, "both": 700, "nothing": 900}
RATE = 8000
Stetho = Callable[..., tuple[int, str, str]]


@dataclass
class ToneModel:
    """Stands in for a model: classifies by pitch, except that it takes 'both' for crackles."""

    labels: tuple[str, ...] = CLASSES
    front_end: FrontEndSpec = field(default_factory=lambda: FrontEndSpec(rate_hz=4000, window_s=1.0))
    calls: list[int] = field(default_factory=list)
    name: str = "tones"
    version: str = "1"
    artefact: str = "onnx-fp32"
    training: dict[str, Any] = field(default_factory=dict)
    metadata_schema: None = None
    normal_index: int = 0
    verdict: None = None
    decoder: Decoder = field(default_factory=Decoder)

    @property
    def classifier(self) -> ToneModel:
        return self

    @property
    def normal_label(self) -> str:
        return self.labels[0]

    def logits(self, pcm: npt.NDArray[np.float32], metadata: None = None) -> npt.NDArray[np.float64]:
        assert pcm.shape[1] == self.front_end.window_samples
        self.calls.append(len(pcm))
        return np.log([self.row(window, 4000) for window in pcm])

    def decide(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.asarray(probabilities.argmax(axis=1))

    def row(self, samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
        pitch = np.abs(np.fft.rfft(samples)).argmax() * rate / samples.size
        name = min(TONES, key=lambda name: abs(TONES[name] - pitch))
        row = np.full(len(self.labels), 0.1 / (len(self.labels) - 1))
        row[self.labels.index("crackle" if name == "both" else name)] = 0.9
        return row

    def stream(self, sample_rate: int, metadata: object = None) -> ToneStream:
        return ToneStream(self, sample_rate)


class ToneStream:
    """One cycle per second; no label for the tone 'nothing'."""

    def __init__(self, model: ToneModel, rate: int) -> None:
        self.model, self.rate, self.received = model, rate, np.zeros(0, np.float32)

    def accept(self, samples: npt.NDArray[np.float32]) -> list[CycleResult]:
        self.received = np.concatenate([self.received, samples])
        return []

    def finish(self) -> list[CycleResult]:
        results = []
        for k in range(len(self.received) // self.rate):
            second = self.received[k * self.rate : (k + 1) * self.rate]
            cycle = BreathCycle(k, k * self.rate, (k + 1) * self.rate, self.rate, True, len(self.received), 1.0)
            pitch = np.abs(np.fft.rfft(second)).argmax()
            if abs(pitch - TONES["nothing"]) < 50:
                results.append(CycleResult(cycle, None, {}, "noisy"))
            else:
                row = self.model.row(second, self.rate)
                label = self.model.labels[int(row.argmax())]
                results.append(CycleResult(cycle, label, dict(zip(self.model.labels, row.tolist(), strict=True))))
        return results


def tones(path: Path, *names: str, rate: int = RATE) -> Path:
    """A file with one second of each tone."""
    time = np.arange(rate) / rate
    samples = np.concatenate([0.3 * np.sin(2 * math.pi * TONES[name] * time) for name in names])
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.astype(np.float32), rate)
    return path


@pytest.fixture
def tone_model(monkeypatch: pytest.MonkeyPatch) -> ToneModel:
    model = ToneModel()
    monkeypatch.setattr(evaluation, "load_model", lambda *_: model)
    return model


@pytest.fixture
def stetho(capsys: pytest.CaptureFixture[str]) -> Stetho:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture
def cycles_root(tmp_path: Path) -> Path:
    """Two patients, six breaths: three normal, of which one is called a wheeze; a crackle, a wheeze, a 'both'."""
    tones(tmp_path / "a.wav", "normal", "crackle", "wheeze")
    tones(tmp_path / "b.flac", "both", "normal", "wheeze", rate=16000)
    (tmp_path / "labels.csv").write_text(
        "file,start_s,end_s,label,patient,split\n"
        "a,0,1,normal,p1,test\na,1,2,crackle,p1,test\na,2,3,wheeze,p1,test\n"
        "b,0,1,both,p2,test\nb,1,2,normal,p2,test\nb,2,3,normal,p2,test\n"
    )
    return tmp_path


def test_figures_are_those_of_the_known_predictions(tone_model: ToneModel, stetho: Stetho, cycles_root: Path) -> None:
    code, out, err = stetho("evaluate", "default", "csv", cycles_root / "labels.csv", "--split", "test", "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report["n"] == 6
    assert report["counts"] == {"normal": 3, "crackle": 1, "wheeze": 1, "both": 1}
    assert report["confusion"] == [[2, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert report["specificity"] == pytest.approx(2 / 3)
    assert report["sensitivity"] == pytest.approx(2 / 3)
    assert report["score"] == pytest.approx(2 / 3)
    assert report["sensitivity_2class"] == 1.0
    assert report["score_2class"] == pytest.approx(5 / 6)
    assert report["auroc"] == pytest.approx((6 + 1.5) / 9)  # two normals under all, one tied with all
    assert report["ece"] == pytest.approx(abs(0.9 - 4 / 6))
    assert report["unit"] == "cycle"
    assert (report["model"], report["corpus"], report["split"]) == ("default", "csv", "test")
    assert len(report["score_ci"]) == len(report["auroc_ci"]) == 2
    assert sum(tone_model.calls) == 6


def test_predictions_file_has_a_line_per_breath(tone_model: ToneModel, stetho: Stetho, cycles_root: Path) -> None:
    target = cycles_root / "predictions.jsonl"
    code, out, _ = stetho("evaluate", "default", "csv", cycles_root / "labels.csv", "--predictions", target)
    assert code == 0
    assert "Score (strict)" in out
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["truth"] for line in lines] == ["normal", "crackle", "wheeze", "both", "normal", "normal"]
    assert [line["prediction"] for line in lines] == ["normal", "crackle", "wheeze", "crackle", "normal", "wheeze"]
    assert (lines[4]["recording"], lines[4]["patient"], lines[4]["start_s"], lines[4]["end_s"]) == ("b", "p2", 1.0, 2.0)
    assert lines[0]["probabilities"]["normal"] == pytest.approx(0.9)
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1.0)
    assert [path.name for path in cycles_root.glob(".*")] == []


def test_one_class_alone_gives_null(tone_model: ToneModel, stetho: Stetho, tmp_path: Path) -> None:
    tones(tmp_path / "a.wav", "normal", "normal")
    (tmp_path / "labels.csv").write_text("file,start_s,end_s,label\na,0,1,normal\na,1,2,normal\n")
    code, out, _ = stetho("evaluate", "default", "csv", tmp_path, "--json")
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert code == 0
    assert report["specificity"] == 1.0
    for name in ("sensitivity", "score", "score_2class", "auroc", "score_ci", "auroc_ci", "ece_ci"):
        assert report[name] is None
    assert stetho("evaluate", "default", "csv", tmp_path)[0] == 0  # people's table too


def test_recordings_without_breath_marks_go_through_the_stream(
    tone_model: ToneModel, stetho: Stetho, tmp_path: Path
) -> None:
    folder = tmp_path / "AudioFiles"
    for filt in "BD":
        tones(folder / f"{filt}P1_N,N,P R U,81,F.wav", "normal", "normal", rate=4000)
    tones(folder / "BP2_Asthma,E W,P L U,45,F.wav", "normal", "wheeze", "wheeze", "nothing", rate=4000)
    tones(folder / "BP3_pneumonia,Bronchial,P R L ,64,M.wav", "crackle", rate=4000)
    tones(folder / "BP4_pneumonia,Crep,P R L ,64,M.wav", "nothing", rate=4000)
    tones(folder / "BP5_x,gurgle,P R L ,64,M.wav", "normal", rate=4000)
    target = tmp_path / "lines.jsonl"
    code, out, err = stetho("evaluate", "default", "kauh", tmp_path, "--json", "--predictions", target)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["unit"], report["n"], report["patients"], report["recordings"]) == ("recording", 5, 4, 6)
    assert (report["unlabelled"], report["unclassified"]) == (1, 1)
    assert report["counts"] == {"normal": 2, "crackle": 1, "wheeze": 1, "both": 0, "other": 1}
    assert report["confusion"] == [[2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert report["auroc"] == 1.0  # normal 0.1; the undecided one 0.5
    lines = {line["recording"][:3]: line for line in map(json.loads, target.read_text().splitlines())}
    assert lines["BP2"]["cycles"] == 3
    assert lines["BP2"]["probabilities"]["normal"] == pytest.approx((0.9 + 2 * 0.1 / 3) / 3)
    assert lines["BP4"]["prediction"] is None
    assert lines["BP4"]["probabilities"]["normal"] == 0.5
    assert lines["BP3"]["truth"] == "other"


def test_a_two_label_model_is_scored_as_such(
    stetho: Stetho, cycles_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Binary(ToneModel):
        def row(self, samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
            four = ToneModel().row(samples, rate)
            return np.array([four[0], 1 - four[0]])

    monkeypatch.setattr(evaluation, "load_model", lambda *_: Binary(("normal", "abnormal")))
    report = json.loads(stetho("evaluate", "default", "csv", cycles_root / "labels.csv", "--json")[1])
    assert report["confusion"] == [[2, 1], [0, 3]]
    assert report["sensitivity"] == report["sensitivity_2class"] == 1.0


def test_what_cannot_be_evaluated_is_one_line(
    tone_model: ToneModel, stetho: Stetho, cycles_root: Path, data_root: Path
) -> None:
    table = cycles_root / "labels.csv"
    clips = data_root / "hf_lung_phase_clips"
    for arguments, message in (
        (("default", "csv", table, "--split", "val"), "has no split 'val'; it has test, all"),
        (("default", "elsewhere", table), "unknown corpus 'elsewhere'"),
        (("default", "csv", table, "--predictions", cycles_root / "no" / "file"), "does not exist"),
        (("default", "hf_lung_clips", clips, "--split", "val"), "labels no recording normal or abnormal"),
    ):
        code, out, err = stetho("evaluate", *arguments, "--json")
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert err.startswith("stetho: error: ")
        assert message in err


def test_a_model_with_other_labels_is_refused(
    stetho: Stetho, cycles_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diagnosis(ToneModel):
        def row(self, samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
            return np.full(3, 1 / 3)

    monkeypatch.setattr(evaluation, "load_model", lambda *_: Diagnosis(("healthy", "asthma", "copd")))
    code, _, err = stetho("evaluate", "default", "csv", cycles_root / "labels.csv")
    assert code == 1
    assert "cannot be scored on csv: unknown labels" in err


def test_a_broken_recording_leaves_nothing_half_written(
    tone_model: ToneModel, stetho: Stetho, cycles_root: Path
) -> None:
    whole = (cycles_root / "b.flac").read_bytes()
    (cycles_root / "b.flac").write_bytes(whole[: len(whole) // 2])
    target = cycles_root / "predictions.jsonl"
    code, out, err = stetho("evaluate", "default", "csv", cycles_root / "labels.csv", "--predictions", target, "--json")
    assert (code, out) == (1, "")
    assert "b.flac" in err
    assert not target.exists()


def test_a_missing_model_is_one_line(stetho: Stetho, cycles_root: Path, tmp_path: Path) -> None:
    for model, message in ((tmp_path / "none.pt", "does not exist"), (tmp_path / "none", "does not exist")):
        code, out, err = stetho("evaluate", model, "csv", cycles_root / "labels.csv")
        assert (code, out) == (1, "")
        assert message in err
    (tmp_path / "text.pt").write_text("no checkpoint")
    code, _, err = stetho("evaluate", tmp_path / "text.pt", "csv", cycles_root / "labels.csv")
    assert code == 1
    assert "not a readable checkpoint" in err


def test_a_checkpoint_is_evaluated_as_it_would_be_exported(stetho: Stetho, tmp_path: Path, data_root: Path) -> None:
    import torch

    from edge_sdk.corpora import load_corpus
    from edge_sdk.corpora.audio import cycle_pcm
    from edge_sdk.metrics import softmax
    from edge_sdk.training.checkpoint import save_checkpoint
    from edge_sdk.training.untrained import untrained_checkpoint

    checkpoint = untrained_checkpoint("compact")
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    corpus = load_corpus("sprsound", data_root / "sprsound", split="val")
    few = corpus.where(lambda recording: recording.patient in corpus.patients[:2])
    few.to_csv(tmp_path / "few.csv")
    target = tmp_path / "lines.jsonl"
    code, out, err = stetho(
        "evaluate", tmp_path / "model.pt", "csv", tmp_path / "few.csv", "--json", "--predictions", target
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["n"] == len(few.cycles) > 20
    assert json.loads(out)["artefact"] == "torch"
    windows = np.stack([window for _, window in cycle_pcm(few.cycles, checkpoint.front_end)])
    with torch.inference_mode():
        logits = checkpoint.build_end_to_end()(torch.from_numpy(windows)).numpy()
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    found = np.array([[line["probabilities"][label] for label in CLASSES] for line in lines])
    assert found == pytest.approx(softmax(logits), abs=1e-4)
