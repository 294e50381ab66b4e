"""The structure of the tree: rooms import downwards, no circles, few modules a folder, short files, plain names."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp
import networkx
import pytest

PACKAGES = ("edge_sdk", "export", "firmware_bridge", "benchmarks")
MOST_MODULES = 15  # in a folder, without __init__.py
MOST_LINES = 400
NOT_A_NAME = {"told", "heard", "said", "mended"}
"""Words that say what a person does, where the code means received, detected, reported, fixed."""


@pytest.fixture(scope="module")
def modules(repo_root: Path) -> list[Path]:
    """Every Python file of the project."""
    folders = (*PACKAGES, "tests", "docs", ".github")
    return sorted(path for folder in folders for path in (repo_root / folder).rglob("*.py"))


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the import contracts of pyproject.toml on the packages below ``root``."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copy(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which imports can be planted."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copy(repo_root / "pyproject.toml", root)
    for package in PACKAGES:
        shutil.copytree(
            repo_root / package,
            root / package,
            ignore=lambda folder, names: {n for n in names if Path(folder, n).is_file() and not n.endswith(".py")},
        )
    return root


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("edge_sdk/signal/ring.py", "edge_sdk.runtime.quality", "Rooms import downwards only"),
        ("edge_sdk/sinks/jsonl.py", "edge_sdk.corpora.table", "Rooms import downwards only"),
        ("edge_sdk/signal/clock.py", "edge_sdk.signal.resample", "No circles between modules or folders"),
        ("edge_sdk/metrics/icbhi.py", "edge_sdk.models.compact", "The device side never loads torch"),
    ],
)
def test_a_planted_import_breaks_its_contract(copy: Path, module: str, imported: str, contract: str) -> None:
    path = copy / module
    before = path.read_text("utf-8")
    try:
        path.write_text(f"{before}\n\ndef _planted() -> None:\n    import {imported}  # noqa\n", "utf-8")
        found = lint(copy)
    finally:
        path.write_text(before, "utf-8")
    assert found.returncode == 1, found.stdout
    (line,) = (line for line in found.stdout.splitlines() if line.startswith(contract) and "BROKEN" in line)
    assert line


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = networkx.DiGraph(
        (module, imported) for module in graph.modules for imported in graph.find_modules_directly_imported_by(module)
    )
    assert [circle for circle in networkx.strongly_connected_components(imports) if len(circle) > 1] == []


def test_a_folder_holds_few_modules(modules: list[Path]) -> None:
    counts = Counter(path.parent for path in modules if path.name != "__init__.py")
    assert {str(folder): n for folder, n in counts.items() if n > MOST_MODULES} == {}


def test_files_are_short(modules: list[Path]) -> None:
    lengths = {str(path): len(path.read_text("utf-8").splitlines()) for path in modules}
    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Every name that a module gives or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.keyword | ast.alias):
            yield from (name for name in (getattr(node, "arg", None), getattr(node, "asname", None)) if name)


def words(name: str) -> set[str]:
    """``toldOnce_by`` → {told, once, by}."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_names_are_the_words_of_the_field(modules: list[Path]) -> None:
    found = {
        f"{path}: {name}"
        for path in modules
        for name in (path.stem, *identifiers(ast.parse(path.read_text("utf-8"))))
        if words(name) & NOT_A_NAME
    }
    assert found == set()


def test_the_word_list_splits_names_of_every_style() -> None:
    assert words("_heard_ns") == {"heard", "ns"}
    assert words("HeardBefore") == {"heard", "before"}
    assert words("TOLD") == {"told"}
    assert not words("threshold_householder") & NOT_A_NAME
