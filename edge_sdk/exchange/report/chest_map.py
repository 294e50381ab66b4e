"""Sites of an examination on a map of the chest, front and back; our own drawing, no anatomy book."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_sdk.exchange.report.drawing import Dot, Drawing, Line, Point, Polygon, Shape, Words

_WIDTH, _HEIGHT, _BETWEEN = 200.0, 236.0, 24.0
_RADIUS = 9.0

# The patient's right half, seen from the front; the left one is its mirror image.
_OUTLINE: tuple[Point, ...] = (
    (86, 6), (86, 26), (82, 36), (66, 42), (44, 48), (28, 60), (20, 78), (14, 104), (8, 140), (4, 176), (22, 180),
    (30, 148), (38, 116), (42, 132), (46, 168), (50, 200), (50, 228),
)  # fmt: skip
_LUNG: tuple[Point, ...] = (
    (90, 58), (82, 54), (72, 62), (62, 80), (55, 104), (52, 130), (54, 152), (64, 156), (78, 152), (90, 148), (93, 120),
    (93, 84),
)  # fmt: skip
_HEIGHTS = {"upper": 84.0, "middle": 112.0, "lower": 140.0}

_WORDS = {
    "aspect": {"anterior": "front", "front": "front", "chest": "front", "posterior": "back", "back": "back",
               "lateral": "side", "axillary": "side", "axilla": "side", "side": "side"},
    "side": {"left": "left", "right": "right"},
    "level": {"upper": "upper", "apex": "upper", "apical": "upper", "middle": "middle", "mid": "middle",
              "lower": "lower", "base": "lower", "basal": "lower"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A site on the map."""

    view: str  # front or back
    x: float  # of a map of 200 by 236 pixels
    y: float


@dataclass(frozen=True, slots=True)
class MappedSite:
    """A recording on the map."""

    number: int  # written into its dot
    site: str
    fill: str  # role, by the verdict
    title: str


def place_of(site: str) -> Place | None:
    """Find a site by its words: ``left posterior``, ``Upper right back``, ``trachea``; None: not on the map."""
    words = re.findall(r"[a-z]+", site.lower())
    if "trachea" in words or "tracheal" in words:
        return Place("front", 100.0, 44.0)
    found = {kind: next((names[word] for word in words if word in names), "") for kind, names in _WORDS.items()}
    if not found["side"] or not found["aspect"]:
        return None
    y = _HEIGHTS[found["level"] or "middle"]
    back = found["aspect"] == "back"
    outwards = 47.0 if found["aspect"] == "side" else 26.0
    at_right = (found["side"] == "left") != back  # the patient's left is at the right of the front view
    x = 100.0 + (outwards if at_right else -outwards)
    return Place("back" if back else "front", x, y + (8.0 if found["aspect"] == "side" else 0.0))


def chest_map(sites: Sequence[MappedSite]) -> Drawing | None:
    """Draw front and back with a numbered dot a recording; None where no site is on the map."""
    placed = [(site, place) for site in sites if (place := place_of(site.site)) is not None]
    if not placed:
        return None
    shapes: list[Shape] = []
    shifts = {"front": 0.0, "back": _WIDTH + _BETWEEN}
    for view, shift in shifts.items():
        shapes += _torso(view, shift)
    taken: dict[tuple[str, float, float], int] = {}
    for site, place in placed:
        key = (place.view, place.x, place.y)
        number = taken[key] = taken.get(key, -1) + 1
        # Several recordings of one site: beside each other, then in another row.
        x = place.x + shifts[place.view] + (number % 3) * (_RADIUS * 2 + 1) * (1 if place.x >= 100 else -1)
        y = place.y + (number // 3) * (_RADIUS * 2 + 1)
        shapes.append(Dot(x, y, _RADIUS + 1.5, "page"))
        shapes.append(Dot(x, y, _RADIUS, site.fill, site.title))
        shapes.append(Words(x, y + 4, str(site.number), "page", "middle", 11.0, bold=True))
    names = ", ".join(f"{site.number} {site.site}" for site, _ in placed)
    return Drawing(2 * _WIDTH + _BETWEEN, _HEIGHT + 20, shapes, f"Sites: {names}")


def _torso(view: str, shift: float) -> Iterator[Shape]:
    outline = [*_OUTLINE, *((_WIDTH - x, y) for x, y in reversed(_OUTLINE))]
    yield Polygon([(x + shift, y) for x, y in _smooth(outline)], "skin", "rule")
    for mirrored in (False, True):
        lung = [((_WIDTH - x if mirrored else x) + shift, y) for x, y in _LUNG]
        yield Polygon(_smooth(lung, closed=True), "band", "rule")
    if view == "front":
        yield Line([(100 + shift, 28), (100 + shift, 62)], "rule", 5.0)
    right, left = ("R", "L") if view == "front" else ("L", "R")
    yield Words(18 + shift, 200, right, "soft", "middle", 12.0, bold=True)
    yield Words(_WIDTH - 18 + shift, 200, left, "soft", "middle", 12.0, bold=True)
    yield Words(_WIDTH / 2 + shift, _HEIGHT + 14, view, "soft", "middle", 12.0)


def _smooth(points: Sequence[Point], *, closed: bool = False, steps: int = 6) -> list[Point]:
    """A Catmull-Rom curve through the points."""
    ring = [points[-1], *points, points[0], points[1]] if closed else [points[0], *points, points[-1]]
    curve: list[Point] = []
    for a, b, c, d in zip(ring, ring[1:], ring[2:], ring[3:], strict=False):
        for k in range(steps):
            t = k / steps
            curve.append(
                tuple(
                    0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t**2 + (3 * q - p - 3 * r + s) * t**3)
                    for p, q, r, s in zip(a, b, c, d, strict=True)
                )  # type: ignore[arg-type]
            )
    return curve if closed else [*curve, points[-1]]
