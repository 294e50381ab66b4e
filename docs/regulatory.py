"""Parts of a regulatory file that follow from the project itself: the software of others, and requirement → test."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
SOUP = "<!-- software of others -->"
TRACES = "<!-- requirement and test -->"
_NOT_IN_USE = ("dev", "docs")  # extras that are for working on the project


class Package(NamedTuple):
    """A pinned package of others."""

    name: str
    version: str
    extras: tuple[str, ...]  # that bring it; "device": what every installation has
    licence: str
    what: str
    url: str


class Requirements(NamedTuple):
    """A requirement and the tests that name it."""

    group: str
    id: str
    text: str
    tests: tuple[tuple[str, str], ...]  # file and function


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Put the tables where a page asks for them."""
    if SOUP in markdown:
        markdown = markdown.replace(SOUP, soup_table())
    if TRACES in markdown:
        markdown = markdown.replace(TRACES, trace_table(config["repo_url"]))
    return markdown


def pinned(constraints: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """Name → version of every package in the lock file."""
    lines = (line.partition("#")[0].strip() for line in constraints.read_text("utf-8").splitlines())
    parsed = [Requirement(line) for line in lines if line]
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in parsed}


@cache
def packages() -> list[Package]:
    """Every pinned package, those of the device first; facts are those of the packages that are installed here."""
    users = _users()
    found = []
    for name, version in pinned().items():
        extras = tuple(sorted(users.get(name, ()), key=lambda extra: (extra != "device", extra)))
        found.append(Package(name, version, extras, *_facts(name)))
    return sorted(found, key=lambda p: ("device" not in p.extras, not set(p.extras) - set(_NOT_IN_USE), p.name))


def soup_table() -> str:
    """A table of the packages in use, and one of those for working on the project."""
    parts = {True: [], False: []}  # type: dict[bool, list[str]]
    for p in packages():
        used = bool(set(p.extras) - set(_NOT_IN_USE))
        link = f"[{p.name}]({p.url})" if p.url else p.name
        extras = ", ".join(extra for extra in p.extras if not used or extra not in _NOT_IN_USE) or "–"
        parts[used].append(f"| {link} | {p.version} | {_cell(p.licence)} | {extras} | {_cell(p.what)} |")
    head = "| package | version | licence | comes with | what it is |\n|---|---|---|---|---|\n"
    return (
        "## In use\n\n" + head + "\n".join(parts[True])
        + "\n\n## Only for working on the project\n\n" + head + "\n".join(parts[False])
    )  # fmt: skip


def requirements(path: Path = ROOT / "docs" / "requirements.yaml", tests: Path = ROOT / "tests") -> list[Requirements]:
    """Every requirement with its tests, in the order of the file."""
    named: dict[str, list[tuple[str, str]]] = {}
    for found, file, function in marked(tests):
        named.setdefault(found, []).append((file, function))
    groups: Mapping[str, Mapping[str, str]] = yaml.safe_load(path.read_text("utf-8"))
    known = {one for group in groups.values() for one in group}
    if unknown := sorted(set(named) - known):
        raise ValueError(f"tests name requirements that {path.name} does not have: {', '.join(unknown)}")
    return [
        Requirements(group, one, text, tuple(sorted(named.get(one, ()))))
        for group, members in groups.items()
        for one, text in members.items()
    ]


def marked(tests: Path) -> Iterator[tuple[str, str, str]]:
    """Requirement, file and function of every ``@pytest.mark.requirement("ID", ...)``."""
    for path in sorted(tests.rglob("test_*.py")):
        text = path.read_text("utf-8")
        if "mark.requirement" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.requirement":
                        for argument in mark.args:
                            file = path.relative_to(tests.parent).as_posix()
                            yield ast.literal_eval(argument), file, node.name


def trace_table(repo_url: str) -> str:
    """A section a group, a row a requirement."""
    lines: list[str] = []
    group = None
    for one in requirements():
        if one.group != group:
            group = one.group
            lines += ["", f"## {group}", "", "| id | requirement | tests |", "|---|---|---|"]
        tests = "<br>".join(f"[{_spoken(name)}]({repo_url}/blob/main/{file})" for file, name in one.tests)
        lines.append(f"| {one.id} | {_cell(one.text)} | {tests or '**none**'} |")
    return "\n".join(lines)


def _users() -> dict[str, set[str]]:
    """Package → extras of this project that bring it, also through others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {"device": project["dependencies"], **project["optional-dependencies"]}
    users: dict[str, set[str]] = {}
    for extra, lines in wanted.items():
        first = [Requirement(line) for line in lines]
        for r in first:  # extras of extras of this project are appended while it grows
            if r.name == project["name"]:
                first += [Requirement(line) for more in r.extras for line in wanted[more]]
        for name in _closure([r for r in first if r.name != project["name"]]):
            users.setdefault(name, set()).add(extra)
    return users


def _closure(first: list[Requirement]) -> set[str]:
    waiting, seen = list(first), set()  # type: list[Requirement], set[tuple[str, tuple[str, ...]]]
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), tuple(sorted(requirement.extras)))
        if key in seen:
            continue
        seen.add(key)
        for needed in _requires(key[0]):
            extras = key[1] or ("",)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return {name for name, _ in seen}


@cache
def _requires(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def _facts(name: str) -> tuple[str, str, str]:
    """Licence, summary and address, as the package states them."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed where this page was made", "", ""
    licence = stated.get("License-Expression") or ""
    if not licence:
        classes = [c.rpartition(" :: ")[2] for c in stated.get_all("Classifier") or [] if c.startswith("License ::")]
        licence = ", ".join(classes) or (stated.get("License") or "").strip().partition("\n")[0]
    links = dict(re.split(r",\s*", line, maxsplit=1) for line in stated.get_all("Project-URL") or [])
    wanted = ("homepage", "home", "source", "source code", "repository", "documentation")
    known = {label.lower(): url for label, url in links.items()}
    url = stated.get("Home-page") or next((known[w] for w in wanted if w in known), "")
    return licence or "not stated by the package", stated.get("Summary") or "", "" if url == "UNKNOWN" else url


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def _spoken(function: str) -> str:
    return function.removeprefix("test_").replace("_", " ")
