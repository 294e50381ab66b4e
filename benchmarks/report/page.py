"""All results of a folder on one page: self-contained HTML with plots, and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.core.rows import cell
from benchmarks.report.results import Kept, read_folder
from benchmarks.report.section import Section
from benchmarks.report.sections import SECTIONS
from edge_sdk.errors import StethoError

RESEARCH_USE = (
    "For research use only. Not a medical device: nothing here says how well a patient is diagnosed, and no figure "
    "holds for another population, stethoscope or machine than those named."
)


_LONG = 24  # characters of a text that may be broken into lines


def write_report(folder: Path, out: Path) -> tuple[Path, Path]:
    """Write ``index.html`` and ``report.md`` into ``out``; returns their paths.

    Raises
    ------
    StethoError
        No such folder of results, or ``out`` cannot be written.
    """
    kept = read_folder(folder)
    sections = [make(kept) for make in SECTIONS]
    html, markdown = out / "index.html", out / "report.md"
    try:
        out.mkdir(parents=True, exist_ok=True)
        html.write_text(as_html(kept, sections), encoding="utf-8")
        markdown.write_text(as_markdown(kept, sections), encoding="utf-8")
    except OSError as error:
        raise StethoError(f"cannot write the report into {out}: {error}; name a folder that can be written") from error
    return html, markdown


def _title(column: str) -> str:
    return column.replace("_", " ")


def machine_lines(kept: Kept) -> list[str]:
    """One line for every machine the results are from."""
    lines = []
    for row in kept.machines:
        versions = ", ".join(f"{k} {v}" for k, v in (row.get("versions") or {}).items())
        gpu = f", {row['gpu'].get('name', 'GPU')}" if isinstance(row.get("gpu"), Mapping) else ""
        lines.append(
            f"{row.get('cpu')}, {row.get('cores')} cores, {row.get('memory_mb')} MB{gpu}; {row.get('os')}, "
            f"Python {row.get('python')}; governor {row.get('governor') or 'not told'}; {versions}"
        )
    return list(dict.fromkeys(lines))


def as_markdown(kept: Kept, sections: Sequence[Section]) -> str:
    """The page without plots."""
    lines = ["# Benchmarks", "", RESEARCH_USE, ""]
    lines += [f"* Machine: {_inline(line)}" for line in machine_lines(kept)]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.lead, ""]
        if section.missing:
            lines.append(f"No results yet; make them with `{section.missing}`.")
        if section.table:
            lines.append("| subject | " + " | ".join(map(_title, section.columns)) + " |")
            lines.append("|---|" + "---:|" * len(section.columns))
            for name, row in section.table:
                cells = [_inline(name), *(_inline(cell(row.get(c))) for c in section.columns)]
                lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *(f"* {_inline(note)}" for note in section.notes)] if section.notes else []
    lines += ["", "## Commands", "", "| file | command |", "|---|---|"]
    lines += [f"| {_inline(name)} | `{_inline(command) or 'not told'}` |" for name, command in kept.commands.items()]
    lines += ["", *(f"* not read: {_inline(why)}" for why in kept.unread.values())] if kept.unread else []
    return "\n".join(lines) + "\n"


def _inline(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def as_html(kept: Kept, sections: Sequence[Section]) -> str:
    """The page with plots; nothing is loaded from elsewhere."""
    links = "".join(f'<a href="#{_anchor(s)}">{escape(s.title)}</a>' for s in sections)
    body = [
        f"<header><h1>Benchmarks</h1><p class='use'>{escape(RESEARCH_USE)}</p>",
        *(f"<p class='machine'>{escape(line)}</p>" for line in machine_lines(kept)),
        f"<nav>{links}</nav></header>",
        *map(_section_html, sections),
        "<section id='commands'><h2>Commands</h2><div class='wide'><table><tr><th>file</th><th>command</th></tr>",
        *(
            f"<tr><td>{escape(name)}</td><td class='text long'><code>{escape(command or 'not told')}</code></td></tr>"
            for name, command in kept.commands.items()
        ),
        "</table></div>",
        *(f"<p class='note'>not read: {escape(why)}</p>" for why in kept.unread.values()),
        "</section>",
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Benchmarks</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _anchor(section: Section) -> str:
    return section.title.lower().replace(" ", "-")


def _section_html(section: Section) -> str:
    parts = [f"<section id='{_anchor(section)}'><h2>{escape(section.title)}</h2><p>{escape(section.lead)}</p>"]
    if section.missing:
        parts.append(f"<p class='missing'>No results yet; make them with <code>{escape(section.missing)}</code></p>")
    if section.plots:
        parts.append("<div class='plots'>" + "".join(f"<figure>{p}</figure>" for p in section.plots) + "</div>")
    if section.table:
        told = {c for c in section.columns if any(isinstance(row.get(c), str) for _, row in section.table)}
        heads = "".join(f"<th{' class=text' if c in told else ''}>{escape(_title(c))}</th>" for c in section.columns)
        parts.append(f"<div class='wide'><table><tr><th>subject</th>{heads}</tr>")
        for name, row in section.table:
            cells = "".join(_cell_html(row.get(c)) for c in section.columns)
            parts.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
        parts.append("</table></div>")
    parts += [f"<p class='note'>{escape(note)}</p>" for note in section.notes]
    return "".join(parts) + "</section>"


def _cell_html(value: Any) -> str:
    long = isinstance(value, str) and len(value) > _LONG
    kind = "text long" if long else "text" if isinstance(value, str) else "bad" if value is False else "number"
    return f"<td class='{kind}'>{escape(cell(value))}</td>"


_STYLE = (
    """
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#57606a;--rule:#d0d7de;--band:#f6f8fa;--bad:#b3261e;
--c0:#0b66c3;--c1:#c4500a;--c2:#1a7f37;--c3:#8250df;--c4:#bf3989;--c5:#6e5f00;--c6:#0e7c86;--c7:#57606a}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#e6edf3;--soft:#9aa4af;--rule:#30363d;--band:#161b22;
--bad:#ff8a80;--c0:#6cb6ff;--c1:#ffa657;--c2:#56d364;--c3:#d2a8ff;--c4:#ff9bce;--c5:#e3c341;--c6:#56d4dd;--c7:#9aa4af}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:24px 20px 60px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{margin:0 0 4px}
h2{margin:40px 0 4px;padding-top:12px;border-top:1px solid var(--rule)}h3{font-size:14px;margin:0 0 6px}
p{margin:4px 0 12px;max-width:80ch}.use{font-weight:600}.machine,.note,.missing{color:var(--soft);font-size:13.5px}
nav{display:flex;flex-wrap:wrap;gap:6px 16px;margin-top:12px}a{color:var(--c0)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px;margin:12px 0}
figure{margin:0;min-width:0}svg{width:100%;max-width:680px;height:auto;display:block}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}svg text.label{fill:var(--ink)}
svg text.note{fill:var(--ink);paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
.plots figure:only-child svg{max-width:820px}
.grid{stroke:var(--rule);stroke-width:1;opacity:.6}.axis,.tick{stroke:var(--soft);fill:none}
.mark{stroke:var(--soft);stroke-dasharray:5 4;fill:none}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;margin:4px 0 0;padding:0 0 0 10%;font-size:13px}
.swatch{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:6px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;width:100%}
th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap;vertical-align:top}
th{background:var(--band);white-space:normal;vertical-align:bottom;font-weight:600}th:first-child,td:first-child,th.text,td.text{text-align:left}
td.long{white-space:normal;min-width:30ch}td.bad{color:var(--bad);font-weight:600}code{font-size:12.5px}
"""
    + "".join(
        f".fill{k}{{fill:var(--c{k});background:var(--c{k})}}.line{k}{{stroke:var(--c{k});stroke-width:2;fill:none}}"
        for k in range(8)
    )
    + ".bar{stroke-width:1.5;opacity:.45}"
)
