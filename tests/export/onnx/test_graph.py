"""The exported graphs compute what the torch model computes, and nothing in them is unportable."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from edge_sdk.errors import ExportError
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.registry import build_model
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.signal.spec import FrontEndSpec
from export.formats import FORMATS, parse_formats
from export.onnx.graph import export_front_end, export_network, join
from export.onnx.lint import MAX_IR, OPSET, lint
from export.onnx.quantise import Int8Count, Quantiser, cpu_scheme

Graphs: TypeAlias = tuple[onnx.ModelProto, onnx.ModelProto]
Clips: TypeAlias = npt.NDArray[np.float32]
SPEC = FrontEndSpec(window_s=1.0, frame_samples=128, hop_samples=64, mel_bins=32, normalisation="instance", relax=0.5)


def _run(model: onnx.ModelProto, **inputs: Clips) -> Clips:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: Clips = session.run(None, inputs)[0]
    return result


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(5)
    return build_model("compact", size="tiny", classes=4, front_end=SPEC).eval()


@pytest.fixture(scope="module")
def graphs(network: torch.nn.Module) -> Graphs:
    return export_front_end(SPEC), export_network(network, SPEC)


@pytest.fixture(scope="module")
def pcm() -> Clips:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((5, SPEC.window_samples)) * 0.1).astype(np.float32)


def test_the_joined_graph_gives_the_logits_of_torch_for_any_batch(
    graphs: Graphs, network: torch.nn.Module, pcm: Clips
) -> None:
    model = join(graphs[0], graphs[1], {"labels": "a,b"})
    with torch.no_grad():
        expected = network(FoldedFrontEnd(SPEC)(torch.from_numpy(pcm))).numpy()
    for batch in (1, 2, 5):
        np.testing.assert_allclose(_run(model, pcm=pcm[:batch]), expected[:batch], atol=1e-4)


def test_the_joined_graph_is_portable_and_carries_no_trace_of_the_building_machine(graphs: Graphs) -> None:
    model = join(graphs[0], graphs[1], {"labels": "a,b"})
    assert lint(model) == []
    assert model.ir_version <= MAX_IR
    assert [o.version for o in model.opset_import if o.domain == ""] == [OPSET]
    assert {p.key: p.value for p in model.metadata_props} == {"labels": "a,b"}
    assert b"site-packages" not in model.SerializeToString()
    assert b".py" not in model.SerializeToString()


def test_int8_is_really_int8_and_close_to_fp32(graphs: Graphs, pcm: Clips) -> None:
    front_end, network = graphs
    features = _run(front_end, pcm=pcm)
    assert cpu_scheme(network) == "static-u8s8"
    with Quantiser(network, "static-u8s8", [{"features": features}]) as quantiser:
        quantised = quantiser.quantise()
    assert Int8Count.of(quantised).share > 0.9
    assert Int8Count.of(network).weights == 0
    assert lint(join(front_end, quantised, {}, tensorrt=False), tensorrt=False) == []
    reference, result = _run(network, features=features), _run(quantised, features=features)
    assert 0 < np.linalg.norm(result - reference) / np.linalg.norm(reference) < 0.1


def test_quantising_prints_nothing(graphs: Graphs, pcm: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    with Quantiser(graphs[1], "static-u8s8", [{"features": _run(graphs[0], pcm=pcm[:2])}]) as quantiser:
        quantiser.quantise()
    assert capsys.readouterr().out == ""


def test_quantising_without_cycles_is_refused(graphs: Graphs) -> None:
    with pytest.raises(ExportError, match="--corpus"):
        Quantiser(graphs[1], "static-u8s8")


def test_the_lint_names_each_unportable_thing_with_its_fix() -> None:
    node = onnx.helper.make_node("DFT", ["x"], ["y"], name="spectrum")
    odd = onnx.helper.make_node("Thing", ["y"], ["z"], name="odd", domain="vendor")
    shape = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 8, 2]) for n in ("x", "z")]
    graph = onnx.helper.make_graph([node, odd], "g", shape[:1], shape[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=11)
    problems = "\n".join(lint(model))
    for expected in ("opset 23", "IR version 11", "spectrum is DFT", "constant DFT matrices", "domain 'vendor'"):
        assert expected in problems


def test_an_unportable_graph_is_not_written(graphs: Graphs) -> None:
    front_end, network = graphs
    broken = onnx.ModelProto()
    broken.CopyFrom(network)
    broken.graph.node[-1].domain = "vendor"
    broken.opset_import.append(onnx.helper.make_opsetid("vendor", 1))
    with pytest.raises(ExportError, match="domain 'vendor'"):
        join(front_end, broken, {})


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(ExportError, match="onnx-fp32"):
        parse_formats("onnx-fp33")
    assert [f.name for f in parse_formats("onnx-int8-cpu, onnx-fp32,onnx-fp32")] == ["onnx-int8-cpu", "onnx-fp32"]
    assert all(f.name == name for name, f in FORMATS.items())


class _Refuses(torch.nn.Module):
    """Fails while it is traced."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        try:
            raise self.error("no\nmore")
        except BaseException:
            raise RuntimeError("the exporter wraps everything\nin many lines") from None


def test_what_torch_cannot_export_is_one_line() -> None:
    with pytest.raises(ExportError, match=r"^torch \S+ cannot export _Refuses: .+$") as caught:
        export_network(_Refuses(ValueError), SPEC)
    assert "\n" not in str(caught.value)


def test_ctrl_c_that_the_exporter_wraps_is_still_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt):
        export_network(_Refuses(KeyboardInterrupt), SPEC)
