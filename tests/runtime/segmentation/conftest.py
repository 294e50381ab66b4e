"""Fixtures: a step graph of a few nodes, its model, and a bundle with it; and ways to push audio through them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_sdk.events import BreathCycle, Event
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.segmentation.factory import describe_segmenter
from edge_sdk.runtime.segmentation.network import LearnedSegmenter, StepModel
from tests.runtime.conftest import Samples
from tests.support.tiny_bundle import write_tiny_bundle
from tests.support.tiny_segmenter import write_tiny_segmenter

RATE = 4000


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_segmenter(tmp_path_factory.mktemp("segmenter"))


@pytest.fixture(scope="session")
def model(graph: Path) -> StepModel:
    return StepModel(OrtEngine(graph))


def write_learned(folder: Path, graph: Path) -> Path:
    write_tiny_bundle(folder, segmenter=describe_segmenter(graph))
    (folder / "segmenter.onnx").write_bytes(graph.read_bytes())
    return folder


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory, graph: Path) -> Bundle:
    return load_bundle(write_learned(tmp_path_factory.mktemp("learned") / "b", graph), allow_untrained=True)


def segment(model: StepModel, samples: Samples, sizes: Sequence[int]) -> list[BreathCycle]:
    segmenter, cycles, at, turn = LearnedSegmenter(model), [], 0, 0
    while at < samples.size:
        size = sizes[turn % len(sizes)]
        cycles += segmenter.accept(samples[at : at + size])
        at, turn = at + size, turn + 1
    return cycles + segmenter.finish()


def events_of(bundle: Bundle, samples: Samples, size: int, rate: int = RATE) -> list[Event]:
    stream = bundle.stream(rate)
    events = [e for at in range(0, samples.size, size) for e in stream.accept(samples[at : at + size])]
    return events + stream.finish()


def cycles_of(events: Sequence[Event]) -> list[BreathCycle]:
    return [e for e in events if isinstance(e, BreathCycle) and e.final]
