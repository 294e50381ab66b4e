"""The recordings that paths name: folders are searched; what was passed over, and what could not be read, is kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import AudioError

SUFFIXES = frozenset(
    {
        ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc",
        ".au", ".snd", ".caf",
    }
)  # fmt: skip
"""Files of a folder that are screened; a file that is named itself may have any suffix."""

_OTHER_AUDIO = frozenset(
    {
        ".3gp", ".aac", ".ac3", ".amr", ".ape", ".avi", ".dsf", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp2", ".mp4",
        ".ra", ".raw", ".sln", ".sph", ".spx", ".vox", ".wax", ".webm", ".wma", ".wv",
    }
)  # fmt: skip
"""Files that hold audio to their owner; in a folder they are counted, not opened."""

_TRASH = frozenset(
    {
        "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found", "__macosx",
        "found.000", "system volume information",
    }
)  # fmt: skip
"""Folders of file servers, archives and trash cans, in lower case; the dot of hidden ones (.Trash-1000) is enough."""


@dataclass(frozen=True)
class FoundRecordings:
    """The recordings that some paths name, and what a person should know about the search."""

    recordings: tuple[Path, ...]  # in the order of the paths, of a folder in the order of the names
    unreadable: tuple[tuple[Path, str], ...] = ()  # folder, and one line about it
    notes: tuple[str, ...] = ()  # one line each


def find_recordings(paths: Sequence[Path]) -> FoundRecordings:
    """Files as given; folders searched for recordings, in order of their names.

    Hidden files and folders, trash cans and the service folders of file servers are skipped. A link to a file or a
    folder that is found anyway counts once; links in a circle end. No file is opened.

    Raises
    ------
    AudioError
        Folders alone were given, all could be read, and none holds a recording.
    """
    found: dict[Path, None] = {}
    seen: set[str] = set()
    unreadable: list[tuple[Path, str]] = []
    notes: list[str] = []
    empty: list[Path] = []
    for path in paths:
        if not _is_folder(path):
            found.setdefault(path)
            seen.add(os.path.realpath(path))
            continue
        search = _Search(path)
        inside = [item for item in search.recordings() if item[1] not in seen]
        found |= dict.fromkeys(item for item, _ in inside)
        seen |= {real for _, real in inside}
        unreadable += search.unreadable
        if search.passed_over:
            notes.append(_passed_over(path, search.passed_over))
        if not search.files and not search.unreadable:
            empty.append(path)
    if empty and not found and not unreadable:
        other = f" ({notes[0]})" if notes else ""
        raise AudioError(f"no recording in {empty[0]}{other}; name another folder or a file")
    notes += [f"{path}: no recording in this folder" for path in empty]
    return FoundRecordings(tuple(found), tuple(unreadable), tuple(notes))


def _is_folder(path: Path) -> bool:
    """False too where a folder above may not be entered: the reader names the reason."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _passed_over(folder: Path, suffixes: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
    files = "file that is" if suffixes.total() == 1 else "files that are"
    return f"{folder}: passed over {suffixes.total()} {files} not read here ({kinds}); convert to wav"


class _Search:
    """One walk through a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._visited: set[str] = set()
        self._links: list[tuple[Path, str]] = []  # to folders, searched after the folders themselves
        self.files: list[tuple[Path, str]] = []
        self.linked: list[tuple[Path, str]] = []
        self.unreadable: list[tuple[Path, str]] = []
        self.passed_over: Counter[str] = Counter()

    def recordings(self) -> list[tuple[Path, str]]:
        """Each recording once, with its real path, in the order of the names."""
        self._walk(self._root, os.path.realpath(self._root))
        while self._links:
            path, real = self._links.pop(0)
            self._walk(path, real)
        once = {real: path for path, real in reversed(self.linked)} | {real: path for path, real in self.files}
        self.files = [(path, real) for real, path in once.items()]
        return sorted(self.files)

    def _walk(self, top: Path, real_top: str) -> None:
        waiting = [(top, real_top)]
        while waiting:
            folder, real = waiting.pop()
            if real in self._visited:
                continue
            self._visited.add(real)
            try:
                waiting += self._inside(folder, real)
            except OSError as error:
                reason = (
                    f"{folder} cannot be searched ({error.strerror}); its recordings are missing: check permissions"
                )
                self.unreadable.append((folder, reason))

    def _inside(self, folder: Path, real: str) -> Iterator[tuple[Path, str]]:
        """Sub-folders; files are kept on the way."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in _TRASH:
                    continue
                linked = entry.is_symlink()
                own = os.path.realpath(entry.path) if linked else f"{real.rstrip(os.sep)}{os.sep}{entry.name}"
                if not (_is_folder(Path(entry.path)) if linked else entry.is_dir()):
                    self._keep(entry, own, linked=linked)
                elif linked:
                    self._links.append((Path(entry.path), own))
                else:
                    yield Path(entry.path), own

    def _keep(self, entry: os.DirEntry[str], real: str, *, linked: bool) -> None:
        path = Path(entry.path)
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            if linked or entry.is_file():  # a broken link is kept: the reader names it
                (self.linked if linked else self.files).append((path, real))
            else:
                self.passed_over["pipe, socket or device"] += 1
        elif suffix in _OTHER_AUDIO:
            self.passed_over[suffix[1:]] += 1
