"""Chest points of the guided examination."""

from __future__ import annotations

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
