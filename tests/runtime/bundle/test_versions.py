"""Rollback protection: versions are ordered by PEP 440, an upgrade is accepted and a rollback is refused."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from edge_sdk.errors import BundleError
from edge_sdk.runtime.bundle.signature import check_version, record_version, versions_file

ORDERED = [
    "0.9",
    "1.0.dev1",
    "1.0a1",
    "1.0rc1",
    "1.0rc2",
    "1.0rc10",
    "1.0",
    "1.0.post2",
    "1.0.post10",
    "1.2",
    "1.10",
    "2",
]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHO_STATE", str(tmp_path / "state"))


def recorded() -> dict[str, str]:
    found: dict[str, str] = json.loads(versions_file().read_text())
    return found


@pytest.mark.parametrize(("old", "new"), list(combinations(ORDERED, 2)))
@pytest.mark.requirement("BUN-2")
def test_an_upgrade_is_accepted_and_a_rollback_is_refused(old: str, new: str) -> None:
    record_version("tiny", old)
    check_version("tiny", new)
    record_version("tiny", new)
    assert recorded() == {"tiny": new}
    with pytest.raises(BundleError, match=f"tiny {old} is older than {new}"):
        check_version("tiny", old)
    record_version("tiny", old)  # the record never goes back
    assert recorded() == {"tiny": new}


def test_spellings_of_one_version_are_equal() -> None:
    record_version("tiny", "1.0")
    for same in ("1.0.0", "v1.0", "1"):
        check_version("tiny", same)


def test_bundles_of_other_names_do_not_matter() -> None:
    record_version("tiny", "2.0")
    check_version("other", "1.0")


@pytest.mark.parametrize("version", ["latest", "", "1.0-clinic-b", "2026-05-01b"])
def test_a_version_without_an_order_is_refused_and_never_recorded(version: str) -> None:
    for use in (check_version, record_version):
        with pytest.raises(
            BundleError, match=f"version '{version}' is not a PEP 440 version .*; export the bundle again"
        ):
            use("tiny", version)
    assert not versions_file().exists()


def test_a_record_without_an_order_names_the_file_to_correct() -> None:
    versions_file().parent.mkdir()
    versions_file().write_text('{"tiny": "latest", "other": "1.0"}')
    for use in (check_version, record_version):
        with pytest.raises(BundleError, match=r"versions\.json records 'latest' for bundle tiny.*delete 'tiny'"):
            use("tiny", "1.0")
    check_version("other", "1.1")
