"""Capture beside a model of AST-base's size: 48 kHz, 24 bits, a serial line, and no sample dropped."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.runtime.engines.library import onnxruntime
from edge_sdk.sources import open_source
from edge_sdk.sources.serial import SerialSource
from tests.support.stethoscope import wait_until

RATE = 48_000
TOKENS, WIDTH, LAYERS, HEADS = 950, 768, 12, 12  # AST on 8 s of audio: 86 M parameters in the blocks


def _transformer(path: Path, layers: int) -> None:
    """A stand-in with random weights and the arithmetic of AST-base's blocks; only its load on the machine matters."""
    rng = np.random.default_rng(0)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array((rng.standard_normal(shape) * 0.02).astype(np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    heads = numpy_helper.from_array(np.array([1, TOKENS, HEADS, WIDTH // HEADS], np.int64), "heads")
    joined = numpy_helper.from_array(np.array([1, TOKENS, WIDTH], np.int64), "joined")
    weights += [heads, joined, numpy_helper.from_array(np.float32(8.0), "scale")]
    x = "tokens"
    for i in range(layers):
        y = node("LayerNormalization", [x, weight(f"g{i}", WIDTH)], f"n{i}", axis=-1)
        parts = []
        for name in "qkv":
            flat = node("MatMul", [y, weight(f"{name}w{i}", WIDTH, WIDTH)], f"{name}f{i}")
            split = node("Reshape", [flat, "heads"], f"{name}s{i}")
            order = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
            parts.append(node("Transpose", [split], f"{name}t{i}", perm=order))
        scores = node("Div", [node("MatMul", parts[:2], f"qk{i}"), "scale"], f"sc{i}")
        mixed = node("MatMul", [node("Softmax", [scores], f"sm{i}", axis=-1), parts[2]], f"av{i}")
        back = node("Reshape", [node("Transpose", [mixed], f"at{i}", perm=[0, 2, 1, 3]), "joined"], f"aj{i}")
        x = node("Add", [x, node("MatMul", [back, weight(f"ow{i}", WIDTH, WIDTH)], f"o{i}")], f"r{i}")
        y = node("LayerNormalization", [x, weight(f"h{i}", WIDTH)], f"m{i}", axis=-1)
        up = node("Relu", [node("MatMul", [y, weight(f"uw{i}", WIDTH, 4 * WIDTH)], f"u{i}")], f"ur{i}")
        x = node("Add", [x, node("MatMul", [up, weight(f"dw{i}", 4 * WIDTH, WIDTH)], f"d{i}")], f"s{i}")
    shape = [1, TOKENS, WIDTH]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _capture_beside(tmp_path: Path, *, seconds: float, layers: int) -> None:
    _transformer(tmp_path / "large.onnx", layers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(tmp_path / "large.onnx", options, providers=["CPUExecutionProvider"])
    tokens = np.random.default_rng(1).standard_normal((1, TOKENS, WIDTH)).astype(np.float32)
    played = np.round(np.random.default_rng(2).uniform(-0.5, 0.5, round(seconds * RATE)) * (1 << 23)) / (1 << 23)
    soundfile.write(tmp_path / "noise.wav", played, RATE, subtype="PCM_24")
    link = tmp_path / "link"
    command = [sys.executable, "-m", "edge_sdk.cli.main", "device-sim", "--source", str(tmp_path / "noise.wav")]
    device = subprocess.Popen([*command, "--link", str(link), "--once", "--bits", "24"], stdout=subprocess.DEVNULL)
    stop, runs = threading.Event(), []

    def infer() -> None:
        while not stop.is_set():
            session.run(None, {"tokens": tokens})
            runs.append(time.monotonic())

    try:
        assert wait_until(link.exists, 20.0)
        source = open_source(f"serial:{link}")
        assert isinstance(source, SerialSource)
        worker = threading.Thread(target=infer, daemon=True)
        worker.start()
        blocks = list(source)
        stop.set()
        worker.join(30.0)
        source.close()
        assert device.wait(20.0) == 0
    finally:
        stop.set()
        device.kill()
    received = np.concatenate([block.samples for block in blocks])
    assert len(runs) >= 1
    assert sum(block.lost_before for block in blocks) == 0
    assert received.size == played.size
    assert np.array_equal(received, played.astype(np.float32))


def test_48_khz_of_24_bits_arrive_whole_beside_two_blocks_of_a_transformer(tmp_path: Path) -> None:
    _capture_beside(tmp_path, seconds=3.0, layers=2)


@pytest.mark.long
def test_48_khz_of_24_bits_arrive_whole_for_a_minute_beside_a_model_of_ast_bases_size(tmp_path: Path) -> None:
    _capture_beside(tmp_path, seconds=60.0, layers=LAYERS)
