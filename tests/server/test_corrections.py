"""Corrections of a recording's cycles: append-only, undoable, whole after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.server.settings import RequestError
from edge_sdk.server.store.corrections import Corrections

ORIGINAL = [
    {"type": "cycle", "id": "c0", "start_s": 0.0, "end_s": 2.0, "label": "normal", "probabilities": {"normal": 0.9}},
    {"type": "cycle", "id": "c1", "start_s": 2.0, "end_s": 4.0, "label": None, "probabilities": {}},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.corrections.jsonl"


def load(path: Path) -> Corrections:
    return Corrections(path, ORIGINAL, 10.0)


def apply(path: Path, *changes: dict[str, Any]) -> Corrections:
    corrections = load(path)
    for change in changes:
        corrections.append({"who": "ab", **change})
    again = load(path)
    assert again.cycles() == corrections.cycles()  # what is read back is what was shown
    return again


def test_bounds_label_add_and_delete_change_the_cycles_and_not_the_original(path: Path) -> None:
    found = apply(
        path,
        {"action": "bounds", "cycle": "c0", "start_s": 0.5, "end_s": 1.9},
        {"action": "label", "cycle": "c1", "label": "wheeze"},
        {"action": "add", "start_s": 5, "end_s": 7, "label": "both"},
        {"action": "delete", "cycle": "c0"},
    ).cycles()
    assert [(c["id"], c["start_s"], c["end_s"], c["label"]) for c in found] == [
        ("c1", 2.0, 4.0, "wheeze"),
        ("a3", 5.0, 7.0, "both"),
    ]
    assert ORIGINAL[0]["start_s"] == 0.0 and ORIGINAL[1]["label"] is None
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4]
    assert all(line["who"] == "ab" and line["at"] for line in lines)


def test_undo_takes_back_the_newest_and_is_itself_undoable(path: Path) -> None:
    first = {"action": "label", "cycle": "c0", "label": "crackle"}
    second = {"action": "delete", "cycle": "c1"}
    found = apply(path, first, second, {"action": "undo"})
    assert [c["label"] for c in found.cycles()] == ["crackle", None]
    found = apply(path, {"action": "undo"})
    assert found.cycles()[0]["label"] == "normal" and found.undoable is None and found.active == 0
    with pytest.raises(RequestError, match="nothing to undo"):
        found.append({"action": "undo", "who": "ab"})
    found = apply(path, {"action": "undo", "of": 4})  # the second undo
    assert found.cycles()[0]["label"] == "crackle"
    assert len(path.read_text("utf-8").splitlines()) == 5  # nothing was ever removed


def test_a_locked_cycle_and_a_locked_recording_stay_as_they_are(path: Path) -> None:
    found = apply(path, {"action": "lock", "cycle": "c0"})
    with pytest.raises(RequestError, match="locked") as error:
        found.append({"action": "delete", "cycle": "c0", "who": "cd"})
    assert error.value.status == 423
    found = apply(path, {"action": "label", "cycle": "c1", "label": "normal"}, {"action": "lock"})
    assert found.locked
    for change in ({"action": "add", "start_s": 5, "end_s": 6, "label": "both"}, {"action": "undo", "of": 2}):
        with pytest.raises(RequestError) as error:
            found.append({"who": "cd", **change})
        assert error.value.status == 423
    assert not apply(path, {"action": "unlock"}).locked


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"action": "rename", "cycle": "c0"}, 422),
        ({"action": "delete", "cycle": "c9"}, 404),
        ({"action": "label", "cycle": "c0", "label": "cough"}, 422),
        ({"action": "bounds", "cycle": "c0", "start_s": 3, "end_s": 2}, 422),
        ({"action": "bounds", "cycle": "c0", "start_s": -1, "end_s": 2}, 422),
        ({"action": "bounds", "cycle": "c0", "start_s": 1, "end_s": 11}, 422),
        ({"action": "bounds", "cycle": "c0", "start_s": float("nan"), "end_s": 2}, 422),
        ({"action": "bounds", "cycle": "c0", "start_s": True, "end_s": 2}, 422),
        ({"action": "bounds", "cycle": "c0", "start_s": "1", "end_s": 2}, 422),
        ({"action": "add", "start_s": 1, "end_s": 2}, 422),
        ({"action": "delete", "cycle": "c0", "who": ""}, 422),
        ({"action": "delete", "cycle": "c0", "who": "Dr Jane Doe"}, 422),
        ({"action": "delete", "cycle": "c0", "expected": 5}, 409),
        ({"action": "undo", "of": "x"}, 422),
        ({}, 422),
    ],
)
def test_what_is_no_valid_correction_is_refused_and_leaves_no_line(
    path: Path, change: dict[str, Any], status: int
) -> None:
    with pytest.raises(RequestError) as error:
        load(path).append({"who": "ab", **change})
    assert error.value.status == status
    assert not path.exists()


def test_half_a_line_of_a_power_cut_spoils_neither_the_lines_before_nor_those_after(path: Path) -> None:
    apply(path, {"action": "label", "cycle": "c0", "label": "crackle"})
    with path.open("ab") as file:
        file.write(b'{"type":"correction","seq":2,"at":"20')
    found = apply(path, {"action": "label", "cycle": "c1", "label": "both"})
    assert [c["label"] for c in found.cycles()] == ["crackle", "both"]


def test_two_reviewers_at_once_the_slower_one_is_refused(path: Path) -> None:
    seen = load(path)
    apply(path, {"action": "delete", "cycle": "c0"})
    with pytest.raises(RequestError, match="meanwhile"):
        load(path).append({"action": "delete", "cycle": "c1", "who": "cd", "expected": len(seen.history)})
