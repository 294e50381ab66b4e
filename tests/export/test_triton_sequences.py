"""The segmenter on Triton keeps its schema, and sequences of many streams give what each stream alone gives."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, read_manifest, write_bundle
from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.runtime.engines.steps import step_shapes
from export.portability.open_batch import open_batch
from export.triton.config import TritonOptions
from export.triton.repository import write_repository
from tests.support.gpu.machine import gpu_machine, put_engine
from tests.support.tiny_bundle import write_tiny_bundle


def _config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


class SequenceBatcher:
    """What Triton does with a model of implicit state: keeps the states of each sequence, runs many in one batch."""

    def __init__(self, folder: Path) -> None:
        self.config = _config(folder)
        self._session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"))
        self._states: dict[int, dict[str, np.ndarray]] = {}

    def run(self, features: dict[int, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
        """One step of several sequences; an id that is new starts one."""
        described = self.config.sequence_batching.state
        for key in features:
            if key not in self._states:
                assert all(state.initial_state[0].zero_data for state in described)
                self._states[key] = {s.input_name: np.zeros((1, *s.dims), np.float32) for s in described}
        keys = list(features)
        feed = {s.input_name: np.concatenate([self._states[k][s.input_name] for k in keys]) for s in described}
        feed[self.config.input[0].name] = np.concatenate([features[k] for k in keys])
        names = [o.name for o in self._session.get_outputs()]
        values = dict(zip(names, self._session.run(names, feed), strict=True))
        for row, key in enumerate(keys):
            self._states[key] = {s.input_name: values[s.output_name][row : row + 1] for s in described}
        wanted = [o.name for o in self.config.output]
        return {key: {n: values[n][row : row + 1] for n in wanted} for row, key in enumerate(keys)}


def test_interleaved_sequences_give_what_each_stream_alone_gives(tmp_path: Path) -> None:
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(max_batch=8))
    server = SequenceBatcher(tmp_path / "repo/compact_segmenter")
    model = load_bundle().segmenter.model  # type: ignore[union-attr]
    bins, frames = model.settings.front_end.mel_bins, model.settings.frames_per_step
    rng = np.random.default_rng(0)
    alone: dict[int, Any] = {}
    for step in range(12):
        present = [key for key in (3, 7, 11) if step % (2 if key == 7 else 1) == 0 and step >= (4 if key == 11 else 0)]
        features = {key: rng.standard_normal((1, frames, bins)).astype(np.float32) for key in present}
        found = server.run(features)
        for key, values in features.items():
            expected = alone.setdefault(key, model.network.state()).step(values[0])
            for name, value in found[key].items():
                np.testing.assert_allclose(value, expected[name], atol=2e-6, err_msg=f"{name} of {key} at {step}")


def test_the_configuration_is_a_sequence_batcher_with_every_state(tmp_path: Path) -> None:
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(max_batch=16, sequences=200, gpu=True))
    config = _config(tmp_path / "repo/compact_segmenter")
    batching = config.sequence_batching
    assert config.max_batch_size == 16 and batching.oldest.max_candidate_sequences == 200
    session = onnxruntime.InferenceSession(str(tmp_path / "repo/compact_segmenter/1/model.onnx"))
    shapes = {t.name: list(t.shape)[1:] for t in (*session.get_inputs(), *session.get_outputs())}
    assert {t.shape[0] for t in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    assert [s.input_name for s in batching.state] == [n for n in shapes if n.startswith("state_") and "next" not in n]
    for state in batching.state:
        assert list(state.dims) == shapes[state.input_name] == shapes[state.output_name]
    for tensor in (*config.input, *config.output):
        assert list(tensor.dims) == shapes[tensor.name]
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert cuda.parameters["use_tf32"] == "0"


@pytest.mark.parametrize("name", ["segmenter.onnx", "verdict.onnx"])
def test_an_open_batch_changes_no_number(name: str, tmp_path: Path) -> None:
    one = OrtEngine(DEFAULT_BUNDLE / name)
    onnx.save(open_batch(onnx.load(str(DEFAULT_BUNDLE / name))), str(tmp_path / "open.onnx"))
    many, rng = OrtEngine(tmp_path / "open.onnx"), np.random.default_rng(1)
    shapes = step_shapes(one, frames=40, outputs=0)
    feed = {n: rng.random((5, *shapes[n][1:]), np.float32) for n in one.inputs}  # sums of weights are positive
    found = many.run(feed)
    for row in range(5):
        for key, value in one.run({n: v[row : row + 1] for n, v in feed.items()}).items():
            np.testing.assert_allclose(found[key][row : row + 1], value, atol=2e-5, rtol=1e-4, err_msg=key)


def test_graphs_whose_batch_cannot_be_opened_are_refused() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4])
    shape = numpy_helper.from_array(np.array([1, 1, 4]), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "view")
    model = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [shape]), opset_imports=[helper.make_opsetid("", 18)]
    )
    with pytest.raises(ExportError, match="view reshapes in a way that hides the batch"):
        open_batch(model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(ExportError, match="x has no batch of one"):
        open_batch(model)


def test_a_compiled_engine_is_served_as_a_plan_beside_the_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", untrained=False)
    machine = gpu_machine(tmp_path, monkeypatch)
    options = TritonOptions(gpu=True, plan=True, max_batch=128)
    with pytest.raises(ExportError, match="no TensorRT engine of onnx-fp32 in the cache"):
        write_repository(folder, tmp_path / "repo", options)
    engine = put_engine(folder, machine, profiles=((1, 8, 64),))
    write_repository(folder, tmp_path / "repo", options)
    plan = tmp_path / "repo/tiny_classifier_plan"
    assert (plan / "1/model.plan").read_bytes() == engine.read_bytes()
    config = _config(plan)
    assert config.platform == "tensorrt_plan" and config.max_batch_size == 64 and not config.backend
    assert list(config.instance_group[0].profile) == ["0"]
    assert [w.batch_size for w in config.model_warmup] == list(range(1, 65))
    ensemble = _config(tmp_path / "repo/tiny_plan")
    assert [s.model_name for s in ensemble.ensemble_scheduling.step] == ["tiny_classifier_plan", "tiny_decoder"]
    assert (tmp_path / "repo/tiny_classifier/1/model.onnx").is_file() and (tmp_path / "repo/tiny_plan/1").is_dir()
    engine.write_bytes(b"changed")
    with pytest.raises(ExportError, match="no TensorRT engine"):
        write_repository(folder, tmp_path / "repo", options)


def test_where_the_cpu_serves_int8_the_plan_is_that_of_the_artefact_that_compile_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", untrained=False)
    manifest = read_manifest(folder)
    (fp32,) = manifest.artefacts
    graph = onnx.load_from_string((folder / fp32.file).read_bytes())
    graph.doc_string = "stands for int8"
    other = graph.SerializeToString()
    int8 = msgspec.structs.replace(
        fp32, format="onnx-int8-cpu", precision="int8", file="classifier.int8.onnx",
        sha256=hashlib.sha256(other).hexdigest(), bytes=len(other), default=True,
    )  # fmt: skip
    artefacts = [msgspec.structs.replace(fp32, default=False), int8]
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "bundle.json"}
    write_bundle(folder, msgspec.structs.replace(manifest, artefacts=artefacts), {**kept, int8.file: other})
    engine = put_engine(folder, gpu_machine(tmp_path, monkeypatch))
    write_repository(folder, tmp_path / "repo", TritonOptions(plan=True))
    assert (tmp_path / "repo/tiny_classifier/1/model.onnx").read_bytes() == other
    assert (tmp_path / "repo/tiny_classifier_plan/1/model.plan").read_bytes() == engine.read_bytes()
    with pytest.raises(ExportError, match="no TensorRT engine of onnx-int8-cpu in the cache"):
        write_repository(folder, tmp_path / "repo", TritonOptions(plan=True, format="onnx-int8-cpu"))
