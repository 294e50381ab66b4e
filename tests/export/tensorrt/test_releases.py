"""Every call of the SDK exists, with these arguments, in six releases of TensorRT and in RTX, by their wheels."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE
from export.portability.releases import PARSERS, release_problems
from tests.export.onnx.test_every_model import IN_CI, exported
from tests.export.tensorrt.contract import CALLS, CLASSES
from tests.support.gpu import bindings, tensorrt_double

TABLES = Path(__file__).parent / "releases"
RELEASES = (*bindings.RELEASES, "rtx")
_ROOT = Path(__file__).resolve().parents[3]
SOURCES = (
    *sorted((_ROOT / "export/tensorrt").glob("*.py")),
    _ROOT / "edge_sdk/runtime/engines/tensorrt.py",
    _ROOT / "edge_sdk/runtime/engines/tensorrt_context.py",
    _ROOT / "edge_sdk/cli/doctor/gpu.py",
)
_OF_OTHER_OBJECTS = {"name", "precision", "version", "shape", "dtype", "__init__"}  # of ours, numpy's and onnx's too
_OUR_FIELDS = {"flags", "platform", "profiles", "engine", "file", "itemsize"}
_AFTER_A_LOOK = {("create_execution_context", 1): "ExecutionContextAllocationStrategy"}
"""Method and number of arguments → class without which the SDK does not call it so."""


@cache
def _table(release: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TABLES / f"{release}.json").read_text())
    return found


def _calls() -> Iterator[tuple[str, int, set[str]]]:
    """Method, number of positional arguments, names of the others; of every call in the SDK's TensorRT modules."""
    known = {member for members in CALLS.values() for member in members} - _OF_OTHER_OBJECTS
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in known:
                yield node.func.attr, len(node.args), {k.arg for k in node.keywords if k.arg}


@pytest.mark.parametrize("release", RELEASES)
def test_no_member_is_missing(release: str) -> None:
    api = _table(release)["api"]
    missing = [
        f"{owner}.{member}"
        for owner, members in CALLS.items()
        for member, need in members.items()
        if need == "all" and member not in api.get(owner, {})
    ]
    assert missing == []


def test_what_is_looked_for_exists_somewhere() -> None:
    gone = [
        f"{owner}.{member}"
        for owner, members in CALLS.items()
        for member in members
        if not any(member in _table(release)["api"].get(owner, {}) for release in RELEASES)
    ]
    # JetPack 5 (8.5) had a limit of the workspace in place of memory pools, which no later wheel has.
    assert gone in ([], ["IBuilderConfig.max_workspace_size"])


@pytest.mark.parametrize("release", RELEASES)
def test_every_call_has_arguments_that_the_release_takes(release: str) -> None:
    api, checked = _table(release)["api"], 0
    for method, count, names in _calls():
        signatures = [
            overload.split(", ")
            for owner, members in CALLS.items()
            if method in members
            for overload in api.get(owner, {}).get(method, ())
        ]
        guard = _AFTER_A_LOOK.get((method, count))
        if not signatures or (guard is not None and guard not in api):
            continue  # an attribute, or what this release does not have
        checked += 1
        assert any(_takes(signature[1:], count, names) for signature in signatures), (method, count, names, signatures)
    assert checked >= 20


def _takes(parameters: list[str], count: int, names: set[str]) -> bool:
    required = [p for p in parameters if not p.endswith("=") and not p.startswith("*")]
    named = {p.rstrip("=") for p in parameters}
    if any(p.startswith("*") for p in parameters):
        return True
    return names <= named and len(required) <= count + len(names) <= len(parameters)


def test_no_call_of_a_class_in_use_is_left_out_of_the_contract() -> None:
    """Whatever the SDK's TensorRT modules read from any object, if some release has a member of that name."""
    members = {m for release in RELEASES for owner in CLASSES for m in _table(release)["api"].get(owner, {})}
    listed = {member for owner in CALLS.values() for member in owner}
    used = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "member":
                owner, name = (getattr(argument, "value", None) for argument in node.args)
                if isinstance(name, str):
                    assert name in CALLS[str(owner)], f"{owner}.{name}"
    unlisted = (used & members) - listed - _OF_OTHER_OBJECTS
    assert unlisted <= _OUR_FIELDS, unlisted


def test_enums_of_the_doubles_exist_in_the_releases() -> None:
    for release in set(tensorrt_double.RELEASES) & set(RELEASES):
        api = _table(release)["api"]
        double = tensorrt_double.tensorrt_double(release)
        for group in ("NetworkDefinitionCreationFlag", "BuilderFlag", "HardwareCompatibilityLevel"):
            for member in getattr(double, group):
                assert member.name in api[group], (release, group, member.name)
        for group in ("BuilderFlag", "NetworkDefinitionCreationFlag"):  # a double must not lack what the code looks for
            looked_for = {name for name in CALLS[group] if name in api[group]}
            assert looked_for <= {member.name for member in getattr(double, group)}, (release, group)


@pytest.mark.parametrize("release", PARSERS)
def test_every_parser_reads_the_graphs_of_the_default_bundle(release: str) -> None:
    for name in ("classifier.fp32.onnx", "classifier.fp16.onnx"):
        assert release_problems(onnx.load(str(DEFAULT_BUNDLE / name)), release) == []
    assert set(PARSERS) == set(bindings.RELEASES)


@pytest.mark.long  # every export requires it of the releases from 10 on
@pytest.mark.parametrize("recipe", IN_CI)
def test_every_parser_reads_every_model(recipe: str) -> None:
    graph = exported(recipe, "tiny").joined
    assert [line for release in PARSERS for line in release_problems(graph, release)] == []


def test_what_a_release_refuses_is_named() -> None:
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["b", 4]) for n in "xy"]
    for operator, refused in (("Reciprocal", {"8.6"}), ("Det", set(PARSERS)), ("Relu", set())):
        node = onnx.helper.make_node(operator, ["x"], ["y"], name="n")
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", values[:1], values[1:]),
            opset_imports=[onnx.helper.make_opsetid("", 17)],
        )
        assert {release for release in PARSERS if release_problems(model, release)} == refused
    model.opset_import[0].version = 21
    assert release_problems(model, "10.3") == ["TensorRT 10.3 reads opsets up to 20, the graph has 21"]


@pytest.mark.long
@pytest.mark.parametrize("release", bindings.RELEASES)
def test_the_tables_are_those_of_the_wheels(release: str, tmp_path: Path) -> None:
    found = bindings.kept(bindings.read_release(bindings.RELEASES[release], tmp_path), CLASSES)
    assert json.loads(json.dumps(found)) == _table(release)


def test_the_table_of_rtx_is_that_of_the_installed_module() -> None:
    pytest.importorskip("tensorrt_rtx", reason="the extra 'tensorrt-rtx' brings it", exc_type=ImportError)
    found = bindings.kept(bindings.api_of("tensorrt_rtx"), CLASSES)
    if found["version"] == _table("rtx")["version"]:
        assert found["api"] == _table("rtx")["api"]
