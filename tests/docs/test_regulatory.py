"""The regulatory pages are made of the project itself: every requirement has tests, every pinned package is listed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def regulatory(repo_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("regulatory", repo_root / "docs" / "regulatory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.requirement("PRO-1")
def test_every_requirement_has_a_test(regulatory: ModuleType) -> None:
    found = regulatory.requirements()
    assert len(found) >= 25
    assert [one.id for one in found if not one.tests] == []
    assert len({one.id for one in found}) == len(found)


def test_a_requirement_that_does_not_exist_and_one_without_a_test_are_found(
    regulatory: ModuleType, tmp_path: Path
) -> None:
    tests, listed = tmp_path / "tests", tmp_path / "requirements.yaml"
    (tests / "deep").mkdir(parents=True)
    marks = (
        '@pytest.mark.requirement("A-1", "A-2")\n@other\ndef test_it(): pass\n@pytest.mark.long\ndef test_no(): pass\n'
    )
    (tests / "deep" / "test_a.py").write_text(marks)
    listed.write_text("Group:\n  A-1: One.\n  A-2: Two.\n  A-3: Three.\n")
    found = regulatory.requirements(listed, tests)
    assert [(one.id, one.tests) for one in found] == [
        ("A-1", (("tests/deep/test_a.py", "test_it"),)),
        ("A-2", (("tests/deep/test_a.py", "test_it"),)),
        ("A-3", ()),
    ]
    listed.write_text("Group:\n  A-1: One.\n")
    with pytest.raises(ValueError, match="does not have: A-2"):
        regulatory.requirements(listed, tests)


def test_the_marks_are_those_that_pytest_sees(
    regulatory: ModuleType, repo_root: Path, request: pytest.FixtureRequest
) -> None:
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    seen = {
        (str(identity), item.path.relative_to(repo_root).as_posix(), item.originalname)
        for item in items
        for mark in item.iter_markers("requirement")
        for identity in mark.args
    }
    # Tests that were not collected this time, the long ones among them, are not seen.
    names = {(item.path.relative_to(repo_root).as_posix(), item.originalname) for item in items}
    marked = {mark for mark in regulatory.marked(repo_root / "tests") if mark[1:] in names}
    assert seen == marked
    assert any(file == "tests/docs/test_regulatory.py" for _, file, _ in seen)


@pytest.mark.requirement("PRO-2")
def test_every_pinned_package_is_listed_with_version_and_licence(regulatory: ModuleType, repo_root: Path) -> None:
    lines = [line for line in (repo_root / "constraints.txt").read_text("utf-8").splitlines() if line[:1] not in "#"]
    table = regulatory.soup_table()
    rows = dict(re.findall(r"^\| \[?([\w.-]+)\]?(?:\([^)]*\))? \| ([^ |]+) \|", table, re.MULTILINE))
    assert rows.pop("package") == "version"  # the heads of the tables
    wanted = {
        re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (re.split("==|;", x)[:2] for x in lines)
    }
    assert rows == {name: version.strip() for name, version in wanted.items()}
    by_name = {package.name: package for package in regulatory.packages()}
    assert "device" in by_name["numpy"].extras and "BSD" in by_name["numpy"].licence
    assert "mqtt" in by_name["paho-mqtt"].extras and "device" not in by_name["paho-mqtt"].extras
    assert "device" not in by_name["pytest"].extras
    assert "report" in by_name["fonttools"].extras  # through matplotlib and fpdf2
