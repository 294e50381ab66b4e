"""Places for the names of points, where they lie on no other name, point, line or error bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

_NEAREST = 7.0  # pixels from a point to its name
_DISTANCES = (_NEAREST, 13.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0, 124.0, 152.0, 184.0, 220.0, 260.0)
_ANGLES = tuple(math.radians(a) for a in (0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338, 68, 112, 248, 292))
_LEADER_FROM = 11.0  # pixels; nearer names need no line to their point
_DOT = 5.5  # pixels around a point that stay free
_PADDING = 2.5  # pixels around a name that stay free
_SIDE = 0.38  # cosine from which on a name stands beside its point
_CROSSED_LINE, _CROSSED_DOT = 4.0, 60.0  # what a leader costs, in pixels of distance
_ON_GRID = 8.0  # what a name on a grid line costs


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What names keep clear of, in pixels with y upwards."""

    dots: Array  # [D, 2]
    segments: Array  # [S, 4]: x0, y0, x1, y1
    grid: Array  # [G, 4]; names avoid it where they can, and hide it where they cannot
    frame: tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a point and the size of its text."""

    text: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name stands."""

    name: Name
    box: tuple[float, float, float, float]  # left, bottom, right, top
    side: str  # the edge of the text that stays where it is in another font: left, center or right
    leader: tuple[float, float, float, float] | None  # line from the point to the name


@dataclass(slots=True)
class _Candidates:
    """Places of one name that the plot itself leaves free, the cheapest first."""

    name: Name
    boxes: Array  # [K, 4]
    leaders: Array  # [K, 4]; of length 0 where none is drawn
    sides: list[str]
    costs: Array  # [K]


@dataclass(slots=True)
class _Layout:
    """Names placed so far."""

    boxes: list[Array] = field(default_factory=list)
    leaders: list[Array] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    cost: float = 0.0


def place_names(names: Sequence[Name], obstacles: Obstacles, *, reach: float) -> tuple[list[Place], list[str]]:
    """Find a free place for every name; the best of several orders.

    Parameters
    ----------
    names
        Of points, in pixels.
    obstacles
        Of the plot.
    reach
        Pixels between a point and its name, at most.

    Returns
    -------
    places
        One a name that has room.
    left_out
        Texts of names without room; the caller lists them below the plot.
    """
    candidates = [_candidates(name, obstacles, reach) for name in names]
    orders = (
        sorted(candidates, key=lambda c: len(c.costs)),
        sorted(candidates, key=lambda c: -c.name.y),
        sorted(candidates, key=lambda c: c.name.y),
        sorted(candidates, key=lambda c: c.name.x),
        sorted(candidates, key=lambda c: -c.name.x),
    )
    best = min((_greedy(order) for order in orders), key=lambda one: (len(one.left_out), one.cost))
    return best.places, best.left_out


def _candidates(name: Name, obstacles: Obstacles, reach: float) -> _Candidates:
    boxes, leaders, sides, costs = [], [], [], []
    for distance in (d for d in _DISTANCES if d <= reach):
        for angle in _ANGLES:
            side, box, leader = _around(name, distance, angle)
            boxes.append(box)
            leaders.append(leader)
            sides.append(side)
            costs.append(distance)
    box_array, leader_array = np.array(boxes), np.array(leaders)
    free = _inside(box_array, obstacles.frame)
    padded = _grown(box_array, _PADDING)
    free &= ~_crossings(padded, obstacles.segments).any(axis=1)
    free &= ~_points_in(_grown(box_array, _DOT), obstacles.dots).any(axis=1)
    others = obstacles.dots[np.hypot(*(obstacles.dots - (name.x, name.y)).T) > 1e-6]
    cost = np.array(costs)
    cost += _CROSSED_DOT * (_distances(leader_array, others) < _DOT).sum(axis=1)
    cost += _CROSSED_LINE * _intersections(leader_array, obstacles.segments).sum(axis=1)
    cost += _ON_GRID * _crossings(box_array, obstacles.grid).any(axis=1)
    kept = [int(k) for k in np.argsort(cost, kind="stable") if free[k]]
    return _Candidates(name, box_array[kept], leader_array[kept], [sides[k] for k in kept], cost[kept])


def _around(
    name: Name, distance: float, angle: float
) -> tuple[str, tuple[float, float, float, float], tuple[float, float, float, float]]:
    dx, dy = math.cos(angle), math.sin(angle)
    at_x, at_y = name.x + distance * dx, name.y + distance * dy
    side = "left" if dx > _SIDE else "right" if dx < -_SIDE else "center"
    left = at_x - {"left": 0.0, "center": name.width / 2, "right": name.width}[side]
    bottom = at_y - (0.0 if dy > _SIDE else name.height if dy < -_SIDE else name.height / 2)
    leader = (name.x, name.y, name.x, name.y)
    if distance >= _LEADER_FROM:
        leader = (name.x + 4 * dx, name.y + 4 * dy, at_x - 2 * dx, at_y - 2 * dy)
    return side, (left, bottom, left + name.width, bottom + name.height), leader


def _greedy(order: Iterable[_Candidates]) -> _Layout:
    layout = _Layout()
    for one in order:
        best = _cheapest(one, layout)
        if best is None:
            layout.left_out.append(one.name.text)
            continue
        number, cost = best
        layout.cost += cost
        box, leader = one.boxes[number], one.leaders[number]
        drawn = bool((leader[:2] != leader[2:]).any())
        layout.boxes.append(box)
        if drawn:
            layout.leaders.append(leader)
        layout.places.append(_place(one.name, box, one.sides[number], leader if drawn else None))
    return layout


def _place(name: Name, box: Array, side: str, leader: Array | None) -> Place:
    left, bottom, right, top = (float(v) for v in box)
    line = None if leader is None else (float(leader[0]), float(leader[1]), float(leader[2]), float(leader[3]))
    return Place(name, (left, bottom, right, top), side, line)


def _cheapest(one: _Candidates, layout: _Layout) -> tuple[int, float] | None:
    if not len(one.costs):
        return None
    free, cost = np.ones(len(one.costs), bool), one.costs.copy()
    if layout.boxes:
        boxes = np.array(layout.boxes)
        free &= ~_overlaps(_grown(one.boxes, _PADDING), boxes).any(axis=1)
        free &= ~_crossings(_grown(boxes, 1.0), one.leaders).any(axis=0)
    if layout.leaders:
        leaders = np.array(layout.leaders)
        free &= ~_crossings(_grown(one.boxes, 1.0), leaders).any(axis=1)
        free &= ~_intersections(one.leaders, leaders).any(axis=1)
    if not free.any():
        return None
    number = int(np.argmin(np.where(free, cost, np.inf)))
    return number, float(cost[number])


def _grown(boxes: Array, by: float) -> Array:
    return boxes + np.array([-by, -by, by, by])


def _inside(boxes: Array, frame: tuple[float, float, float, float]) -> Flags:
    left, bottom, right, top = frame
    inside: Flags = (boxes[:, 0] >= left) & (boxes[:, 1] >= bottom) & (boxes[:, 2] <= right) & (boxes[:, 3] <= top)
    return inside


def _overlaps(a: Array, b: Array) -> Flags:
    """[A, B]: boxes that overlap."""
    x: Flags = (a[:, None, 0] < b[None, :, 2]) & (b[None, :, 0] < a[:, None, 2])
    y: Flags = (a[:, None, 1] < b[None, :, 3]) & (b[None, :, 1] < a[:, None, 3])
    return x & y


def _points_in(boxes: Array, points: Array) -> Flags:
    """[B, P]: points in boxes."""
    return _overlaps(boxes, np.hstack([points, points]))


def _crossings(boxes: Array, segments: Array) -> Flags:
    """[B, S]: segments that touch boxes (Liang and Barsky's clipping)."""
    begin, enter, leave = segments[:, :2], np.zeros((len(boxes), len(segments))), np.ones((len(boxes), len(segments)))
    step = segments[:, 2:] - begin
    step = np.where(np.abs(step) < 1e-9, 1e-9, step)
    for axis in (0, 1):
        one = (boxes[:, None, axis] - begin[None, :, axis]) / step[None, :, axis]
        two = (boxes[:, None, axis + 2] - begin[None, :, axis]) / step[None, :, axis]
        enter, leave = np.maximum(enter, np.minimum(one, two)), np.minimum(leave, np.maximum(one, two))
    touching: Flags = enter <= leave
    return touching


def _intersections(a: Array, b: Array) -> Flags:
    """[A, B]: segments that cross each other."""

    def sides(of: Array, ends: Array) -> Array:  # [of, ends]
        dx, dy = (of[:, 2] - of[:, 0])[:, None], (of[:, 3] - of[:, 1])[:, None]
        return np.sign(dx * (ends[None, :, 1] - of[:, None, 1]) - dy * (ends[None, :, 0] - of[:, None, 0]))

    one = sides(a, b[:, :2]) * sides(a, b[:, 2:]) < 0
    two = sides(b, a[:, :2]) * sides(b, a[:, 2:]) < 0
    crossing: Flags = one & two.T
    return crossing


def _distances(segments: Array, points: Array) -> Array:
    """[S, P]: pixels from segments to points."""
    begin, step = segments[:, None, :2], (segments[:, 2:] - segments[:, :2])[:, None]
    length = np.maximum((step**2).sum(axis=2), 1e-9)
    along = np.clip((((points[None] - begin) * step).sum(axis=2)) / length, 0.0, 1.0)
    return np.asarray(np.hypot(*np.moveaxis(begin + along[..., None] * step - points[None], 2, 0)))
