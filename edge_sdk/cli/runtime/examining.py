"""Examinations as ``report`` and ``convert`` take them: sessions, JSON lines, and audio that is screened first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli.messages import note_line
from edge_sdk.cli.options import channel_of

if TYPE_CHECKING:
    from edge_sdk.exchange.examination import Lines, Screener


def screener_of(bundle: str, artefact: str | None = None, channel: str = "0") -> Callable[[], Screener]:
    """Make what :func:`~edge_sdk.exchange.examination.load_examination` calls where audio is not screened yet."""
    which = channel_of(channel)

    def make() -> Screener:
        from edge_sdk._version import __version__
        from edge_sdk.exchange.examination import BundleIdentity, Screener
        from edge_sdk.runtime.bundle.load import load_bundle
        from edge_sdk.screening.recordings import ScreenOptions, screen_recording

        loaded = load_bundle(bundle, artefact=artefact)

        def records(path: Path, metadata: Mapping[str, Any]) -> Lines:
            return screen_recording(loaded, path, ScreenOptions(channel=which, metadata=metadata)).records

        return Screener(records, BundleIdentity.of(loaded.identity), __version__, which)

    return make


def recordings_in(inputs: Sequence[Path], suffix: str | None = None) -> list[Path]:
    """Files as given; a folder with sessions as it is; of any other the recordings, or the files with ``suffix``.

    Raises
    ------
    AudioError
        A folder holds no recording.
    ExchangeError
        It holds no file with ``suffix``.
    """
    from edge_sdk.errors import AudioError, ExchangeError
    from edge_sdk.exchange.examination import SESSION_ENDING
    from edge_sdk.screening.folders import find_recordings

    found: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            found.append(path)
        elif suffix is not None:
            files = sorted(file for file in path.rglob(f"*{suffix}") if not file.name.startswith("."))
            if not files:
                raise ExchangeError(f"no {suffix} file in {path}; name another folder or a file")
            found += files
        elif any(path.rglob(f"*{SESSION_ENDING}")):
            found.append(path)
        else:
            inside = find_recordings([path])
            if inside.unreadable:
                raise AudioError(inside.unreadable[0][1])
            for note in inside.notes:
                note_line(note)
            found += inside.recordings
    return found
