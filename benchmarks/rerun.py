"""Runs the committed figures again that need no training, and says which moved: ``make results``.

A results file is rerun when its rows hold the command that made them. Numbers that differ by more than the tolerance
are listed; with ``--write`` the files get the new rows, each with the commit, the bundle's hash and the corpus' hash
that it came from.

``python -m benchmarks.rerun --write``
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.core.audio import data_folder
from edge_sdk.digests import sha256_file
from edge_sdk.errors import StethoError
from edge_sdk.files import whole_file
from edge_sdk.json_lines import json_line
from edge_sdk.runtime.bundle.load import resolve_bundle
from edge_sdk.training.provenance import git_commit

RESULTS = Path(__file__).parent / "results"
RERUN = ("accuracy.json", "segmentation.json")
"""Files whose rows are outputs of one command each."""

TOLERANCE = 1e-6  # relative; int8 kernels of another processor may move more
_DATA = "$STETHO_DATA"


class RerunError(StethoError):
    """A committed figure could not be made again."""


def rerun(row: Mapping[str, Any], data: Path, commit: str | None) -> dict[str, Any]:
    """The row that its command gives now, with its provenance.

    Parameters
    ----------
    row
        Of a results file; ``command`` is a ``stetho`` command with ``--json``.
    data
        Folder that ``$STETHO_DATA`` stands for.
    commit
        Of the source tree, before any results file is written.

    Raises
    ------
    RerunError
        The command fails.
    """
    command = str(row["command"])
    words = [word.replace(_DATA, str(data)) for word in shlex.split(command)]
    stetho = Path(sys.executable).with_name("stetho")
    done = subprocess.run(
        [str(stetho), *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"STETHO_DATA": str(data)},
    )
    if done.returncode:
        raise RerunError(f"{command}: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1].replace(str(data), _DATA))
    return {"command": command, **found, "provenance": provenance(words, data, commit)}


def provenance(words: list[str], data: Path, commit: str | None) -> dict[str, str | None]:
    """Commit of the source tree, hash of the bundle, and hash of the names and sizes of the corpus' files."""
    origin = {"git_commit": commit, "bundle_sha256": sha256_file(resolve_bundle(words[2]) / "bundle.json")}
    roots = [Path(word) for word in words if word.startswith(str(data))]
    return {**origin, "data_sha256": _folder_hash(roots[0]) if roots else None}


def _folder_hash(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def moved(old: Any, new: Any, name: str = "", tolerance: float = TOLERANCE) -> Iterator[tuple[str, Any, Any]]:
    """Figures of a row that differ: name, before, now; what has no counterpart is None on that side."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            if key != "provenance":
                yield from moved(old.get(key), new.get(key), f"{name}.{key}".lstrip("."), tolerance)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from moved(before, now, f"{name}[{index}]", tolerance)
    elif isinstance(old, int | float) and isinstance(new, int | float):
        if abs(old - new) > tolerance * max(abs(old), abs(new)):
            yield name, old, new
    elif old != new:
        yield name, old, new


def main(
    files: Annotated[list[str] | None, typer.Argument(help="Results files; all that can be rerun by default.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the corpora.", envvar="STETHO_DATA", show_envvar=True)
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Keep the new rows in the files.")] = False,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0.0, help="Relative difference.")] = TOLERANCE,
) -> None:
    """Run committed figures again; the exit status is 1 when one moved and is not written."""
    folder = (data or data_folder()).resolve()
    lines: list[str] = []
    commit = git_commit()
    for name in files or RERUN:
        path = RESULTS / name
        kept = json.loads(path.read_text(encoding="utf-8"))
        fresh = []
        for row in kept["rows"]:
            typer.echo(f"{name}: {row['command']}", err=True)
            fresh.append(rerun(row, folder, commit))
            for figure, was, now in moved(row, fresh[-1], "", tolerance):
                lines.append(f"  {figure}: {_shown(was)} -> {_shown(now)}   ({name}: {row['command']})")
        if write:
            with whole_file(path) as draft:
                draft.write_text(json.dumps({**kept, "rows": fresh}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    typer.echo("\n".join([f"{len(lines)} figures moved", *lines]) if lines else "no figure moved")
    if lines and not write:
        raise typer.Exit(1)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else json_line(value).strip()


if __name__ == "__main__":
    typer.run(main)
