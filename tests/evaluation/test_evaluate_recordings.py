"""``stetho evaluate --recordings``: verdicts of whole recordings, as their streams determine them second by second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

import edge_sdk
from edge_sdk.cli.main import run
from edge_sdk.corpora import Corpus, Cycle, Recording, load_corpus
from edge_sdk.errors import CorpusError
from edge_sdk.evaluation.model import ModelUnderTest, load_model
from edge_sdk.evaluation.verdicts import MeanOfCycles, read_verdicts, recording_truth
from edge_sdk.events import BreathCycle, CycleResult, Event, QualityEvent
from edge_sdk.metrics import CLASSES
from edge_sdk.metrics.verdict import GRACE_S, VerdictName
from edge_sdk.runtime.verdict.monitor import VerdictModel
from edge_sdk.runtime.verdict.params import VerdictParams
from edge_sdk.sources.phantom import PhantomSource
from tests.support.tiny_verdict import write_tiny_sounds

RATE = 4000
Stetho = Callable[..., tuple[int, str, str]]


class EachSecond:
    """Stands in for a model: one cycle a second, whose mean sample is its probability of a wheeze."""

    verdict = None

    def __init__(self) -> None:
        self.classifier = SimpleNamespace(
            labels=CLASSES, normal_index=0, metadata_schema=None, decide=lambda p: np.asarray(p.argmax(axis=1))
        )

    def stream(self, sample_rate: int, metadata: object = None) -> Any:
        received: list[npt.NDArray[np.float32]] = []
        done = 0

        def accept(samples: npt.NDArray[np.float32]) -> Iterator[Event]:
            nonlocal done
            received.append(samples)
            audio = np.concatenate(received)
            while len(audio) >= (done + 1) * RATE:
                wheeze = float(audio[done * RATE : (done + 1) * RATE].mean())
                cycle = BreathCycle(done, done * RATE, (done + 1) * RATE, RATE, True, (done + 1) * RATE, 1.0)
                done += 1
                yield QualityEvent(done * RATE, RATE, "ok", -20.0)
                if wheeze < 0:
                    yield CycleResult(cycle, None, {}, "noisy")
                else:
                    row = {"normal": 1 - wheeze, "crackle": 0.0, "wheeze": wheeze, "both": 0.0}
                    yield CycleResult(cycle, max(row, key=lambda label: row[label]), row)

        return SimpleNamespace(accept=accept, finish=lambda: [])


def recordings(folder: Path, **seconds: list[float]) -> tuple[Recording, ...]:
    rows = []
    for name, values in seconds.items():
        soundfile.write(
            folder / f"{name}.wav", np.repeat(np.array(values, dtype=np.float32), RATE), RATE, subtype="FLOAT"
        )
        rows.append(Recording("csv", name, folder / f"{name}.wav", name[0], abnormal=name.startswith("b")))
    return tuple(rows)


def test_the_running_mean_is_of_the_cycles_so_far(tmp_path: Path) -> None:
    corpus = Corpus("csv", tmp_path, recordings(tmp_path, a=[0.1, 0.3, -1.0, 0.2], b=[0.2, 0.9, 0.9], bare=[-1.0]))
    first, second, bare = read_verdicts(EachSecond(), corpus)  # type: ignore[arg-type]
    assert list(first.times_s) == [1.0, 2.0, 4.0]  # the cycle of poor quality changes nothing
    assert list(first.p_abnormal) == pytest.approx([0.1, 0.2, 0.2], abs=1e-4)
    assert (first.verdict, first.abnormal, first.duration_s) == ("normal", False, 4.0)
    assert second.probability(1.4) == pytest.approx(0.2, abs=1e-4)
    assert second.probability() == pytest.approx(2.0 / 3, abs=1e-4) and second.verdict == "abnormal"
    assert (bare.verdict, bare.probability()) == ("uncertain", None)


def test_another_reader_replaces_the_mean(tmp_path: Path) -> None:
    class LastCycle:
        p_abnormal: float | None = None
        verdict: VerdictName = "uncertain"

        def event(self, event: Event) -> float | None:
            if not isinstance(event, CycleResult) or event.label is None:
                return None
            self.p_abnormal = 1.0 - event.probabilities["normal"]
            return event.cycle.emitted_at / event.cycle.sample_rate

    corpus = Corpus("csv", tmp_path, recordings(tmp_path, b=[0.25, 0.75]))
    (trace,) = read_verdicts(EachSecond(), corpus, reader=lambda model: LastCycle())  # type: ignore[arg-type]
    assert list(trace.p_abnormal) == [0.25, 0.75] and trace.verdict == "uncertain"


def test_the_verdicts_of_a_model_that_gives_them_are_followed(tmp_path: Path) -> None:
    """Running ones from six seconds on, with their own probability; not the mean of the cycles."""
    with PhantomSource("asthma", duration_s=10.0, sample_rate=RATE) as source:
        samples = np.concatenate([block.samples for block in source])
    soundfile.write(tmp_path / "b.wav", samples, RATE, subtype="FLOAT")
    corpus = Corpus("csv", tmp_path, (Recording("csv", "b", tmp_path / "b.wav", "b", abnormal=True),))
    sounds = write_tiny_sounds(tmp_path)
    model = replace(load_model("default"), verdict=VerdictModel(sounds, VerdictParams(network=(-4.0, 0.0, 0.0, 0.0))))
    (trace,) = read_verdicts(model, corpus)
    assert trace.verdict in ("normal", "uncertain") and 6.0 <= min(trace.times_s) <= 6.0 + GRACE_S
    assert trace.probability(5.5) is None and trace.probability(6.0) is not None
    (mean,) = read_verdicts(replace(model, verdict=None), corpus)
    assert list(mean.times_s) != list(trace.times_s)


def test_a_recording_is_abnormal_when_one_of_its_cycles_is(tmp_path: Path) -> None:
    def cycle(recording: str, label: str) -> Cycle:
        return Cycle(recording, "csv", tmp_path, "p", 0, 0.0, 1.0, label, label)

    unlabelled = tuple(Recording("csv", name, tmp_path, "p") for name in "abc")
    cycles = (cycle("a", "normal"), cycle("a", "both"), cycle("b", "normal"))
    assert recording_truth(Corpus("csv", tmp_path, unlabelled, cycles)) == {"a": True, "b": False}
    labelled = (*unlabelled[:2], Recording("csv", "c", tmp_path, "p", abnormal=False))
    assert recording_truth(Corpus("csv", tmp_path, labelled, cycles)) == {"c": False}  # the publisher's labels alone
    with pytest.raises(CorpusError, match="labels no recording"):
        recording_truth(Corpus("csv", tmp_path, unlabelled))


@pytest.fixture
def stetho(capsys: pytest.CaptureFixture[str]) -> Stetho:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def few(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cycles of five ICBHI recordings of three patients, two of them without a sign."""
    corpus = load_corpus("icbhi", data_root / "icbhi", split="val")
    truth = recording_truth(corpus)
    kept = [r.id for r in corpus.recordings if not truth[r.id]][:2] + [r.id for r in corpus.recordings if truth[r.id]][
        :3
    ]
    path = tmp_path_factory.mktemp("few") / "few.csv"
    corpus.where(lambda recording: recording.id in kept).to_csv(path)
    return path


def test_the_command_gives_every_promised_field_and_a_line_per_recording(
    few: Path, stetho: Stetho, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.jsonl"
    arguments = ("evaluate", "default", "csv", few, "--recordings", "--bootstrap", "20")
    status, out, _ = stetho(*arguments, "--json", "--predictions", lines)
    report = json.loads(out)
    assert status == 0 and report["unit"] == "recording" and report["n"] == 5
    for name in ("auroc", "auroc_ci", "sensitivity", "specificity", "uncertain_fraction", "coverage"):
        assert name in report
    assert [row["seconds"] for row in report["auroc_by_seconds"]] == [3.0, 6.0, 9.0, 15.0, None]
    assert report["auroc_by_seconds"][-1]["auroc"] == report["auroc"]
    assert sum(map(sum, report["confusion"])) == 5
    assert sum(row["n"] for row in report["auroc_of_device"]) == 5
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 5 and {row["truth"] for row in rows} == {"normal", "abnormal"}
    for row in rows:
        times = [at for at, _ in row["running"]]
        assert times == sorted(times) and all(0 < at <= row["duration_s"] + 0.01 for at in times)
        assert row["p_abnormal"] == (row["running"][-1][1] if times else None)
    same = edge_sdk.evaluate("default", "csv", few, recordings=True, resamples=20)
    assert json.loads(json.dumps(same)) == report
    status, out, _ = stetho(*arguments)
    assert status == 0 and "seconds of audio" in out and "share of uncertain verdicts" in out


def test_the_last_probability_is_that_of_the_summary(few: Path, stetho: Stetho) -> None:
    """The running mean of the evaluation ends where the summary of ``screen`` ends."""
    corpus = load_corpus("csv", few)
    model: ModelUnderTest = load_model("default")
    for trace in read_verdicts(model, corpus, reader=MeanOfCycles)[:2]:
        path = next(r.path for r in corpus.recordings if r.id == trace.recording)
        summary = json.loads(stetho("screen", path, "--json")[1].splitlines()[-1])
        expected = None if trace.probability() is None else round(trace.probability() or 0.0, 4)
        assert summary["mean_p_abnormal"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("option", [("--by", "sex"), ("--against", "default"), ("--metadata", "unknown")])
def test_options_of_cycles_are_refused_with_recordings(few: Path, stetho: Stetho, option: tuple[str, str]) -> None:
    status, out, err = stetho("evaluate", "default", "csv", few, "--recordings", *option)
    assert (status, out) == (1, "") and "leave labels, by, against" in err and len(err.splitlines()) == 1
