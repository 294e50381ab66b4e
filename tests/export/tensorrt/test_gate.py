"""TensorRT takes every model: TensorRT-RTX parses and builds it without a GPU. Nothing is executed.

RTX refuses what older parsers refuse too, but may accept more than they do; see the limits in the README.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.core.exported import RECIPES, Exported
from edge_sdk.errors import ExportError
from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, read_manifest
from edge_sdk.training.untrained import untrained_checkpoint
from export.onnx.graph import export_network
from export.tensorrt.builder import EngineFile, build_engine, parse_problems
from export.tensorrt.options import BuildOptions
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.export.onnx.test_every_model import IN_CI, exported
from tests.support.gpu import runtime_double
from tests.support.gpu import tensorrt_double as double

trt: Any = pytest.importorskip("tensorrt_rtx", reason="the extra 'tensorrt-rtx' brings it", exc_type=ImportError)

AHEAD = ("8.6",)
OTHERS = ["compact", *(pytest.param(name, marks=pytest.mark.long) for name in ("film", "grf", "tafilm"))]
# ast-sam, patch-mix, -paper: ast's graph; film, grf, tafilm: softfilm's in CI; lung-srad: test_dass_export
ONE_PROFILE = ((1, 8, 64),)


def _build(content: bytes, folder: Path, **options: Any) -> EngineFile:
    return build_engine(content, BuildOptions(flavour="tensorrt-rtx", capabilities=AHEAD, cache=folder, **options))


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-fp16"])
def test_the_shipped_graphs_build_for_single_breaths_and_batches_of_64(name: str, tmp_path: Path) -> None:
    entry = next(a for a in read_manifest(DEFAULT_BUNDLE).artefacts if a.format == name)
    engine = _build((DEFAULT_BUNDLE / entry.file).read_bytes(), tmp_path)
    assert engine.bytes > 100_000 and engine.sidecar["key"]["profiles"] == "1-1-1,1-8-64"


@pytest.mark.parametrize("recipe", IN_CI)
def test_every_model_builds_from_sound_to_logits(recipe: str, tmp_path: Path) -> None:
    assert _build(exported(recipe, "tiny").joined.SerializeToString(), tmp_path, profiles=ONE_PROFILE).bytes > 100_000


@pytest.mark.parametrize("recipe", OTHERS)
def test_every_other_model_builds_from_features_to_logits(recipe: str, tmp_path: Path) -> None:
    checkpoint = untrained_checkpoint(recipe, size="tiny")
    graph = export_network(checkpoint.build(), checkpoint.front_end, checkpoint.metadata_schema)
    assert _build(graph.SerializeToString(), tmp_path, profiles=ONE_PROFILE).bytes > 100_000


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_model_builds_at_its_published_size(recipe: str, tmp_path: Path) -> None:
    """With both default profiles; ``python -m benchmarks.studies.tensorrt_builds`` gives sizes and times."""
    assert _build(Exported(recipe, "base").joined.SerializeToString(), tmp_path).bytes > 100_000


def test_what_is_made_for_cpus_is_refused_with_its_nodes_named(tmp_path: Path) -> None:
    content = (DEFAULT_BUNDLE / "classifier.int8.onnx").read_bytes()
    with pytest.raises(ExportError, match=r"cannot take this graph: node \S+ \(DequantizeLinear\)"):
        _build(content, tmp_path)
    assert parse_problems(content)
    assert list(tmp_path.iterdir()) == []


def test_fp16_by_the_builder_and_gpus_unknown_to_rtx_are_refused(tmp_path: Path) -> None:
    content = (DEFAULT_BUNDLE / "classifier.fp32.onnx").read_bytes()
    with pytest.raises(ExportError, match="compile the artefact onnx-fp16"):
        _build(content, tmp_path, precision="fp16", baked=False)
    with pytest.raises(ExportError, match=r"does not build for compute capability 8\.7"):
        build_engine(content, BuildOptions(flavour="tensorrt-rtx", capabilities=("8.7",), cache=tmp_path))


@pytest.mark.parametrize(
    ("ours", "real"),
    [("NetworkDefinitionCreationFlag",) * 2, ("BuilderFlag",) * 2, ("HardwareCompatibilityLevel",) * 2,
     ("MemoryPoolType",) * 2, ("DeviceType",) * 2, ("TensorIOMode",) * 2, ("DataType",) * 2, ("ComputeCapability",) * 2,
     ("_Config", "IBuilderConfig"), ("_Builder", "Builder"), ("_Network", "INetworkDefinition"),
     ("_Parser", "OnnxParser"), ("_Runtime", "Runtime"), ("_Engine", "ICudaEngine"), ("_Context", "IExecutionContext")],
)  # fmt: skip
def test_the_double_has_nothing_that_the_real_module_lacks(ours: str, real: str) -> None:
    """What the code may call of RTX in the tests of :mod:`tests.support.gpu.tensorrt_double` exists under that name."""
    if ours.startswith("_"):
        stand_in = getattr(double, ours, None) or getattr(runtime_double, ours.removeprefix("_"))
    else:
        stand_in = getattr(double.tensorrt_double("rtx"), ours)
    own_state = {"inputs", "outputs", "nodes", "content", "profiles", "flags", "module", "tensors"}
    names = {n for n in dir(stand_in) if not n.startswith("_")} - own_state
    if not ours.startswith("_"):
        names = {member.name for member in stand_in}
    assert names <= set(dir(getattr(trt, real)))


def test_compile_builds_ahead_of_time_and_finds_it_again(
    stetho: Stetho,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path))
    first = stetho("compile", "default", "--for", "8.6", "--batch", "1-1-1", "--json")
    assert first.status == 0, first.err
    row = first.records[0]
    assert (row["type"], row["capability"], row["profiles"], row["cached"]) == ("engine", "8.6", "1-1-1", False)
    assert row["proven"] is None and "never run" in row["detail"]
    assert Path(row["path"]).stat().st_size == row["bytes"]
    assert json.loads(Path(row["path"]).with_suffix(".json").read_text())["key"]["gpu"] == "any"
    again = stetho("compile", "default", "--for", "8.6", "--batch", "1-1-1")
    assert again.status == 0 and "from the cache" in again.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "no NVIDIA GPU on this machine, and an engine is built on the GPU that runs it"),
        (["--for", "Orin"], "'Orin' is not a compute capability"),
        (["--batch", "8"], "give lowest-best-highest"),
        (["--batch", "8-4-1"], "needs 1 <= lowest <= best <= highest"),
        (["--precision", "int4"], "precision 'int4' does not exist"),
        (["--precision", "int8"], "export it with --formats onnx-int8-trt"),
        (["--hardware-compatible", "all"], "neither ampere nor same"),
        (["--flavour", "openvino"], "openvino is not installed (installed: tensorrt-rtx)"),
    ],
)
def test_compile_refuses_in_one_line_with_the_fix(
    arguments: list[str],
    error: str,
    stetho: Stetho,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path))
    outcome = stetho("compile", "default", *arguments)
    assert outcome.status == 1 and error in outcome.error
    assert list(tmp_path.iterdir()) == []
