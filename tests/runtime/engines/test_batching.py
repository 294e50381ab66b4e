"""Calls of many streams within a deadline become one run; results, events and errors stay those of each stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import EngineError
from edge_sdk.events import CycleResult, Event
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.engines.batching import BatchingEngine
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.sources.phantom import PhantomSource
from tests.support.gpu.cuda_double import OUT_OF_MEMORY
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import ARTEFACT, tiny_spec, write_tiny_bundle

SAMPLES = tiny_spec().window_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", untrained=False)


def _at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * count
    start = threading.Barrier(count)

    def run(place: int) -> None:
        start.wait()
        try:
            results[place] = call(place)
        except Exception as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _pcm(seed: int, rows: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, SAMPLES)) * 0.05).astype(np.float32)


def test_calls_at_once_are_joined_and_each_gets_its_rows(folder: Path) -> None:
    alone = OrtEngine(folder / ARTEFACT)
    engine = BatchingEngine(alone, deadline_s=0.5)
    for _ in range(2):  # in the first round nobody knows of the others
        found = _at_once(8, lambda k: engine.run({"pcm": _pcm(k, 1 + k % 3)})["logits"])
        for k, logits in enumerate(found):
            np.testing.assert_allclose(logits, alone.run({"pcm": _pcm(k, 1 + k % 3)})["logits"], atol=1e-5)
    assert engine.calls == 16 and engine.runs < 16


def test_a_single_caller_does_not_wait(folder: Path) -> None:
    engine = BatchingEngine(OrtEngine(folder / ARTEFACT), deadline_s=60.0)
    began = time.monotonic()
    for seed in range(3):
        engine.run({"pcm": _pcm(seed)})
    assert time.monotonic() - began < 30 and engine.runs == 3


def test_nobody_waits_longer_than_the_deadline(folder: Path) -> None:
    engine = BatchingEngine(OrtEngine(folder / ARTEFACT), deadline_s=0.05)
    _at_once(2, lambda k: engine.run({"pcm": _pcm(k)}))
    assert engine.run({"pcm": _pcm(5)})["logits"].shape == (1, 4)  # the other one sends nothing


def test_an_error_reaches_its_own_caller_only(folder: Path) -> None:
    engine = BatchingEngine(OrtEngine(folder / ARTEFACT), deadline_s=0.2)
    _at_once(4, lambda k: engine.run({"pcm": _pcm(k)}))
    bad = np.zeros((1, 7), np.float32)
    found = _at_once(4, lambda k: engine.run({"pcm": bad if k == 2 else _pcm(k)}))
    assert isinstance(found[2], EngineError)
    assert all(found[k]["logits"].shape == (1, 4) for k in (0, 1, 3))


def _events(bundle: Bundle, seed: int) -> list[Event]:
    stream = bundle.stream(4000)
    events: list[Event] = []
    for block in PhantomSource("asthma", seed=seed, duration_s=15.0, sample_rate=4000, block_s=0.5):
        events += stream.accept(block)
    return [*events, *stream.finish()]


def _assert_same(found: list[Event], expected: list[Event]) -> None:
    assert len(found) == len(expected) > 3
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, CycleResult) and isinstance(theirs, CycleResult):
            assert (ours.cycle, ours.label) == (theirs.cycle, theirs.label)
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
        else:
            assert ours == theirs


def test_streams_in_threads_have_the_events_that_each_has_alone(folder: Path) -> None:
    bundle = load_bundle(folder)
    batched = bundle.batched(deadline_s=0.01)
    for seed, found in enumerate(_at_once(4, lambda k: _events(batched, k))):
        _assert_same(found, _events(bundle, seed))


def test_on_a_gpu_that_fails_batched_streams_go_on_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = gpu_machine(tmp_path, monkeypatch)
    put_engine(folder, machine)
    batched = load_bundle(folder).batched(deadline_s=0.01)
    machine.fails["cuStreamSynchronize"] = OUT_OF_MEMORY
    cpu = load_bundle(folder, engine="cpu")
    for seed, found in enumerate(_at_once(3, lambda k: _events(batched, k))):
        _assert_same(found, _events(cpu, seed))
    assert isinstance(batched.engine, BatchingEngine) and len(batched.engine.switches) == 1
