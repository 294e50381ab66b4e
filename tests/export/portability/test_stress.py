"""What a GPU may do to a graph shows in the golden vector, and stops an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, read_manifest, verify_bundle
from edge_sdk.runtime.bundle.manifest import front_end
from edge_sdk.runtime.engines.selection import GPU_TOLERANCE
from edge_sdk.signal.spec import FrontEndSpec
from export import more_formats
from export.cycles import CycleSet
from export.formats import FORMATS
from export.golden import GOLDEN_SCENARIOS, golden_clips, stress_clips
from export.more_formats import add_formats
from export.onnx.quantise import Feed
from export.onnx.runner import GraphRunner
from export.pipeline import golden_feed, gpu_tolerance
from export.portability.stress import LARGEST_HALF, largest_half, stress_failures, stress_figures, with_tf32_front_end
from export.verify import MIN_CYCLES
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    manifest = read_manifest(DEFAULT_BUNDLE)
    return {a.format: a for a in manifest.artefacts}


def _spec(shipped: dict[str, Any]) -> FrontEndSpec:
    return FrontEndSpec.from_dict(shipped["onnx-fp32"].front_end)


def test_the_golden_vector_has_a_rumble_and_full_scale_beside_the_cycles(shipped: dict[str, Any]) -> None:
    clips = golden_clips(_spec(shipped))
    assert len(clips) == len(GOLDEN_SCENARIOS) + 2
    rumble, loud = clips[-2].astype(float) / 32768, clips[-1]
    power = np.abs(np.fft.rfft(rumble)) ** 2
    hz = np.fft.rfftfreq(rumble.size, 1 / _spec(shipped).rate_hz)
    assert power[hz < 40].sum() > 1000 * power[hz > 60].sum() and np.abs(rumble).max() > 0.85
    assert set(np.unique(loud).tolist()) == {-32768, 32767}
    with np.load(DEFAULT_BUNDLE / "golden.npz") as golden:
        np.testing.assert_array_equal(golden["pcm"], clips)
        assert {f"logits_{name.replace('-', '_')}" for name in shipped} <= set(golden)


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-fp16"])
def test_a_front_end_in_tf32_does_not_pass_the_golden_vector_of_the_default_bundle(
    name: str, shipped: dict[str, Any]
) -> None:
    model = onnx.load(str(DEFAULT_BUNDLE / shipped[name].file))
    golden, stress = golden_feed(_spec(shipped), None)
    figures = stress_figures(model, golden, stress)
    assert figures["tf32_golden"] > GPU_TOLERANCE[shipped[name].precision]
    assert stress_failures(figures, gpu_tolerance(FORMATS[name])) == []
    cycles = {"pcm": golden["pcm"][: len(GOLDEN_SCENARIOS)]}
    assert stress_figures(model, cycles, stress)["tf32_golden"] < GPU_TOLERANCE["fp32"]  # cycles alone hide it


def test_emulated_tf32_keeps_11_bits() -> None:
    values = np.random.default_rng(0).standard_normal((1, 1, 512)).astype(np.float32)
    x = helper.make_tensor_value_info("pcm", TensorProto.FLOAT, [1, 1, 512])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 512])
    one = numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "w")
    node = helper.make_node("Conv", ["pcm", "w"], ["y"], "front_end/conv")
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [one]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    from edge_sdk.runtime.engines.library import onnxruntime

    found = onnxruntime.InferenceSession(with_tf32_front_end(model).SerializeToString()).run(None, {"pcm": values})[0]
    bits = values.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x0FFF + ((bits >> 13) & 1)) >> 13 << 13).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(found, expected)


def test_the_fp16_artefact_stays_far_from_the_end_of_its_range(shipped: dict[str, Any]) -> None:
    model = onnx.load(str(DEFAULT_BUNDLE / shipped["onnx-fp16"].file))
    golden, stress = golden_feed(_spec(shipped), None)
    largest = largest_half(model, (golden, stress))
    assert largest is not None and 0 < largest < LARGEST_HALF / 100
    assert largest_half(onnx.load(str(DEFAULT_BUNDLE / shipped["onnx-fp32"].file)), (golden,)) is None


def test_float16_that_overflows_and_tf32_that_hides_are_failures() -> None:
    assert stress_failures({"half_largest": float("inf")}, 5e-2)[0].startswith("float16 tensors reach inf")
    assert stress_failures({"half_largest": 40_000.0}, 5e-2) and not stress_failures({"half_largest": 30_000.0}, 5e-2)
    (hidden,) = stress_failures({"tf32_golden": 0.01, "tf32_stress": 0.2}, 5e-2)
    assert "would not show it" in hidden
    assert not stress_failures({"tf32_golden": 0.2, "tf32_stress": 0.2}, 5e-2)
    assert not stress_failures({"tf32_golden": 0.0, "tf32_stress": 0.01}, 5e-2)  # harmless


def test_a_half_precision_front_end_overflows_on_the_golden_clips(shipped: dict[str, Any]) -> None:
    """Why a builder must not choose fp16 there: mel energies are far beyond 65504."""
    model = onnx.load(str(DEFAULT_BUNDLE / shipped["onnx-fp32"].file))
    log = next(node for node in model.graph.node if node.op_type == "Log")
    model.graph.output.append(helper.make_tensor_value_info(log.input[0], TensorProto.FLOAT, None))
    from edge_sdk.runtime.engines.library import onnxruntime

    energies = onnxruntime.InferenceSession(model.SerializeToString()).run(
        [log.input[0]], {"pcm": golden_clips(_spec(shipped)).astype(np.float32) / 32768}
    )[0]
    assert energies.max() > 1e8 > LARGEST_HALF


def test_the_shipped_fp16_artefact_is_verified_on_real_cycles(shipped: dict[str, Any]) -> None:
    entry = shipped["onnx-fp16"]
    assert entry.verified and not entry.default and entry.parity["n"] >= MIN_CYCLES
    assert entry.parity["auroc_drop"] <= 0.001 and entry.parity["agreement"] >= 0.995
    assert FORMATS["onnx-fp16"].gate.min_agreement >= 0.995 and FORMATS["onnx-fp16"].gate.max_auroc_drop <= 0.001


def test_more_formats_are_measured_in_batches_of_as_many_samples_whatever_the_window_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counted(GraphRunner):
        def run(self, feed: Feed) -> npt.NDArray[np.float32]:
            sizes.append(len(feed["pcm"]))
            return super().run(feed)

    folder = write_tiny_bundle(tmp_path / "tiny", rate_hz=16000)
    manifest = read_manifest(folder)
    (entry,) = manifest.artefacts
    window = front_end(folder, entry).window_samples
    most = 64 * 12_000 // window
    pcm = np.random.default_rng(0).standard_normal((most + 5, window)).astype(np.float32)
    cycles = CycleSet("none", "all", pcm, ("normal",) * len(pcm), ("p",) * len(pcm))
    content = (folder / entry.file).read_bytes()
    monkeypatch.setattr(more_formats, "GraphRunner", Counted)
    measure = more_formats._Measure(folder, manifest, entry, content, (cycles, np.array(["test"] * len(pcm))))
    assert most < 64 and sizes == [most, 5]
    assert measure._logits is not None
    np.testing.assert_allclose(measure._logits, GraphRunner(content).run({"pcm": pcm}), atol=1e-4)


def test_a_bundle_gets_more_formats_from_its_own_graph(tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = add_formats(DEFAULT_BUNDLE, tmp_path / "b", [FORMATS["onnx-fp16"]], lines.append, version="9.9")
    assert all(check.ok for check in verify_bundle(tmp_path / "b"))
    entry = next(a for a in manifest.artefacts if a.format == "onnx-fp16")
    assert not entry.verified and entry.failures == ["made without a corpus"] and manifest.version == "9.9"
    bundle, cpu = load_bundle(tmp_path / "b", artefact="onnx-fp16"), load_bundle(tmp_path / "b", artefact="onnx-fp32")
    pcm = stress_clips(bundle.front_end).astype(np.float32) / np.float32(32768)
    assert 0 < np.abs(bundle.classifier.logits(pcm) - cpu.classifier.logits(pcm)).max() < 5e-2
    shipped = load_bundle(artefact="onnx-fp16")
    assert np.allclose(bundle.classifier.logits(pcm), shipped.classifier.logits(pcm), atol=1e-5)
    with pytest.raises(ExportError, match="onnx-int8-cpu cannot be made from a bundle's graph"):
        add_formats(DEFAULT_BUNDLE, tmp_path / "c", [FORMATS["onnx-int8-cpu"]], lines.append, version="1")
    with pytest.raises(ExportError, match="has no onnx-fp32"):
        add_formats(DEFAULT_BUNDLE.parent / "standard", tmp_path / "c", [FORMATS["onnx-fp16"]], print, version="1")
