"""Options that the benchmark commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[str | None, typer.Argument(metavar="BUNDLE", help="The bundle; the same as --bundle.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", help="Folder of recordings; simulated patients where absent.")
]
QuickOption = Annotated[bool, typer.Option("--quick", help="A short run: proves that it works, no figures to quote.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Also write the rows as a JSON file; into a folder: a file of this machine."),
]
MarkdownOption = Annotated[Path | None, typer.Option("--markdown", help="Also write the table as Markdown.")]
