"""Values of metadata that are a closed list; loads nothing else, as the command line names them."""

from __future__ import annotations

SITES: tuple[str, ...] = (
    "trachea",
    "left anterior",
    "right anterior",
    "left posterior",
    "right posterior",
    "left lateral",
    "right lateral",
)
"""Chest regions; without upper, middle and lower, which half of the corpora do not give."""

SEXES: tuple[str, ...] = ("female", "male")
