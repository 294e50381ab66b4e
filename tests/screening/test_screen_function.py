"""``edge_sdk.screen``: one call for a file, a list or samples, with the results of the command line."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile

import edge_sdk
from edge_sdk.cli.main import run
from edge_sdk.sources.phantom import PhantomSource

RATE = 4000


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Twelve seconds of a simulated patient, float32 [n]."""
    with PhantomSource("asthma", duration_s=12.0, sample_rate=RATE) as source:
        return np.concatenate([block.samples for block in source])


@pytest.fixture
def recording(tmp_path: Path, samples: np.ndarray) -> Path:
    path = tmp_path / "good.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def test_a_file_gives_the_lines_of_the_command(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screening = edge_sdk.screen(recording)
    with pytest.raises(SystemExit):
        run(["screen", str(recording), "--json"])
    assert list(screening.records) == [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_its_fields_agree_with_each_other(recording: Path) -> None:
    screening = edge_sdk.screen(str(recording))
    summary = screening.records[-1]
    assert screening.error is None
    assert screening.source == str(recording)
    assert screening.duration_s == 12.0
    assert len(screening.cycles) == summary["cycles"] >= 3
    assert all(isinstance(result, edge_sdk.CycleResult) for result in screening.cycles)
    assert screening.counts == {n: sum(r.label == n for r in screening.cycles) for n in screening.counts}
    assert screening.respiratory_rate_bpm == summary["respiratory_rate_bpm"]
    assert screening.abnormal_fraction == summary["abnormal_fraction"]
    assert screening.mean_p_abnormal == summary["mean_p_abnormal"]
    assert (screening.gaps, screening.lost_samples) == ((), 0)
    assert screening.quality[-1].state == "ok"
    content = json.loads(json.dumps(screening.to_dict()))
    assert [cycle["start_s"] for cycle in content["cycles"]] == [
        round(result.cycle.start_s, 4) for result in screening.cycles
    ]
    assert content["summary"]["duration_s"] == 12.0


def test_samples_give_what_their_file_gives(recording: Path, samples: np.ndarray) -> None:
    expected = edge_sdk.screen(recording)
    assert edge_sdk.screen((samples, RATE)).events == expected.events
    stereo = np.stack([np.zeros_like(samples), samples], axis=1)
    assert edge_sdk.screen((stereo, RATE), channel=1).events == expected.events
    bundle = edge_sdk.load_bundle()
    assert edge_sdk.screen((samples.astype(np.float64), RATE), bundle=bundle).events == expected.events


def test_a_list_comes_in_order_and_a_faulty_file_does_not_stop_it(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    wanted = [tmp_path / "text.wav", recording, tmp_path / "missing.wav"]
    for jobs in (1, 2):
        bad, good, missing = edge_sdk.screen(wanted, jobs=jobs)
        assert [item.source for item in (bad, good, missing)] == [str(path) for path in wanted]
        assert "not a readable recording" in str(bad.error)
        assert good.events == edge_sdk.screen(recording).events
        assert missing.to_dict() == {"source": str(wanted[2]), "error": missing.error}
        with pytest.raises(edge_sdk.AudioError, match="no such file"):
            _ = missing.cycles
        with pytest.raises(edge_sdk.AudioError, match="not a readable recording"):
            _ = bad.respiratory_rate_bpm


def test_a_folder_is_a_list(recording: Path) -> None:
    (screening,) = edge_sdk.screen([recording.parent])
    assert list(edge_sdk.screen(recording.parent)) == [screening]  # type: ignore[call-overload]
    assert screening.events == edge_sdk.screen(recording).events


def test_an_artefact_and_metadata_reach_the_stream(recording: Path) -> None:
    assert edge_sdk.screen(recording, artefact="onnx-fp32").cycles
    assert edge_sdk.screen(recording, metadata={"site": "trachea", "age_years": 40}).cycles
    with pytest.raises(edge_sdk.StreamError, match="unknown site 'back'; give one of trachea, left anterior"):
        edge_sdk.screen([recording], metadata={"site": "back"})  # at once, not for each recording
    with pytest.raises(edge_sdk.StreamError, match="unknown metadata shoe_size"):
        edge_sdk.screen(recording, metadata={"shoe_size": 43})
    with pytest.raises(edge_sdk.BundleError, match="holds no artefact 'gold'"):
        edge_sdk.screen(recording, artefact="gold")


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ((np.zeros(100, np.float32), RATE), "too short"),
        ((np.zeros(RATE * 5, np.int16), RATE), "floats"),
        ((np.zeros(RATE * 5, np.float32), RATE + 0.5), "no whole number"),
        ((np.full(RATE * 5, np.nan, np.float32), RATE), "NaN"),
        ((np.zeros((RATE * 5, 2), np.float32), RATE), "no channel 2"),
        ((np.zeros((RATE * 5, 2, 2), np.float32), RATE), "one channel"),
        ("missing.wav", "no such file"),
    ],
)
def test_what_cannot_be_screened_is_one_clear_error(audio: object, message: str) -> None:
    with pytest.raises(edge_sdk.AudioError, match=message):
        edge_sdk.screen(audio, channel=2 if message == "no channel 2" else 0)  # type: ignore[call-overload]


def test_every_public_name_exists_and_every_error_is_public() -> None:
    for name in edge_sdk.__all__:
        assert getattr(edge_sdk, name) is not None
    errors = {
        n for n, v in vars(import_module("edge_sdk.errors")).items() if isinstance(v, type) and issubclass(v, Exception)
    }
    assert errors <= set(edge_sdk.__all__)
