"""Writes the report of an examination into a file whose ending says the format."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import Examination
from edge_sdk.extras import require_extra
from edge_sdk.files import write_whole

FORMATS = (".html", ".pdf")


def write_report(
    examination: Examination,
    out: Path,
    *,
    manifest: Mapping[str, Any] | None = None,
    reference: str | None = None,
    audio: bool = True,
    paper: str = "a4",
    made: datetime | None = None,
) -> None:
    """Write one self-contained page (``.html``) or a PDF (``.pdf``); an old file stays until the new one is complete.

    Parameters
    ----------
    examination
        Recordings with what was found.
    out
        The file; its folder is made.
    manifest
        ``bundle.json`` of the bundle that classified them, for the figures of its card.
    reference
        Of the examination, printed at the top.
    audio
        Players on the page.
    paper
        ``a4`` or ``letter``.
    made
        Time of the report; absent: now.

    Raises
    ------
    ExchangeError
        Another ending, the file cannot be written, or a PDF has no such character.
    AudioError
        Audio that is there cannot be read.
    MissingDependencyError
        The packages of the extra are absent.
    """
    check_report_format(out)
    from edge_sdk.exchange.report.content import report_content

    content = report_content(
        examination, manifest=manifest, reference=reference, made=made or datetime.now().astimezone()
    )
    if out.suffix.lower() == ".pdf":
        from edge_sdk.exchange.report.pdf import report_pdf

        data = report_pdf(content, paper="letter" if paper == "letter" else "a4")
    else:
        from edge_sdk.exchange.report.html import report_html

        data = report_html(content, audio=audio).encode("utf-8")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, data)
    except OSError as error:
        raise ExchangeError(
            f"cannot write {out}: {error.strerror or error}; name a file that can be written"
        ) from error


def check_report_format(out: Path) -> None:
    """Check ending and packages before any work is done; errors as :func:`write_report`."""
    if out.suffix.lower() not in FORMATS:
        raise ExchangeError(f"{out} ends neither in .html nor in .pdf; name the report so")
    if out.is_dir():
        raise ExchangeError(f"{out} is a folder; name a file")
    packages = ("jinja2", "matplotlib", "PIL", *(("fpdf",) if out.suffix.lower() == ".pdf" else ()))
    require_extra("report", "a report", *packages)
