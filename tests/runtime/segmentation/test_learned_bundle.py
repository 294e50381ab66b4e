"""The learned segmenter in a bundle: what is refused, and audio without breathing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_sdk.errors import BundleError
from edge_sdk.events import BreathCycle, CycleResult, Event, QualityEvent
from edge_sdk.runtime.bundle.load import Bundle, load_bundle, verify_bundle
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.segmentation.factory import EnvelopeFactory, LearnedFactory, load_segmenter
from edge_sdk.runtime.segmentation.network import StepModel, StepSettings
from tests.runtime.conftest import Samples, phantom
from tests.runtime.segmentation.conftest import RATE, cycles_of, events_of, segment, write_learned
from tests.support.tiny_segmenter import SPEC, tiny_step_graph, write_tiny_segmenter


def test_a_bundle_chooses_its_segmenter(learned: Bundle, bundle: Bundle) -> None:
    assert isinstance(learned.segmenter, LearnedFactory) and learned.segmenter.kind == "learned"
    assert isinstance(bundle.segmenter, EnvelopeFactory)
    assert learned.shortest_s == learned.segmenter.params.shortest_s
    other = learned.with_segmenter(EnvelopeFactory())
    audio = phantom("asthma", 12.0)
    assert cycles_of(events_of(other, audio, 800)) == cycles_of(events_of(bundle, audio, 800))
    assert learned.segmenter.kind == "learned"


def test_the_default_bundle_still_loads() -> None:
    assert load_bundle().segmenter.look_ahead_s > 0


def test_verify_checks_the_segmenter_too(tmp_path: Path, graph: Path) -> None:
    checks = {c.name: c.ok for c in verify_bundle(write_learned(tmp_path / "b", graph))}
    assert checks["sha256 segmenter.onnx"] and checks["golden segmenter"]


def edit(folder: Path, change: dict[str, object], step: dict[str, object] | None = None) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["segmenter"].update(change)
    manifest["segmenter"]["step"].update(step or {})
    (folder / "bundle.json").write_text(json.dumps(manifest))


def test_a_damaged_segmenter_is_refused(tmp_path: Path, graph: Path) -> None:
    folder = write_learned(tmp_path / "b", graph)
    with (folder / "segmenter.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"segmenter\.onnx does not match its sha256"):
        load_bundle(folder, allow_untrained=True)
    (folder / "segmenter.onnx").unlink()
    with pytest.raises(BundleError, match="incomplete"):
        load_bundle(folder, allow_untrained=True)


@pytest.mark.parametrize(
    ("change", "step", "message"),
    [
        ({}, {"golden": [0.5] * 10}, "comes out"),
        ({"params": {"loudness": 1.0}}, {}, r"unknown keys \['loudness'\]"),
        ({"rate_hz": 8000}, {}, "rate, step or look-ahead"),
        ({}, {"frames_per_step": 8}, "export it again"),
        ({}, {"frames_per_step": 3}, "rate, step or look-ahead"),  # not whole output frames
        ({}, {"stride": 0}, "rate, step or look-ahead"),
        ({}, {"stride": 1}, r"gives activity \[1, 2\]; expected \[1, 4\]"),  # as a manifest without a stride
        ({}, {"stride": 4}, r"gives activity \[1, 2\]; expected \[1, 1\]"),
        ({"params": {"shortest_s": 9.0}}, {}, "shortest_s"),
        ({"file": None}, {}, "without file"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, graph: Path, change: dict[str, object], step: dict[str, object], message: str
) -> None:
    folder = write_learned(tmp_path / "b", graph)
    edit(folder, change, step)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder, allow_untrained=True)


def test_only_step_graphs_are_segmenters(tmp_path: Path, bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match="no segmenter"):
        load_segmenter(bundle_folder / "classifier.fp32.onnx")
    with pytest.raises(BundleError, match="incomplete or wrong"):
        StepSettings.from_properties({"kind": "stetho-segmenter", "schema": "2"})
    engine = OrtEngine(write_tiny_segmenter(tmp_path))
    with pytest.raises(BundleError, match="expected features"):
        StepModel(engine, StepSettings(SPEC, frames_per_step=2))
    for stride in (0, 3):
        with pytest.raises(BundleError, match="no multiple of its stride"):
            StepModel(engine, StepSettings(SPEC, stride=stride))


@pytest.mark.parametrize(("key", "value"), [("schema", "1"), ("schema", "4"), ("kind", "other"), ("stride", None)])
def test_graphs_of_another_schema_are_refused(tmp_path: Path, key: str, value: str | None) -> None:
    """A graph of schema 1 has one output for each feature frame and no angle of the cycle."""
    graph = onnx.load_from_string(tiny_step_graph())
    properties = {entry.key: entry.value for entry in graph.metadata_props if entry.key != key}
    onnx.helper.set_model_props(graph, properties | ({} if value is None else {key: value}))
    path = tmp_path / "other.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(BundleError, match=r"no segmenter that this SDK can step through|incomplete or wrong"):
        load_segmenter(path)


def test_a_graph_without_the_angle_is_refused(tmp_path: Path) -> None:
    graph = onnx.load_from_string(tiny_step_graph())
    kept = [output for output in graph.graph.output if output.name != "cycle"]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    path = tmp_path / "old.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(BundleError, match=r"expected features and state_i, and .* cycle and state_i_next: export"):
        load_segmenter(path)


# -- audio without breathing -------------------------------------------------------------------------------------------


def states(events: Sequence[Event]) -> list[str]:
    return [e.state for e in events if isinstance(e, QualityEvent)]


TIME = np.arange(20 * RATE) / RATE
NO_BREATHING = {
    "silence": (np.zeros_like(TIME), "silence"),
    "direct current": (np.full_like(TIME, 0.5), "silence"),
    "full-scale square wave": (np.sign(np.sin(2 * np.pi * 200 * TIME)), "clipping"),
    "mains hum": (0.05 * (np.sin(2 * np.pi * 50 * TIME) + np.sin(2 * np.pi * 150 * TIME) / 3), "no-contact"),
    "steady noise": (0.1 * np.random.default_rng(0).standard_normal(TIME.size), "noisy"),
}


@pytest.mark.parametrize("name", NO_BREATHING)
def test_no_cycle_is_emitted_where_there_is_none(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """Even with a network that outputs a cycle for any input."""
    folder = tmp_path_factory.mktemp("eager")
    graph = write_tiny_segmenter(folder, threshold=-5.0)
    bundle = load_bundle(write_learned(folder / "b", graph), allow_untrained=True)
    audio, state = NO_BREATHING[name]
    if name not in ("silence", "direct current"):  # nor does an offset reach the network
        alone = segment(load_segmenter(graph).model, audio.astype(np.float32), [800])
        assert [c for c in alone if c.final], "the network alone emits cycles"
    events = events_of(bundle, audio.astype(np.float32), 800)
    assert states(events) == [state]
    assert not cycles_of(events) and not [e for e in events if isinstance(e, CycleResult)]
    emitted = [e for e in events if isinstance(e, BreathCycle)]
    assert all(e.emitted_at <= 1.1 * RATE for e in emitted), "before the gate has enough audio"
    assert not emitted or name not in ("silence", "direct current")


def babble(seconds: float) -> Samples:
    """Syllables, which the quality gate accepts as breathing."""
    rng, time_s = np.random.default_rng(4), np.arange(round(seconds * RATE)) / RATE
    pitch = np.sin(2 * np.pi * 140 * time_s) + 0.5 * np.sin(2 * np.pi * 280 * time_s)
    beat = np.clip(np.sin(2 * np.pi * 4.1 * time_s), 0, 1)
    return (0.05 * beat * (pitch + 0.2 * rng.standard_normal(time_s.size))).astype(np.float32)


def insensitive(tmp_path: Path) -> Bundle:
    graph = write_tiny_segmenter(tmp_path, threshold=40.0)
    return load_bundle(write_learned(tmp_path / "b", graph), allow_untrained=True)


def test_audio_without_cycles_is_not_breathing(tmp_path: Path) -> None:
    bundle = insensitive(tmp_path)
    events = events_of(bundle, babble(40.0), 800)
    assert states(events) == ["ok", "not-breathing"]
    assert states(events_of(bundle, babble(8.0), 800)) == ["ok", "not-breathing"], "emitted at the end of a short file"


def test_cycles_after_a_pause_are_ok_again(learned: Bundle) -> None:
    pause = (0.0002 * np.random.default_rng(1).standard_normal(20 * RATE)).astype(np.float32)
    swell = pause * (1 + 0.8 * np.sin(2 * np.pi * 0.9 * np.arange(pause.size) / RATE)).astype(np.float32)
    audio = np.concatenate((phantom("healthy", 12.0), swell, phantom("healthy", 12.0)))
    found = states(events_of(learned, audio, 800))
    assert "not-breathing" in found and found[-1] == "ok"
