"""The engine: golden vector, plain errors, one thread, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import EngineError
from edge_sdk.protocols import Engine
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.bundle.schema import Decoder
from edge_sdk.runtime.decoding import decode
from edge_sdk.runtime.engines.onnx import OrtEngine
from edge_sdk.signal.logmel import features
from tests.support.tiny_bundle import ARTEFACT


def test_the_engine_implements_the_interface(bundle: Bundle) -> None:
    engine: Engine = bundle.engine
    assert engine.name.startswith("onnxruntime-")


def test_golden_vector_comes_out(bundle: Bundle, bundle_folder: Path) -> None:
    with np.load(bundle_folder / "golden.npz", allow_pickle=False) as golden:
        found = bundle.classifier.logits(golden["pcm"].astype(np.float32) / 32768)
        assert np.abs(found - golden["logits_onnx_fp32"]).max() < 1e-4


def test_the_graph_computes_the_features_of_the_numpy_front_end(bundle: Bundle) -> None:
    """The folded convolution of the graph and the incremental extractor agree up to the linear layer."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(bundle.path / ARTEFACT)).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    rng = np.random.default_rng(0)
    pcm = (rng.standard_normal((1, bundle.front_end.window_samples)) * 0.05).astype(np.float32)
    by_hand = features(pcm[0], bundle.front_end).mean(axis=1) @ constants["weight"] + constants["bias"]
    assert np.allclose(bundle.classifier.logits(pcm)[0], by_hand, atol=1e-3)


def test_int8_products_do_not_saturate_on_any_processor(tmp_path: Path) -> None:
    """The default kernels of x86 processors without VNNI give half of this sum."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.full((64, 8), 127, np.int8), "weight")
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 8])
    node = helper.make_node("MatMulInteger", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "product", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(tmp_path / "product.onnx"))
    found = OrtEngine(tmp_path / "product.onnx").run({"x": np.full((1, 64), 255, np.uint8)})["y"]
    np.testing.assert_array_equal(found, np.full((1, 8), 255 * 127 * 64))


def test_a_batch_gives_what_single_clips_give(bundle: Bundle) -> None:
    rng = np.random.default_rng(1)
    pcm = (rng.standard_normal((5, bundle.front_end.window_samples)) * 0.05).astype(np.float32)
    singles = np.concatenate([bundle.classifier.logits(row[None]) for row in pcm])
    assert np.allclose(bundle.classifier.logits(pcm), singles, atol=1e-4)


@pytest.mark.parametrize(
    "inputs", [{}, {"pcm": np.zeros((1, 7), np.float32)}, {"pcm": np.zeros((1, 12000))}, {"audio": np.zeros(3)}]
)
def test_inputs_that_do_not_fit_are_an_engine_error(bundle: Bundle, inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(EngineError, match="inference failed"):
        bundle.engine.run(inputs)


def test_bound_arrays_give_what_a_run_gives(bundle: Bundle) -> None:
    engine, rng = bundle.engine, np.random.default_rng(2)
    assert isinstance(engine, OrtEngine)
    pcm, logits = np.zeros((1, bundle.front_end.window_samples), np.float32), np.zeros((1, 4), np.float32)
    step = engine.bind({"pcm": pcm}, {"logits": logits})
    for _ in range(2):
        pcm[:] = rng.standard_normal(pcm.shape) * 0.05
        step()
        np.testing.assert_array_equal(logits, engine.run({"pcm": pcm.copy()})["logits"])


def test_arrays_that_do_not_fit_are_an_engine_error(bundle: Bundle) -> None:
    engine = bundle.engine
    assert isinstance(engine, OrtEngine)
    logits = np.zeros((1, 4), np.float32)
    for wrong in ({"audio": np.zeros((1, 3), np.float32)}, {"pcm": np.zeros((1, 7), np.float32)}):
        with pytest.raises(EngineError, match=r"do not fit|inference failed"):
            engine.bind(wrong, {"logits": logits})()


def test_a_file_that_is_no_graph_is_an_engine_error(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"cannot load .*bad\.onnx"):
        OrtEngine(tmp_path / "bad.onnx")


def test_decoding_is_softmax_with_temperature_and_bias() -> None:
    logits = np.array([[2.0, 0.0, 1.0], [1000.0, -1000.0, 0.0]], np.float32)
    found = decode(logits, Decoder(temperature=2.0, bias=[0.0, 1.0, 0.0]))
    scores = np.exp([1.0, 1.0, 0.5])
    assert np.allclose(found[0], scores / scores.sum())
    assert np.isfinite(found).all() and np.allclose(found.sum(axis=1), 1)


_IMPORT = """
import json, sys
import edge_sdk
heavy = sorted(m for m in ('torch', 'onnxruntime', 'soxr', 'soundfile', 'msgspec') if m in sys.modules)
names = [n for n in edge_sdk.__all__ if getattr(edge_sdk, n, None) is None]
print(json.dumps({'heavy': heavy, 'missing': names, 'torch': 'torch' in sys.modules}))
"""


def test_import_is_light_and_every_public_name_is_there(repo_root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORT], cwd=repo_root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"heavy": [], "missing": [], "torch": False}
