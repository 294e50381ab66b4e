"""What the library warns of reaches a person as one line on stderr, once; what dependencies chatter does not."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from pathlib import Path

import pytest

from edge_sdk.cli.messages import guard
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, read_manifest
from edge_sdk.runtime.engines.cache import cache_folder
from edge_sdk.screening.recordings import ScreenOptions, screen_many
from tests.cli.conftest import Stetho

NOISE = ("onnxruntime", "matplotlib.font_manager", "ray.data", "torch.onnx", "root")


@pytest.fixture
def damaged_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine in the cache that an interrupted copy left without its sidecar: passed over with a warning."""
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "cache"))
    (default,) = (a for a in read_manifest(DEFAULT_BUNDLE).artefacts if a.format == "onnx-fp32")
    engine = cache_folder() / f"{default.sha256[:16]}-abc.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"half")
    return engine


def test_a_warning_is_one_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    with guard(debug=False):
        for number in (1, 1, 2):
            logging.getLogger("edge_sdk.training.loop.sam").warning("a gradient\nis not finite: %d", number)
        logging.getLogger("firmware_bridge.receiver").error("the device: %s", "flash full")
        logging.getLogger("edge_sdk.sources").info("nothing for a person")
    assert capsys.readouterr().err.splitlines() == [
        "stetho: warning: a gradient is not finite: 1",
        "stetho: warning: a gradient is not finite: 2",
        "stetho: warning: the device: flash full",
    ]


def test_in_json_a_warning_is_a_record_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with guard(debug=False, json=True):
        logging.getLogger("edge_sdk.corpora").warning("%s: 3 faults passed over", "caf\udce9")
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line) for line in err.splitlines()] == [
        {"type": "warning", "message": "caf\\xe9: 3 faults passed over"}
    ]


def test_a_terminal_shows_it_in_colour_unless_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, coloured in (("", True), ("1", False)):
        shown = io.StringIO()
        monkeypatch.setattr(shown, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stderr", shown)
        monkeypatch.setenv("NO_COLOR", variable)
        with guard(debug=False):
            logging.getLogger("benchmarks").warning("hot")
        assert ("\x1b[33m" in shown.getvalue()) is coloured
        assert shown.getvalue().endswith(" hot\n")


def test_chatter_of_dependencies_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with guard(debug=False):
        for name in NOISE:
            logging.getLogger("" if name == "root" else name).warning("font cache is built")
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        warnings.warn("divided by zero", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == ""


def test_a_failure_of_a_dependency_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with guard(debug=False):
        logging.getLogger("asyncio").error("a task was destroyed")
    assert capsys.readouterr().err == "stetho: warning: a task was destroyed\n"


def test_nothing_stays_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(SystemExit), guard(debug=False):
        raise ValueError("odd")
    assert logging.getLogger().handlers == before
    with pytest.warns(UserWarning, match="again"):
        warnings.warn("again", UserWarning, stacklevel=1)
    assert "unexpected ValueError: odd" in capsys.readouterr().err


def test_an_engine_that_is_passed_over_has_one_line_also_with_workers(
    stetho: Stetho, damaged_engine: Path, recording: Path, tmp_path: Path
) -> None:
    (tmp_path / "second.wav").write_bytes(recording.read_bytes())
    outcome = stetho("screen", recording, tmp_path / "second.wav", "--json", "--jobs", 2)
    assert outcome.status == 0
    assert [record["type"] for record in outcome.records].count("summary") == 2
    (warning,) = (json.loads(line) for line in outcome.err.splitlines())
    assert warning["type"] == "warning"
    assert str(damaged_engine) in warning["message"]


@pytest.mark.long
def test_warnings_of_workers_reach_the_loggers_of_a_library_user(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    bundle = load_bundle()
    damaged = request.getfixturevalue("damaged_engine")  # after this process has loaded the bundle
    (tmp_path / "second.wav").write_bytes(recording.read_bytes())
    found = list(screen_many(bundle, [recording, tmp_path / "second.wav"], ScreenOptions(), jobs=2))
    assert [item.error for item in found] == [None, None]
    messages = [r.getMessage() for r in caplog.records if r.name == "edge_sdk.runtime.engines.selection"]
    assert messages and all(str(damaged) in message for message in messages)


def test_faults_that_are_passed_over_reach_stderr(stetho: Stetho, data_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "half"
    (root / "train_wav").mkdir(parents=True)
    (root / "train_json").mkdir()
    source = data_root / "sprsound"
    for annotation in sorted((source / "train_json").glob("*.json"))[:3]:
        (root / "train_json" / annotation.name).write_bytes(annotation.read_bytes())
        for audio in (source / "train_wav").glob(f"{annotation.stem}.*"):
            (root / "train_wav" / audio.name).write_bytes(audio.read_bytes())
    next((root / "train_wav").iterdir()).unlink()
    outcome = stetho("evaluate", "default", "sprsound", root, "--split", "all", "--partial", "--bootstrap", 0, "--json")
    warnings_shown = [json.loads(line) for line in outcome.err.splitlines() if line.startswith("{")]
    assert any("passed over" in record["message"] for record in warnings_shown), outcome.err
