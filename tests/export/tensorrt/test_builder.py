"""One builder asks each TensorRT release only for what it has, and leaves nothing half built."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edge_sdk.errors import BundleError, ExportError
from edge_sdk.files import write_whole
from edge_sdk.runtime.engines.cache import cache_folder, sidecar_path
from edge_sdk.runtime.engines.cuda_driver import Gpu
from export.tensorrt.api import TrtApi, find_api
from export.tensorrt.builder import build_engine, parse_problems
from export.tensorrt.options import BuildOptions
from tests.support.gpu.tensorrt_double import RELEASES, tensorrt_double
from tests.support.tiny_bundle import ARTEFACT, tiny_graph, tiny_spec, write_tiny_bundle

ORIN = Gpu("Orin", "8.7", "CUDA 12.6, 540.4.0")
Build = Any


@pytest.fixture(scope="module")
def graph() -> bytes:
    return tiny_graph(tiny_spec())


def _api(release: str, **changes: Any) -> TrtApi:
    return TrtApi(tensorrt_double(release, **changes), "tensorrt-rtx" if release == "rtx" else "tensorrt")


def _build(api: TrtApi, graph: bytes, folder: Path, **options: Any) -> list[Any]:
    build_engine(graph, BuildOptions(cache=folder, **options), api=api, gpu=ORIN)
    return list(api.module.calls)


@pytest.mark.parametrize("release", RELEASES)
def test_fp32_asks_each_release_for_what_it_has(release: str, graph: bytes, tmp_path: Path) -> None:
    calls = _build(_api(release), graph, tmp_path)
    network = {"8.6": ("EXPLICIT_BATCH",), "11.4": ("STRONGLY_TYPED",), "rtx": ("STRONGLY_TYPED",)}
    assert calls[0] == ("network", *network.get(release, ("EXPLICIT_BATCH", "STRONGLY_TYPED")))
    assert not [c for c in calls if c[0] == "memory"]
    assert ("clear_flag", "TF32") in calls
    flags = ["REQUIRE_USER_ALLOCATION"] if release == "rtx" else []  # without it no CUDA graph can be recorded
    assert [c[1] for c in calls if c[0] == "set_flag"] == flags
    samples = tiny_spec().window_samples
    one, many = calls[-1][1]
    assert one == [((1, samples),) * 3]
    assert many == [((1, samples), (8, samples), (64, samples))]


def test_scratch_memory_is_limited_on_demand_and_a_failed_build_then_names_the_option(
    graph: bytes, tmp_path: Path
) -> None:
    assert ("memory", "WORKSPACE", 64 << 20) in _build(_api("10.3"), graph, tmp_path, workspace_mb=64)
    with pytest.raises(ExportError, match=r"leave --workspace out or raise it, or give a smaller --batch$"):
        _build(_api("10.3", fails=True), graph, tmp_path / "other", workspace_mb=64)


@pytest.mark.parametrize(
    ("release", "flags"),
    [("8.6", ["FP16", "OBEY_PRECISION_CONSTRAINTS"]), ("10.3", []), ("11.4", []), ("rtx", ["REQUIRE_USER_ALLOCATION"])],
)
def test_precision_in_the_graph_needs_flags_only_where_networks_are_not_typed(
    release: str, flags: list[str], graph: bytes, tmp_path: Path
) -> None:
    calls = _build(_api(release), graph, tmp_path, precision="fp16")
    assert [c[1] for c in calls if c[0] == "set_flag"] == flags
    calls = _build(_api("8.6"), graph, tmp_path, precision="int8")
    assert [c[1] for c in calls if c[0] == "set_flag"] == ["INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert all(
        ("clear_flag", "TF32") in _build(_api(r), graph, tmp_path, precision="fp16", force=True) for r in RELEASES
    )


@pytest.mark.parametrize("release", RELEASES)
def test_fp16_of_an_fp32_graph_is_the_builders_where_it_has_the_flag_and_refused_elsewhere(
    release: str, graph: bytes, tmp_path: Path
) -> None:
    api = _api(release)
    if release in ("11.4", "rtx"):
        with pytest.raises(ExportError, match="no FP16 flag: compile the artefact onnx-fp16"):
            _build(api, graph, tmp_path, precision="fp16", baked=False)
        return
    calls = _build(api, graph, tmp_path, precision="fp16", baked=False)
    assert calls[0] == ("network", "EXPLICIT_BATCH")  # not typed: the builder chooses
    assert ("set_flag", "FP16") in calls


def test_int8_without_scales_in_the_graph_is_refused(graph: bytes, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="compile the artefact onnx-int8-trt"):
        _build(_api("10.3"), graph, tmp_path, precision="int8", baked=False)


def test_compatibility_options_go_where_they_exist(graph: bytes, tmp_path: Path) -> None:
    calls = _build(_api("10.16"), graph, tmp_path, version_compatible=True, hardware_compatible="same")
    assert ("set_flag", "VERSION_COMPATIBLE") in calls
    assert ("hardware_compatibility_level", "SAME_COMPUTE_CAPABILITY") in calls
    with pytest.raises(ExportError, match="no hardware compatibility 'same'"):
        _build(_api("10.3"), graph, tmp_path, hardware_compatible="same")


def test_only_rtx_builds_ahead_of_time_and_only_for_gpus_it_knows(graph: bytes, tmp_path: Path) -> None:
    calls = _build(_api("rtx"), graph, tmp_path, capabilities=("8.6", "8.9"))
    assert [c for c in calls if c[0] == "capability"] == [("capability", "SM86", 0), ("capability", "SM89", 1)]
    assert not [c for c in calls if c[0] == "timing cache"]  # nothing is timed without the GPU
    with pytest.raises(ExportError, match=r"does not build for compute capability 8\.7"):
        _build(_api("rtx"), graph, tmp_path, capabilities=("8.7",))
    with pytest.raises(ExportError, match="builds only for the GPU it runs on"):
        _build(_api("10.3"), graph, tmp_path, capabilities=("8.6",))


def test_dla_takes_cnns_in_low_precision_where_there_is_a_core(graph: bytes, tmp_path: Path) -> None:
    calls = _build(_api("10.3", dla_cores=2), graph, tmp_path, dla_core=1, precision="fp16")
    assert (
        ("default_device_type", "DLA") in calls and ("DLA_core", 1) in calls and ("set_flag", "GPU_FALLBACK") in calls
    )
    with pytest.raises(ExportError, match="sees 0 DLA cores"):
        _build(_api("11.4"), graph, tmp_path, dla_core=0, precision="fp16")
    with pytest.raises(ExportError, match="fp16 and int8 only"):
        _build(_api("10.3", dla_cores=2), graph, tmp_path, dla_core=0)
    with pytest.raises(ExportError, match="only 0% of the layers"):
        _build(_api("10.3", dla_cores=2, on_dla=0.0), graph, tmp_path, dla_core=0, precision="fp16")
    with pytest.raises(ExportError, match="exclude each other"):
        _build(
            _api("10.3", dla_cores=2), graph, tmp_path, dla_core=0, precision="fp16", hardware_compatible="ampere"
        )  # fmt: skip


def test_timings_of_one_build_speed_up_the_next(graph: bytes, tmp_path: Path) -> None:
    calls = _build(_api("10.3"), graph, tmp_path)
    assert ("timing cache", 0) in calls
    calls = _build(_api("10.3"), graph, tmp_path, force=True)
    assert ("timing cache", len(b"timings")) in calls


@pytest.mark.parametrize(
    ("release", "expected"), [("8.6", "Local timing cache in use."), ("10.3", "Building engine: 50 %")]
)
def test_every_release_reports_progress(release: str, expected: str, graph: bytes, tmp_path: Path) -> None:
    lines: list[str] = []
    build_engine(graph, BuildOptions(cache=tmp_path), progress=lines.append, api=_api(release), gpu=ORIN)
    assert expected in lines


def test_the_cache_returns_the_same_engine_and_builds_again_when_anything_differs(graph: bytes, tmp_path: Path) -> None:
    api = _api("10.3")
    first = build_engine(graph, BuildOptions(cache=tmp_path), api=api, gpu=ORIN)
    again = build_engine(graph, BuildOptions(cache=tmp_path), api=api, gpu=ORIN)
    assert not first.cached and again.cached and again.path == first.path
    other_gpu = Gpu("Orin", "8.7", "CUDA 12.6, 540.5.0")
    others = [
        build_engine(graph, BuildOptions(cache=tmp_path), api=api, gpu=other_gpu),
        build_engine(graph, BuildOptions(cache=tmp_path), api=_api("10.16"), gpu=ORIN),
        build_engine(graph, BuildOptions(cache=tmp_path, precision="fp16"), api=api, gpu=ORIN),
        build_engine(graph, BuildOptions(cache=tmp_path, profiles=((1, 1, 1),)), api=api, gpu=ORIN),
        build_engine(tiny_graph(tiny_spec(), seed=1), BuildOptions(cache=tmp_path), api=api, gpu=ORIN),
    ]
    assert not any(engine.cached for engine in others)
    assert len({engine.path for engine in [first, *others]}) == 6


def test_a_damaged_engine_of_the_cache_is_built_again(graph: bytes, tmp_path: Path) -> None:
    first = build_engine(graph, BuildOptions(cache=tmp_path), api=_api("10.3"), gpu=ORIN)
    first.path.write_bytes(b"half")
    again = build_engine(graph, BuildOptions(cache=tmp_path), api=_api("10.3"), gpu=ORIN)
    assert not again.cached
    assert hashlib.sha256(again.path.read_bytes()).hexdigest() == again.sidecar["sha256"]


@pytest.mark.parametrize(("release", "name"), [("8.6", r"number 0 \(\?\)"), ("10.3", r"spectrum \(DFT\)")])
def test_every_node_that_the_parser_refuses_is_named(release: str, name: str, tmp_path: Path) -> None:
    node = helper.make_node("DFT", ["x"], ["y"], name="spectrum")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 8, 1]) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(ExportError, match=f"cannot take this graph: node {name}: Plugin not found, are the name"):
        _build(_api(release), model.SerializeToString(), tmp_path)
    assert len(parse_problems(model.SerializeToString(), api=_api(release))) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_model_and_a_build_that_fails_are_plain_errors(graph: bytes, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the file is no ONNX model"):
        _build(_api("10.3"), b"garbage", tmp_path)
    with pytest.raises(
        ExportError, match="could not build the engine: Could not find any implementation for node stem"
    ):
        _build(_api("10.3", fails=True), graph, tmp_path)
    assert list(tmp_path.glob("*.engine")) == []


def test_dynamic_axes_other_than_the_batch_are_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", "t"]) for n in "xy"]
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:]))
    with pytest.raises(ExportError, match="only the batch may be dynamic"):
        _build(_api("10.3"), model.SerializeToString(), tmp_path)


def test_an_interrupted_build_leaves_nothing_under_the_engines_name(graph: bytes, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line.endswith("50 %"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(graph, BuildOptions(cache=tmp_path), progress=interrupt, api=_api("10.3"), gpu=ORIN)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_breaks_off_leaves_no_usable_engine(
    graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_sdk.runtime.engines import cache as engine_cache

    def breaks(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        write_whole(path, content)

    monkeypatch.setattr(engine_cache, "write_whole", breaks)
    with pytest.raises(ExportError, match=r"No space left on device.*STETHO_CACHE"):
        _build(_api("10.3"), graph, tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.engine.json"))
    assert not build_engine(graph, BuildOptions(cache=tmp_path), api=_api("10.3"), gpu=ORIN).cached


def test_an_unwritable_cache_and_a_machine_without_gpu_are_plain_errors(
    graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="STETHO_CACHE"):
        _build(_api("10.3"), graph, tmp_path / "file")
    with pytest.raises(ExportError, match="no NVIDIA GPU on this machine"):
        build_engine(graph, BuildOptions(cache=tmp_path), api=_api("10.3"))
    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "engines"


def test_a_flavour_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from export.tensorrt import api as trt_api

    monkeypatch.setattr(trt_api, "installed_flavours", lambda: [])
    with pytest.raises(ExportError, match="on Jetson it comes with JetPack"):
        find_api()
    monkeypatch.setattr(trt_api, "installed_flavours", lambda: ["tensorrt-rtx"])
    with pytest.raises(ExportError, match=r"tensorrt is not installed \(installed: tensorrt-rtx\)"):
        find_api("tensorrt")


def test_the_sidecar_lies_beside_its_engine(graph: bytes, tmp_path: Path) -> None:
    engine = build_engine(graph, BuildOptions(cache=tmp_path), api=_api("10.3"), gpu=ORIN)
    assert sidecar_path(engine.path).is_file()
    assert engine.sidecar["key"]["gpu"] == "Orin" and engine.bytes == engine.path.stat().st_size
    assert onnx.load_from_string(graph).graph.name == "tiny"


def test_the_engine_format_of_the_table_builds_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.tensorrt import builder as tensorrt

    monkeypatch.setenv("STETHO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt, "find_api", lambda flavour: _api("10.3"))
    bundle = write_tiny_bundle(tmp_path / "bundle")
    with pytest.raises(ExportError, match="no NVIDIA GPU on this machine"):
        tensorrt.build_engine_format(bundle, lambda line: None)
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: ORIN)
    (path,) = tensorrt.build_engine_format(bundle, lambda line: None)
    assert path.parent == tmp_path / "cache" / "engines" and path.is_file()
    (bundle / ARTEFACT).write_bytes(b"changed")
    with pytest.raises(BundleError, match="does not match its sha256"):
        tensorrt.build_engine_format(bundle, lambda line: None)
