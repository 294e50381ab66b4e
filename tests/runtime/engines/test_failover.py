"""A GPU that fails in mid-stream costs one warning and one event; the stream goes on with the events of the CPU."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import EngineError
from edge_sdk.events import BreathCycle, CycleResult, Event, Health
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.engines.failover import FailoverEngine, Replacement
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.session import Session
from edge_sdk.screening.recordings import screen_samples, summary_labels
from edge_sdk.sinks.console import record_lines
from edge_sdk.sinks.jsonl import JsonlSink
from edge_sdk.sinks.live import LiveView
from edge_sdk.sinks.mqtt import MqttSink
from edge_sdk.sinks.mqtt_address import read_broker
from edge_sdk.sinks.summary import Labels
from edge_sdk.sources.phantom import PhantomSource
from tests.support.gpu.cuda_double import DEVICE_UNAVAILABLE, ILLEGAL_ADDRESS, OUT_OF_MEMORY, CudaDouble
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import ARTEFACT, write_tiny_bundle

Break = Callable[[CudaDouble, Bundle], None]


def _out_of_memory(machine: CudaDouble, bundle: Bundle) -> None:
    machine.fails["cuStreamSynchronize"] = OUT_OF_MEMORY


def _device_lost(machine: CudaDouble, bundle: Bundle) -> None:
    for name in ("cuStreamSynchronize", "cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuCtxPushCurrent_v2", "cuMemFree_v2"):
        machine.fails[name] = DEVICE_UNAVAILABLE  # nothing works any more, freeing neither


def _type_error(machine: CudaDouble, bundle: Bundle) -> None:
    engine: Any = bundle.engine
    context = engine.engine._context
    engine.engine._drop_graph()
    engine.engine._batch = 0

    def raises(*_: object) -> bool:
        raise TypeError("incompatible function arguments")

    context.set_input_shape = raises


def _not_finite(machine: CudaDouble, bundle: Bundle) -> None:
    engine: Any = bundle.engine
    real = engine.engine._run_batch

    def broken(inputs: Any, batch: int) -> Any:
        return {name: values * np.nan for name, values in real(inputs, batch).items()}

    engine.engine._run_batch = broken


FAULTS: dict[str, Break] = {
    "out of memory": _out_of_memory,
    "device lost": _device_lost,
    "TypeError": _type_error,
    "NaN": _not_finite,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", untrained=False)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    return gpu_machine(tmp_path, monkeypatch)


def _events(bundle: Bundle, at: int | None = None, break_it: Callable[[], None] = lambda: None) -> list[Event]:
    stream = bundle.stream(4000)
    events: list[Event] = []
    for number, block in enumerate(PhantomSource("asthma", seed=3, duration_s=30.0, sample_rate=4000, block_s=0.5)):
        if number == at:
            break_it()
        events += stream.accept(block)
    return [*events, *stream.finish()]


def _assert_same(found: list[Event], expected: list[Event]) -> None:
    assert [type(e) for e in found] == [type(e) for e in expected]
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, CycleResult) and isinstance(theirs, CycleResult):
            assert (ours.cycle, ours.label, ours.quality) == (theirs.cycle, theirs.label, theirs.quality)
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
        else:
            assert ours == theirs


@pytest.mark.parametrize("fault", FAULTS)
def test_the_stream_ends_with_the_events_of_the_cpu(
    fault: str,
    folder: Path,
    machine: CudaDouble,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    put_engine(folder, machine)
    expected = _events(load_bundle(folder, engine="cpu"))
    bundle = load_bundle(folder)
    assert bundle.engine.name.startswith("tensorrt")
    with caplog.at_level(logging.WARNING):
        found = _events(bundle, 20, lambda: FAULTS[fault](machine, bundle))
    _assert_same(found, expected)
    assert sum(isinstance(e, BreathCycle) and e.final for e in found) >= 5
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "tensorrt-10.3.0-Orin failed" in warnings[0] and warnings[0].endswith("goes on")
    assert bundle.engine.name.endswith("-cpu")
    assert capfd.readouterr().out == ""


def test_a_session_reports_it_once_as_an_event_of_its_own(folder: Path, machine: CudaDouble) -> None:
    put_engine(folder, machine)
    bundle, records = load_bundle(folder), list[dict[str, Any]]()
    source = PhantomSource("asthma", seed=3, duration_s=30.0, sample_rate=4000)
    machine.fails["cuStreamSynchronize"] = ILLEGAL_ADDRESS
    Session(source, bundle, [JsonlSink(records.append, summary_labels(bundle))]).run()
    engines = [r for r in records if r["type"] == "engine"]
    assert len(engines) == 1 and engines[0]["engine"].endswith("-cpu") and "ILLEGAL_ADDRESS" in engines[0]["detail"]
    assert records[-1]["type"] == "summary" and records[-1]["cycles"] >= 5
    before = len(records)
    Session(PhantomSource("asthma", seed=3, duration_s=10.0, sample_rate=4000), bundle,
            [JsonlSink(records.append, summary_labels(bundle))]).run()  # fmt: skip
    assert not [r for r in records[before:] if r["type"] == "engine"]  # another session has no line of it


def test_screening_reports_it_too(folder: Path, machine: CudaDouble) -> None:
    put_engine(folder, machine)
    bundle = load_bundle(folder)
    samples = np.concatenate([b.samples for b in PhantomSource("asthma", seed=3, duration_s=20.0, sample_rate=4000)])
    machine.fails["cuStreamSynchronize"] = OUT_OF_MEMORY
    first, second = (screen_samples(bundle, samples, 4000) for _ in range(2))
    assert [r["type"] for r in first.records].count("engine") == 1 and first.records[-1]["type"] == "summary"
    assert [r["type"] for r in second.records].count("engine") == 0
    assert any(line.startswith("engine: ") for line in record_lines(first.records))


def test_an_engine_that_fails_with_the_last_cycle_is_reported(folder: Path, machine: CudaDouble) -> None:
    """Of a short recording the only cycle is classified when the source has ended."""
    put_engine(folder, machine)
    bundle, records = load_bundle(folder), list[dict[str, Any]]()
    machine.fails["cuStreamSynchronize"] = ILLEGAL_ADDRESS
    source = PhantomSource("asthma", seed=3, duration_s=3.0, sample_rate=4000)
    Session(source, bundle, [JsonlSink(records.append, summary_labels(bundle))]).run()
    assert records[-1]["classified"] == 1
    assert [r["type"] for r in records].count("engine") == 1


def test_the_live_view_goes_on_and_the_broker_gets_the_line() -> None:
    labels, change = Labels(("normal", "wheeze"), "normal"), Health("healthy", "TRT failed", 0, engine="cpu")
    view = LiveView(labels, title="ward")
    view.health(change)
    assert view._trouble is None
    sink = MqttSink(read_broker("mqtt://nowhere.invalid"), labels, name="ward", model="m")
    sink.health(change)
    assert any('"type": "engine"' in message.payload for message in sink._publisher._queue)


def test_the_next_gpu_engine_goes_first_if_it_is_proven(folder: Path, tmp_path: Path, machine: CudaDouble) -> None:
    import os

    older = put_engine(folder, machine, version="10.3.0", options="")
    newer = put_engine(folder, machine, profiles=((1, 1, 1), (1, 8, 64)), options="workspace64")
    os.utime(older, (1, 1))
    bundle = load_bundle(folder)
    engine: Any = bundle.engine
    assert newer.exists() and isinstance(bundle.engine, FailoverEngine)
    engine.engine._context.execute_async_v3 = lambda _stream: False
    pcm = np.zeros((1, bundle.front_end.window_samples), np.float32)
    bundle.classifier.logits(pcm)
    assert engine.name.startswith("tensorrt") and len(engine.switches) == 1
    machine.fails["cuStreamSynchronize"] = OUT_OF_MEMORY
    bundle.classifier.logits(pcm)
    assert engine.name.endswith("-cpu") and len(engine.switches) == 2


class _Fails:
    name = "gpu"

    def __init__(self, error: Exception) -> None:
        self.error, self.closed = error, 0

    def run(self, inputs: Any) -> Any:
        raise self.error

    def close(self) -> None:
        self.closed += 1


def test_an_error_of_the_caller_replaces_nothing_and_is_raised(folder: Path) -> None:
    gpu, made = OrtEngine(folder / ARTEFACT), []

    def make() -> Engine:
        made.append(OrtEngine(folder / ARTEFACT))
        return made[-1]

    engine = FailoverEngine(gpu, [Replacement("cpu", make)])
    with pytest.raises(EngineError, match="inference failed"):
        engine.run({"pcm": np.zeros((1, 7), np.float32)})
    assert engine.engine is gpu and engine.switches == ()


def test_where_nothing_works_any_more_the_first_error_is_raised() -> None:
    first = _Fails(RuntimeError("device lost"))
    engine = FailoverEngine(first, [Replacement("cpu", lambda: _Fails(EngineError("no memory either")))])
    with pytest.raises(EngineError, match="RuntimeError: device lost"):
        engine.run({"pcm": np.zeros((1, 8), np.float32)})


def test_many_streams_at_once_change_the_engine_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = _Fails(RuntimeError("driver reset"))
    engine = FailoverEngine(first, [Replacement("cpu", lambda: OrtEngine(folder / ARTEFACT))])
    pcm = np.zeros((1, 12000), np.float32)
    shapes: list[Any] = []
    threads = [
        threading.Thread(target=lambda: shapes.append(engine.run({"pcm": pcm})["logits"].shape)) for _ in range(8)
    ]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert shapes == [(1, 4)] * 8 and len(engine.switches) == 1 and first.closed == 1
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_the_command_line_shows_the_warning_and_keeps_stdout_for_json(folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
import pytest
from pathlib import Path
from tests.support.gpu.machine import gpu_machine, put_engine
patch = pytest.MonkeyPatch()
machine = gpu_machine(Path({str(tmp_path)!r}), patch)
put_engine(Path({str(folder)!r}), machine)
from edge_sdk.runtime.bundle import load
real = load.load_bundle
def loaded(*a, **k):
    bundle = real(*a, **k)
    machine.fails['cuStreamSynchronize'] = 2
    return bundle
load.load_bundle = loaded
from edge_sdk.cli.main import run
run(['screen', sys.argv[1], '--bundle', {str(folder)!r}, '--json'])
"""
    import soundfile

    samples = np.concatenate([b.samples for b in PhantomSource("asthma", seed=3, duration_s=20.0, sample_rate=4000)])
    soundfile.write(tmp_path / "breath.wav", samples, 4000)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "breath.wav")], capture_output=True, text=True, check=False
    )
    import json

    records = [json.loads(line) for line in done.stdout.splitlines()]  # nothing but JSON
    assert [r["type"] for r in records].count("engine") == 1 and records[-1]["type"] == "summary"
    assert len([line for line in done.stderr.splitlines() if "goes on" in line]) == 1
