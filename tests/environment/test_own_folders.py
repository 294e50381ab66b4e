"""The folders of the SDK: where they are, and what is said where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.errors import StorageError
from edge_sdk.files import own_folder, storing_in
from edge_sdk.runtime.bundle.signature import record_version
from edge_sdk.runtime.engines.cache import engines_of
from tests.cli.conftest import Stetho
from tests.environment.conftest import Place


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder, as in a container with a foreign user id."""
    for name in ("STETHO_CACHE", "STETHO_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)


def test_variables_come_before_the_desktop_before_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("STETHO_CACHE", "STETHO_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, "")  # an empty variable is none
    assert own_folder("cache") == tmp_path / ".cache" / "stetho"
    assert own_folder("state") == tmp_path / ".local" / "state" / "stetho"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert own_folder("cache") == Path("/xdg/stetho")
    monkeypatch.setenv("STETHO_CACHE", "/own")
    assert own_folder("cache") == Path("/own")


def test_without_a_home_the_line_names_the_variable(nowhere: None) -> None:
    with pytest.raises(StorageError, match="set STETHO_CACHE"):
        own_folder("cache")
    with pytest.raises(StorageError, match="set STETHO_STATE"):
        record_version("lung", "1.0.0")
    assert engines_of("0" * 64) == []


def test_without_a_home_recordings_are_screened(nowhere: None, stetho: Stetho, recording: Path) -> None:
    outcome = stetho("screen", recording, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    checks = {record.get("name"): record for record in stetho("doctor", "--json").records}
    assert checks["cache"]["status"] == checks["state"]["status"] == "absent"
    assert "STETHO_CACHE" in checks["cache"]["fix"] and "STETHO_STATE" in checks["state"]["fix"]


def test_doctor_names_what_the_state_folder_holds(
    stetho: Stetho, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STETHO_STATE", str(tmp_path))
    (state,) = [record for record in stetho("doctor", "--json").records if record.get("name") == "state"]
    assert state["status"] == "ok" and state["detail"].startswith(f"{tmp_path}: versions of signed bundles, ")
    assert "seals engines" in state["detail"] and "recordings" in state["detail"]


@pytest.mark.parametrize("home", ["/proc/none", "file"])
def test_a_folder_that_cannot_be_made_is_one_line_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / home))
    for name in ("STETHO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    expected = pytest.raises(StorageError, match=r"cannot be written .*set STETHO_CACHE to a folder")
    with expected as found, storing_in("cache", own_folder("cache")):
        pytest.fail("the folder is there")
    assert str(own_folder("cache")) in str(found.value)


def test_a_disk_that_fills_up_under_a_cache_names_the_variable(tmp_path: Path) -> None:
    expected = pytest.raises(StorageError, match=r"No space left on device.*STETHO_CACHE")
    with expected, storing_in("cache", tmp_path / "cache"):
        raise OSError(28, "No space left on device")


@pytest.mark.long
@pytest.mark.parametrize("home", ["/proc/none", "/dev/null/none"])
def test_training_without_a_home_is_one_line(place: Place, home: str, recording: Path) -> None:
    table = "file,start_s,end_s,label,patient\n" + "".join(
        f"{recording.name},{start},{start + 1.5},{label},p0\n" for start, label in enumerate(("normal", "wheeze"))
    )
    (recording.parent / "cycles.csv").write_text(table, encoding="utf-8")
    done = place.run(
        "train", "compact", "--size", "tiny", "--corpus", "csv", "--root", recording.parent, "--split", "all",
        "--val-split", "all", "--set", "heart_corpus=null", "--out", "run", HOME=home,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"stetho: error: ") and b"STETHO_CACHE" in line
