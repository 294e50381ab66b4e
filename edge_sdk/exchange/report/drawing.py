"""A picture as a list of shapes in pixels with colours by role, written as SVG and drawn into a PDF alike."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from markupsafe import Markup, escape

PALETTE = {
    "page": "#ffffff", "ink": "#1b1f24", "soft": "#57606a", "rule": "#d0d7de", "band": "#eef1f4", "skin": "#e9ecef",
    "good": "#1a7f37", "bad": "#b3261e", "unsure": "#8a5a00", "accent": "#0b66c3",
    "c0": "#1a7f37", "c1": "#c4500a", "c2": "#8250df", "c3": "#b3261e", "c4": "#0e7c86", "c5": "#bf3989",
}  # fmt: skip
"""Role → colour on paper; a page may give a role another one, for dark screens. ``c0`` …: labels, normal first."""

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    opacity: float = 1.0
    title: str = ""  # shown by the pointer


@dataclass(frozen=True, slots=True)
class Polygon:
    """A filled outline."""

    points: Sequence[Point]
    fill: str
    stroke: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of constant width."""

    points: Sequence[Point]
    stroke: str
    width: float = 1.0


@dataclass(frozen=True, slots=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    fill: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text; ``y`` is its base line."""

    x: float
    y: float
    text: str
    fill: str = "ink"
    anchor: Literal["start", "middle", "end"] = "start"
    size: float = 11.0
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG, stretched into a box."""

    x: float
    y: float
    width: float
    height: float
    png: bytes = field(repr=False)


Shape: TypeAlias = Box | Polygon | Line | Dot | Words | Picture


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes from the lowest to the highest."""

    width: float
    height: float
    shapes: Sequence[Shape]
    caption: str  # for screen readers


def svg_of(drawing: Drawing, *, css_class: str = "") -> Markup:
    """Write a drawing as an ``<svg>`` element whose colours are the page's CSS variables ``--ROLE``."""
    inside = Markup("").join(_element(shape) for shape in drawing.shapes)
    return Markup(
        '<svg class="{}" width="{:g}" height="{:g}" viewBox="0 0 {:g} {:g}" role="img"><title>{}</title>{}</svg>'
    ).format(css_class, drawing.width, drawing.height, drawing.width, drawing.height, drawing.caption, inside)


def _element(shape: Shape) -> Markup:
    if isinstance(shape, Box):
        return Markup(
            '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="var(--{})" opacity="{:g}">{}</rect>'
        ).format(shape.x, shape.y, max(shape.width, 0.1), shape.height, shape.fill, shape.opacity, _title(shape.title))
    if isinstance(shape, Polygon):
        stroke = Markup(' stroke="var(--{})"').format(shape.stroke) if shape.stroke else ""
        return Markup('<polygon points="{}" fill="var(--{})"{}></polygon>').format(
            _points(shape.points), shape.fill, stroke
        )
    if isinstance(shape, Line):
        return Markup('<polyline points="{}" fill="none" stroke="var(--{})" stroke-width="{:g}"></polyline>').format(
            _points(shape.points), shape.stroke, shape.width
        )
    if isinstance(shape, Dot):
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:g}" fill="var(--{})">{}</circle>').format(
            shape.x, shape.y, shape.radius, shape.fill, _title(shape.title)
        )
    if isinstance(shape, Words):
        weight = Markup(' font-weight="600"') if shape.bold else ""
        return Markup(
            '<text x="{:.1f}" y="{:.1f}" fill="var(--{})" text-anchor="{}" font-size="{:g}"{}>{}</text>'
        ).format(shape.x, shape.y, shape.fill, shape.anchor, shape.size, weight, shape.text)
    data = base64.b64encode(shape.png).decode("ascii")
    return Markup(
        '<image x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none" '
        'href="data:image/png;base64,{}"></image>'
    ).format(shape.x, shape.y, shape.width, shape.height, data)


def _title(text: str) -> Markup:
    return Markup("<title>{}</title>").format(escape(text)) if text else Markup("")


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
