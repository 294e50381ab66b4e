"""What every session of the server states about itself, and chest points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_sdk._version import __version__
from edge_sdk.notices import RESEARCH_USE

if TYPE_CHECKING:
    from edge_sdk.runtime.bundle.load import Bundle

POINTS: dict[str, str] = {
    "right upper front": "right anterior",
    "left upper front": "left anterior",
    "right middle front": "right anterior",
    "left middle front": "left anterior",
    "right lower front": "right lateral",
    "left lower front": "left lateral",
    "left upper back": "left posterior",
    "right upper back": "right posterior",
    "left middle back": "left posterior",
    "right middle back": "right posterior",
    "left lower back": "left posterior",
    "right lower back": "right posterior",
}
"""Points of the guided examination, in its order → the body site that corpora and models know."""


def about_session(bundle: Bundle) -> dict[str, Any]:
    """Fields of ``session.json`` that are the same for every recording of this server."""
    manifest = bundle.manifest
    return {
        "sdk_version": __version__,
        "bundle": {"name": manifest.name, "version": manifest.version, "artefact": bundle.artefact.format},
        "notice": RESEARCH_USE,
    }
