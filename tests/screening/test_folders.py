"""Folders: what is found, what is passed over, and what cannot be read; each is counted or named."""

from __future__ import annotations

import builtins
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from edge_sdk.errors import AudioError
from edge_sdk.screening.folders import find_recordings
from tests.cli.conftest import Stetho, stetho  # noqa: F401


@pytest.fixture
def ward(tmp_path: Path, data_root: Path) -> Path:
    """A folder with two beds."""
    for bed in ("bed1", "bed2"):
        (tmp_path / "ward" / bed).mkdir(parents=True)
        shutil.copy(data_root / "cases" / "reference_10s.wav", tmp_path / "ward" / bed / "a.wav")
    return tmp_path / "ward"


def names(ward: Path, *paths: Path) -> list[str]:
    return [str(path.relative_to(ward)) for path in find_recordings(paths or [ward]).recordings]


@pytest.mark.parametrize(
    "place",
    [".Trash-1000/files/a.wav", "@eaDir/a.wav", "$RECYCLE.BIN/a.wav", "lost+found/a.wav", "__MACOSX/a.wav", "._a.wav",
     "bed1/.hidden.flac", "bed1/#recycle/a.wav", "System Volume Information/a.wav", ".git/x/a.wav"],
)  # fmt: skip
def test_hidden_and_trash_folders_are_skipped(ward: Path, place: str) -> None:
    path = ward / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert names(ward) == ["bed1/a.wav", "bed2/a.wav"]


def test_a_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.wav").touch()
    assert names(tmp_path, tmp_path / ".cache") == [".cache/a.wav"]


def test_links_count_once_and_circles_end(ward: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.wav").touch()
    (ward / "0.wav").symlink_to(ward / "bed1" / "a.wav")
    (ward / "bed0").symlink_to(ward / "bed1", target_is_directory=True)
    (ward / "circle").symlink_to(ward, target_is_directory=True)
    (ward / "self.wav").symlink_to(ward / "self.wav")
    (ward / "shared").symlink_to(outside, target_is_directory=True)
    (ward / "shared2").symlink_to(outside, target_is_directory=True)
    assert names(ward) == ["bed1/a.wav", "bed2/a.wav", "self.wav", "shared/b.wav"]
    assert names(ward, ward, ward / "bed1", ward / "bed0") == names(ward)


def test_a_link_that_leads_nowhere_is_an_error_of_its_own(stetho: Stetho, ward: Path) -> None:  # noqa: F811
    (ward / "gone.wav").symlink_to(ward / "nothing.wav")
    outcome = stetho("screen", ward, "--json")
    assert outcome.status == 1
    assert [r["source"] for r in outcome.records if r["type"] == "error"] == [str(ward / "gone.wav")]


def test_a_folder_called_like_a_recording_is_a_folder(stetho: Stetho, ward: Path) -> None:  # noqa: F811
    (ward / "x.wav").mkdir()
    assert names(ward) == ["bed1/a.wav", "bed2/a.wav"]
    shutil.move(ward / "bed2" / "a.wav", ward / "x.wav" / "b.flac")
    assert names(ward) == ["bed1/a.wav", "x.wav/b.flac"]
    (ward / "x.wav" / "b.flac").rename(ward / "bed2" / "a.wav")
    outcome = stetho("screen", ward)
    assert (outcome.status, outcome.err) == (0, "")


def test_other_formats_are_counted_in_one_line(stetho: Stetho, ward: Path) -> None:  # noqa: F811
    for name in ("a.m4a", "b.M4A", "bed1/c.aac", "d.wma", "notes.txt", "labels.json", ".e.m4a"):
        (ward / name).touch()
    (note,) = find_recordings([ward]).notes
    assert "passed over 4 files" in note and "2 m4a" in note and "1 aac" in note and "1 wma" in note
    outcome = stetho("screen", ward, "--json")
    assert outcome.status == 0
    (line,) = outcome.err.splitlines()
    assert note in line
    assert [r["type"] for r in outcome.records].count("summary") == 2


def test_an_empty_folder_beside_good_files_is_a_note(stetho: Stetho, ward: Path, tmp_path: Path) -> None:  # noqa: F811
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = stetho("screen", empty, ward / "bed1" / "a.wav", "--json")
    assert outcome.status == 0
    assert "no recording in" in outcome.err and str(empty) in outcome.err
    with pytest.raises(AudioError, match="no recording in"):
        find_recordings([empty])
    (empty / "a.m4a").touch()
    with pytest.raises(AudioError, match="1 m4a"):
        find_recordings([empty, empty])


def unreadable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Permissions as another user meets them: tests may run as root, whom no mode keeps out."""
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("name", ["bed2", "bed2/inner", "."])
def test_an_unreadable_folder_is_named_and_the_status_is_1(
    stetho: Stetho, ward: Path, monkeypatch: pytest.MonkeyPatch, name: str  # noqa: F811
) -> None:  # fmt: skip
    (ward / "bed2" / "inner").mkdir()
    folder = (ward / name).resolve()
    unreadable(monkeypatch, folder)
    outcome = stetho("screen", ward, "--json")
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert str(folder) in line and "Permission denied" in line
    (error,) = [r for r in outcome.records if r["type"] == "error"]
    assert error["source"] == str(folder)
    good = [r["source"] for r in outcome.records if r["type"] == "summary"]
    assert good == [] if name == "." else str(ward / "bed1" / "a.wav") in good


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, to become nobody in a child")
def test_a_folder_without_permission_as_another_user() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are private to the user
        ward = Path(name)
        ward.chmod(0o755)
        for bed in ("bed1", "bed2"):
            (ward / bed).mkdir()
            (ward / bed / "a.wav").touch()
        (ward / "bed2").chmod(0)
        child = os.fork()
        if child == 0:  # only the search: nothing may be imported as nobody
            os.setuid(65534)
            try:
                found = find_recordings([ward])
                right = [path for path, _ in found.unreadable] == [ward / "bed2"] and len(found.recordings) == 1
                os._exit(0 if right else 3)
            except BaseException:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_python_gives_an_unreadable_folder_as_a_failed_screening(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edge_sdk

    unreadable(monkeypatch, ward / "bed2")
    found = list(edge_sdk.screen([ward]))
    assert [item.error is None for item in found] == [True, False]


def test_names_are_listed_without_opening_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        os.close(os.open(tmp_path / f"{number:04}.wav", os.O_CREAT))
    calls: list[object] = []

    def counted(module: object, name: str) -> None:
        whole = getattr(module, name)

        def wrapper(*arguments: object, **options: object) -> object:
            calls.append(arguments)
            return whole(*arguments, **options)

        monkeypatch.setattr(module, name, wrapper)

    for module, name in ((builtins, "open"), (os, "stat"), (os.path, "realpath")):
        counted(module, name)
    assert len(find_recordings([tmp_path]).recordings) == 1000
    assert len(calls) < 50  # not one for each file
