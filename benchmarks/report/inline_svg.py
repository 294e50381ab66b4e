"""Figures as SVG for the inside of a page: no foreign ids, no namespaces, colours as CSS variables."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from benchmarks.report.drawing import PALETTE

_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"^#(.*)$")
_FONT_FAMILY = re.compile(r"font-family: [^;]*; ")
_NO_TURN = re.compile(r"rotate\(-?0 [^)]*\)")
_DROPPED = ("metadata", "style")
_VARIABLES = {colour: f"var({name})" for name, colour in PALETTE.items()}


def inline_svg(figure: Figure, prefix: str, title: str) -> str:
    """Write a figure as an ``<svg>`` element.

    Parameters
    ----------
    figure
        Drawn with the colours of :data:`~benchmarks.report.drawing.PALETTE`.
    prefix
        Begins every id of this element; unique on the page.
    title
        For screen readers.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    _strip(root)
    references = {_REFERENCE.sub(r"\1", element.get("href", "")) for element in root.iter()}
    for element in root.iter():
        _rewrite(element, prefix, references)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width:g} {height:g}", "role": "img"})
    caption = ElementTree.Element("title")
    caption.text = title
    root.insert(0, caption)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _strip(element: ElementTree.Element) -> None:
    """Drop namespaces, metadata, empty groups, and the style that would apply to the whole page."""
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if not (element.text or "").strip():
        element.text = None
    element.tail = None
    for child in list(element):
        _strip(child)
        if child.tag in _DROPPED or (child.tag in ("defs", "g") and not len(child)):
            element.remove(child)


def _rewrite(element: ElementTree.Element, prefix: str, references: set[str]) -> None:
    name = element.attrib.pop("id", "")
    if name and name in references:
        element.set("id", f"{prefix}-{name}")
    elif (role := name.partition("-")[0]) in ("bars", "line", "dots", "leader", "name"):
        element.set("class", role)
    for key, value in list(element.attrib.items()):
        if key == "href":
            element.set(key, _REFERENCE.sub(rf"#{prefix}-\1", value))
        elif key == "transform" and _NO_TURN.fullmatch(value):
            del element.attrib[key]
        elif key not in ("id", "class"):
            element.set(key, _rewritten(value))


def _rewritten(value: str) -> str:
    value = _LONG_NUMBER.sub(lambda found: f"{float(found.group()):.2f}", value)
    value = _FONT_FAMILY.sub("", value)  # the page's font
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, variable)
    return " ".join(value.split())
