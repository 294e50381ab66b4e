"""The Triton repository keeps Triton's schema, and its decoder gives the outputs of the device."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from edge_sdk.errors import BundleError, ExportError
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, load_bundle, read_manifest
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import MULTILABEL, decide, decode, logit_count
from edge_sdk.runtime.engines.library import onnxruntime
from export.triton.config import TritonOptions, to_pbtxt
from export.triton.decoder_graph import decoder_graph
from export.triton.load_test import TritonLoadOptions, load_test
from export.triton.repository import (
    build_repository_format,
    model_name,
    repository_files,
    write_repository,
)
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.support.tiny_bundle import write_tiny_bundle

DECODERS = {
    "softmax": (Decoder(temperature=0.7, bias=[-0.2, 0.0, 0.3, 0.1]), MULTILABEL),
    "softmax of diseases": (Decoder(normal_label="healthy"), ("asthma", "copd", "healthy")),
    "softmax with threshold": (Decoder(threshold=0.3, normal_label="healthy"), ("asthma", "healthy", "copd")),
    "multilabel": (Decoder(kind="multilabel", temperature=1.3, bias=[0.5, -0.5]), MULTILABEL),
    "multilabel with thresholds": (Decoder(kind="multilabel", threshold=[0.2, 0.8]), MULTILABEL),
    "multilabel with one threshold": (Decoder(kind="multilabel", threshold=0.3), MULTILABEL),
    "binary": (Decoder(kind="binary", bias=[0.4]), ("normal", "abnormal")),
    "binary with threshold": (Decoder(kind="binary", threshold=0.15), ("normal", "abnormal")),
}


def _parsed(config: bytes) -> Any:
    return text_format.Parse(config.decode(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("name", DECODERS)
def test_the_decoder_graph_gives_the_outputs_of_the_device(name: str) -> None:
    decoder, labels = DECODERS[name]
    session = onnxruntime.InferenceSession(decoder_graph(decoder, labels).SerializeToString())
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.standard_normal((500, logit_count(decoder.kind, labels))) * s for s in (1, 5, 300)])
    logits = logits.astype(np.float32)
    probabilities, index, label = session.run(["probabilities", "label_index", "label"], {"logits": logits})
    expected = decode(logits, decoder)
    assert np.allclose(probabilities, expected, atol=1e-6)
    chosen = decide(expected, decoder, labels.index(decoder.normal_label))
    assert np.array_equal(index[:, 0], chosen)
    assert label[:, 0].tolist() == [labels[i] for i in chosen]
    assert len(set(chosen.tolist())) == len(labels)  # every label occurred


def test_every_configuration_keeps_tritons_schema(tmp_path: Path) -> None:
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(instances=3, max_batch=32, delay_us=500))
    configs = {p.parent.name: _parsed(p.read_bytes()) for p in (tmp_path / "repo").glob("*/config.pbtxt")}
    assert set(configs) == {"compact", "compact_classifier", "compact_decoder", "compact_segmenter"}
    classifier = configs["compact_classifier"]
    assert classifier.max_batch_size == 32
    assert classifier.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(classifier.dynamic_batching.preferred_batch_size) == [8, 32]
    assert classifier.instance_group[0].count == 3
    assert classifier.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert [w.batch_size for w in classifier.model_warmup] == list(range(1, 33))
    ensemble = configs["compact"]
    assert ensemble.platform == "ensemble" and [o.name for o in ensemble.output] == [
        "probabilities",
        "label_index",
        "label",
    ]
    assert [s.model_name for s in ensemble.ensemble_scheduling.step] == ["compact_classifier", "compact_decoder"]
    for name in configs:
        assert (tmp_path / "repo" / name / "1").is_dir()


def test_on_a_gpu_tf32_is_off_and_cudnn_does_not_try_out_algorithms(tmp_path: Path) -> None:
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(gpu=True))
    config = _parsed((tmp_path / "repo/compact_classifier/config.pbtxt").read_bytes())
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert cuda.name == "cuda"
    assert dict(cuda.parameters) == {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def test_each_graph_has_the_tensors_of_its_configuration(tmp_path: Path) -> None:
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo")
    kinds = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(string)": "TYPE_STRING"}
    for name in ("compact_classifier", "compact_decoder"):
        folder = tmp_path / "repo" / name
        config = _parsed((folder / "config.pbtxt").read_bytes())
        session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"))
        for tensors, described in ((session.get_inputs(), config.input), (session.get_outputs(), config.output)):
            found = {t.name: (kinds[t.type], list(t.shape)[1:]) for t in tensors}
            configured = {d.name: (model_config_pb2.DataType.Name(d.data_type), list(d.dims)) for d in described}
            assert found == configured


def test_the_ensemble_run_by_hand_gives_the_bundles_label(tmp_path: Path) -> None:
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo")
    bundle = load_bundle()
    with np.load(DEFAULT_BUNDLE / "golden.npz") as golden:
        pcm = golden["pcm"].astype(np.float32) / 32768
    values: dict[str, Any] = {"pcm": pcm}
    for step in _parsed((tmp_path / "repo/compact/config.pbtxt").read_bytes()).ensemble_scheduling.step:
        session = onnxruntime.InferenceSession(str(tmp_path / "repo" / step.model_name / "1" / "model.onnx"))
        outputs = [o.name for o in session.get_outputs()]
        results = session.run(outputs, {k: values[v] for k, v in step.input_map.items()})
        values |= {step.output_map[n]: r for n, r in zip(outputs, results, strict=True) if n in step.output_map}
    expected = bundle.classifier.decide(bundle.classifier.classify(pcm))
    assert values["label"][:, 0].tolist() == [bundle.labels[i] for i in expected]
    labels = (tmp_path / "repo/compact/labels.txt").read_text().splitlines()
    assert tuple(labels) == bundle.labels


def test_ids_of_conditioned_models_are_one_number_to_clients_and_none_to_the_graph() -> None:
    values = [
        helper.make_tensor_value_info("pcm", TensorProto.FLOAT, ["b", 8]),
        helper.make_tensor_value_info("site", TensorProto.INT32, ["b"]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 8]),
    ]
    graph = helper.make_graph([helper.make_node("Identity", ["pcm"], ["logits"])], "g", values[:2], values[2:])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    manifest = read_manifest(DEFAULT_BUNDLE)
    files = repository_files(manifest, manifest.artefacts[0], content, TritonOptions(gpu=True))
    classifier, ensemble = (_parsed(files[f"{n}/config.pbtxt"]) for n in ("compact_classifier", "compact"))
    site = classifier.input[1]
    assert list(site.dims) == [1] and site.HasField("reshape") and list(site.reshape.shape) == []
    assert list(ensemble.input[1].dims) == [1] and not ensemble.input[1].HasField("reshape")
    assert dict(ensemble.ensemble_scheduling.step[0].input_map) == {"pcm": "pcm", "site": "site"}
    assert classifier.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_names_and_texts_survive_the_text_format() -> None:
    assert model_name("my bundle/v1") == "my_bundle_v1" and model_name("...") == "stetho"
    text = to_pbtxt({"name": 'a "quoted" \\ name\nof two lines', "max_batch_size": 2})
    assert _parsed(text.encode()).name == 'a "quoted" \\ name\nof two lines'


def test_bad_targets_bundles_and_options_are_plain_errors(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(ExportError, match="is not a repository of this SDK"):
        write_repository(DEFAULT_BUNDLE, tmp_path / "mine")
    with pytest.raises(BundleError, match="untrained"):
        write_repository(write_tiny_bundle(tmp_path / "tiny"), tmp_path / "repo")
    with pytest.raises(ExportError, match="max_batch is 0"):
        write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(max_batch=0))
    with pytest.raises(BundleError, match="holds no artefact 'onnx-fp4'"):
        write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(format="onnx-fp4"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "tiny"]
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo")
    write_repository(DEFAULT_BUNDLE, tmp_path / "repo", TritonOptions(version=2))  # ours: replaced
    assert not (tmp_path / "repo/compact/1").exists() and (tmp_path / "repo/compact/2").is_dir()
    model = onnx.load(tmp_path / "repo/compact_decoder/2/model.onnx")
    assert model.ir_version <= 10


def test_the_triton_format_of_the_table_lies_beside_the_bundle(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "clinic", untrained=False, name="clinic")
    assert build_repository_format(bundle, lambda line: None) == [tmp_path / "clinic-triton"]
    assert (tmp_path / "clinic-triton/clinic/config.pbtxt").is_file()


class _Triton(http.server.BaseHTTPRequestHandler):
    """Enough of KServe v2: one model that checks its input, and fails every seventh request."""

    protocol_version = "HTTP/1.1"
    served = 0

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, status: int, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path != "/v2/models/compact":
            return self._reply(404, {"error": "unknown model"})
        return self._reply(200, {"inputs": [{"name": "pcm", "datatype": "FP32", "shape": [-1, 16]}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        header = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])
        tensor = header["inputs"][0]
        samples = np.frombuffer(body[-tensor["parameters"]["binary_data_size"] :], np.float32).reshape(tensor["shape"])
        _Triton.served += 1
        if _Triton.served % 7 == 0:
            return self._reply(500, {"error": "busy"})
        assert np.isfinite(samples).all() and samples.std() > 0
        return self._reply(200, {"outputs": [{"name": "label", "data": ["normal"] * len(samples)}]})


@pytest.fixture
def server() -> Iterator[str]:
    _Triton.served = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Triton) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_the_load_test_stops_by_itself_and_counts_what_failed(server: str) -> None:
    options = TritonLoadOptions("compact", concurrency=3, batch=2, requests=35, seconds=30)
    row = load_test(server, options).summary(options)
    assert (row["n"], row["errors"], row["labels"]) == (30, 5, {"normal": 60})
    assert "HTTP 500" in row["first_error"]
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    brief = TritonLoadOptions("compact", requests=10**9, seconds=0.2)
    assert load_test(server, brief).summary(brief)["n"] > 0


def test_a_server_that_is_not_there_or_lacks_the_model_is_a_plain_error(server: str) -> None:
    with pytest.raises(ExportError, match="no Triton server responds"):
        load_test("http://127.0.0.1:9", TritonLoadOptions("compact"))
    with pytest.raises(ExportError, match="has no model 'other'"):
        load_test(server, TritonLoadOptions("other"))
    with pytest.raises(ExportError, match="is not an address"):
        load_test("ftp://host", TritonLoadOptions("compact"))


def test_the_command_line_writes_repositories_and_tests_servers(
    stetho: Stetho,  # noqa: F811
    server: str,
    tmp_path: Path,
) -> None:
    made = stetho("triton", "repo", "default", "--out", tmp_path / "repo", "--json")
    assert made.status == 0 and len(made.records[0]["files"]) == 10
    loaded = stetho("triton", "load", server, "--requests", "6", "--json")
    assert loaded.status == 0 and loaded.records[0]["n"] == 6
    assert stetho("triton", "load", server, "--requests", "3").status == 0
    assert stetho("triton", "load", "http://127.0.0.1:9").status == 1
