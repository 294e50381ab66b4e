"""Examinations as ``report`` and ``convert`` take them: sessions, JSON lines, and audio that is screened first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
