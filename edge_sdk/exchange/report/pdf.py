"""A report as a PDF: A4 or Letter, fonts embedded, text as text, pictures of sharp lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.report.content import CYCLE_COLUMNS, OVERVIEW_COLUMNS, RecordingPart, ReportContent
from edge_sdk.exchange.report.drawing import PALETTE, Box, Dot, Drawing, Line, Picture, Polygon, Words
from edge_sdk.exchange.report.timeline import timeline

if TYPE_CHECKING:
    from fpdf import FPDF

Paper: TypeAlias = Literal["a4", "letter"]

_MARGIN = 14.0  # mm
_FONT = "DejaVu"
_PIXEL = 0.2646  # mm of a pixel of a drawing: 96 to the inch
_STRIP_S = 30.0  # seconds a line
_MOST_STRIPS = 24  # a recording
_STRIP_SCALE = 0.75  # a drawing made wider, then printed smaller


def report_pdf(content: ReportContent, *, paper: Paper = "a4") -> bytes:
    """Write the report as a PDF.

    Raises
    ------
    ExchangeError
        A character is not in the font, which holds Latin, Greek, Cyrillic, Arabic and others, but not Chinese.
    """
    pdf = _document(content, paper)
    pdf.add_page()
    _heading(pdf, content.title, 18)
    _text(pdf, content.lead, 9, "soft")
    pdf.ln(1)
    _band(pdf, content.notice)
    if content.overview or content.chest:
        _overview(pdf, content)
    for part in content.recordings:
        if len(content.recordings) > 1:
            pdf.add_page()
        _recording(pdf, part, content)
    _heading(pdf, "How this was made", 13)
    _pairs(pdf, content.provenance)
    _heading(pdf, "Figures of the model card", 10)
    _text(pdf, content.card_note, 8, "soft")
    _pairs(pdf, content.card)
    if content.notes:
        _heading(pdf, "Notes", 10)
        for note in content.notes:
            _text(pdf, f"• {note}", 9)
    missing = {chr(glyph) for font in pdf.fonts.values() for glyph in getattr(font, "missing_glyphs", ())}
    if missing:
        raise ExchangeError(
            f"the font of a PDF has no {''.join(sorted(missing))}; write them otherwise, or name an .html"
        )
    return bytes(pdf.output())


def _document(content: ReportContent, paper: Paper) -> FPDF:
    import matplotlib
    from fpdf import FPDF

    class _Pages(FPDF):
        def footer(self) -> None:
            self.set_y(-11)
            _colour(self, "soft")
            self.set_font(_FONT, size=7)
            self.cell(0, 4, content.notice, align="L")
            self.set_x(self.l_margin)
            self.cell(0, 4, f"{self.page_no()} / {{nb}}", align="R")

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pdf = _Pages(format=paper)
    pdf.add_font(_FONT, "", fonts / "DejaVuSans.ttf")
    pdf.add_font(_FONT, "B", fonts / "DejaVuSans-Bold.ttf")
    pdf.set_margins(_MARGIN, _MARGIN, _MARGIN)
    pdf.set_auto_page_break(True, 16)
    pdf.set_title(content.title)
    pdf.set_subject(content.lead)
    pdf.set_creator("stethoscope-edge-sdk")
    pdf.set_lang("en")
    pdf.set_font(_FONT, size=9)
    return pdf


def _overview(pdf: FPDF, content: ReportContent) -> None:
    _heading(pdf, "Overview", 13)
    if content.overview:
        _table(pdf, OVERVIEW_COLUMNS, content.overview, (4, 16, 17, 11, 12, 7, 9, 8, 7))
        pdf.ln(3)
    if content.chest:
        _draw(pdf, content.chest, scale=0.8)
        missing = f" Not on the map: {', '.join(content.off_map)}." if content.off_map else ""
        _text(pdf, f"Sites; colours are those of the verdicts.{missing}", 8, "soft")


def _recording(pdf: FPDF, part: RecordingPart, content: ReportContent) -> None:
    number = f"{part.number}  " if len(content.recordings) > 1 else ""
    _heading(pdf, f"{number}{part.title}", 13)
    for finding in part.findings:
        y = pdf.get_y()
        _colour(pdf, "soft")
        pdf.set_font(_FONT, size=8)
        pdf.cell(34, 6, finding.name)
        _colour(pdf, finding.tone)
        pdf.set_font(_FONT, "B", 11)
        pdf.cell(44, 6, finding.value)
        _colour(pdf, "soft")
        pdf.set_font(_FONT, size=8)
        pdf.set_xy(_MARGIN + 78, y + 1)
        pdf.multi_cell(0, 4, finding.detail, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.set_y(max(pdf.get_y(), y + 6.5))
    pdf.ln(2)
    _strips(pdf, part, content)
    _legend(pdf, part)
    _heading(pdf, "Cycles", 10)
    if part.cycles:
        _table(pdf, CYCLE_COLUMNS, part.cycles, (6, 10, 10, 10, 14, 12, 14))
    else:
        _text(pdf, "No cycle was found.", 9)
    _heading(pdf, "Quality and gaps", 10)
    if part.quality:
        _table(pdf, ("state", "seconds", "what"), part.quality, (14, 16, 30))
    else:
        _text(pdf, "Quality ok throughout, no gap.", 9)
    _heading(pdf, "Recording", 10)
    _pairs(pdf, part.facts)


def _strips(pdf: FPDF, part: RecordingPart, content: ReportContent) -> None:
    duration_s = part.recording.duration_s
    length_s = max(_STRIP_S, duration_s / _MOST_STRIPS)
    count = max(1, int(np.ceil(duration_s / length_s - 1e-9)))
    if count == 1:
        length_s = duration_s
    width = pdf.epw / (_PIXEL * _STRIP_SCALE)
    for k in range(count):
        start_s, end_s = k * length_s, min((k + 1) * length_s, duration_s)
        # The last line has the scale of the others.
        share = (end_s - start_s) / length_s
        drawn = timeline(part.recording, part.samples, content.colours, width=64 + (width - 64) * share,
                         start_s=start_s, end_s=end_s)  # fmt: skip
        _draw(pdf, drawn, scale=_STRIP_SCALE)
        pdf.ln(1)


def _legend(pdf: FPDF, part: RecordingPart) -> None:
    if not part.legend:
        return
    pdf.set_font(_FONT, size=8)
    for label, role in part.legend:
        pdf.set_fill_color(PALETTE[role])
        pdf.rect(pdf.get_x(), pdf.get_y() + 1, 2.5, 2.5, style="F")
        pdf.set_x(pdf.get_x() + 3.5)
        _colour(pdf, "ink")
        pdf.cell(pdf.get_string_width(label) + 5, 4.5, label)
    pdf.ln(5)


def _draw(pdf: FPDF, drawing: Drawing, *, scale: float) -> None:
    """Draw at the left margin below the present line, on a new page where there is no room."""
    unit = _PIXEL * scale
    if pdf.will_page_break(drawing.height * unit):
        pdf.add_page()
    left, top = pdf.l_margin, pdf.get_y()
    for shape in drawing.shapes:
        _shape(pdf, shape, left, top, unit)
    pdf.set_xy(left, top + drawing.height * unit)


def _shape(pdf: FPDF, shape: Any, left: float, top: float, unit: float) -> None:
    def place(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(left + x * unit, top + y * unit) for x, y in points]

    if isinstance(shape, Box | Picture):
        box = (left + shape.x * unit, top + shape.y * unit, shape.width * unit, shape.height * unit)
    if isinstance(shape, Box):
        pdf.set_fill_color(PALETTE[shape.fill])
        with pdf.local_context(fill_opacity=shape.opacity):
            pdf.rect(*box, style="F")
    elif isinstance(shape, Polygon):
        pdf.set_fill_color(PALETTE[shape.fill])
        pdf.set_draw_color(PALETTE[shape.stroke or shape.fill])
        pdf.set_line_width(0.2 if shape.stroke else 0.05)
        pdf.polygon(place(shape.points), style="DF" if shape.stroke else "F")
    elif isinstance(shape, Line):
        pdf.set_draw_color(PALETTE[shape.stroke])
        pdf.set_line_width(shape.width * unit)
        pdf.polyline(place(shape.points), style="D")
    elif isinstance(shape, Dot):
        pdf.set_fill_color(PALETTE[shape.fill])
        pdf.circle(left + shape.x * unit, top + shape.y * unit, shape.radius * unit, style="F")
    elif isinstance(shape, Picture):
        pdf.image(io.BytesIO(shape.png), *box)
    elif isinstance(shape, Words):
        _colour(pdf, shape.fill)
        pdf.set_font(_FONT, "B" if shape.bold else "", shape.size * unit / 0.3528)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor] * pdf.get_string_width(shape.text)
        pdf.text(left + shape.x * unit - shift, top + shape.y * unit, shape.text)


def _heading(pdf: FPDF, text: str, size: float) -> None:
    if pdf.will_page_break(size + 12):  # not alone at the end of a page
        pdf.add_page()
    pdf.ln(2)
    _colour(pdf, "ink")
    pdf.set_font(_FONT, "B", size)
    pdf.multi_cell(0, size * 0.5, text, align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(1)


def _text(pdf: FPDF, text: str, size: float, colour: str = "ink") -> None:
    _colour(pdf, colour)
    pdf.set_font(_FONT, size=size)
    pdf.multi_cell(0, size * 0.5, text, align="L", new_x="LMARGIN", new_y="NEXT")


def _band(pdf: FPDF, text: str) -> None:
    _colour(pdf, "ink")
    pdf.set_fill_color(PALETTE["band"])
    pdf.set_font(_FONT, "B", 9)
    pdf.multi_cell(0, 7, text, align="L", fill=True, new_x="LMARGIN", new_y="NEXT", padding=(0, 2))


def _pairs(pdf: FPDF, rows: Sequence[tuple[str, str]]) -> None:
    """Names at the left, values beside them."""
    name_width = pdf.epw * 0.34
    for name, value in rows:
        if pdf.will_page_break(10):
            pdf.add_page()
        y = pdf.get_y()
        _colour(pdf, "soft")
        pdf.set_font(_FONT, size=8)
        pdf.multi_cell(name_width - 3, 4, name, align="L", new_x="LMARGIN", new_y="NEXT")
        below = pdf.get_y()
        pdf.set_xy(_MARGIN + name_width, y)
        _colour(pdf, "ink")
        pdf.multi_cell(0, 4, value, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.set_y(max(below, pdf.get_y()) + 0.6)


def _table(pdf: FPDF, columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from fpdf.fonts import FontFace

    pdf.set_font(_FONT, size=7.5)
    _colour(pdf, "ink")
    pdf.set_draw_color(PALETTE["rule"])
    pdf.set_fill_color(PALETTE["page"])
    pdf.set_line_width(0.1)
    heading = FontFace(emphasis="BOLD", color=PALETTE["soft"], fill_color=PALETTE["page"])
    share = min(1.0, sum(widths) / 60)
    with pdf.table(
        borders_layout="HORIZONTAL_LINES",
        col_widths=tuple(widths),
        headings_style=heading,
        line_height=4.2,
        text_align="LEFT",
        width=pdf.epw * max(share, 0.6),
        align="LEFT",
    ) as table:
        for cells in (columns, *rows):
            row = table.row()
            for cell in cells:
                row.cell(cell)


def _colour(pdf: FPDF, role: str) -> None:
    pdf.set_text_color(PALETTE[role])
