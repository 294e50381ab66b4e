"""``stetho screen`` of an archive: recordings a second against workers, on processes of its own and on Ray.

``python -m benchmarks.studies.screening ROOT --engine ray --workers 1 --workers 2 --out FILE``
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.core.harness import Row, machine_row
from benchmarks.core.rows import write_results
from edge_sdk.errors import StethoError

ENGINES = ("local", "ray")
_QUICK = 12  # recordings
_TAIL = 300  # characters of a failed run's last words


@dataclass(frozen=True, slots=True)
class Screening:
    """One run over all recordings."""

    wall_s: float  # from the start of the command to its end
    first_s: float  # until the first recording was answered: interpreter, cluster, bundle
    answered_s: tuple[float, ...]  # when each recording was answered, growing
    audio_s: float
    failed: int


def screen(recordings: Path, engine: str, workers: int, bundle: str) -> Screening:
    """Run the command as a person would and note when each recording's last line comes.

    Raises
    ------
    StethoError
        Nothing was answered.
    """
    command = [sys.executable, "-m", "edge_sdk.cli.main", "screen", str(recordings), "--json", "--bundle", bundle]
    command += ["--engine", engine, "--jobs", str(workers)]
    begin = time.perf_counter()
    answered, audio_s, failed = [], 0.0, 0
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True) as run,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            record: dict[str, Any] = json.loads(line)
            if record["type"] in ("summary", "error"):
                answered.append(time.perf_counter() - begin)
                audio_s += float(record.get("duration_s", 0.0))
                failed += record["type"] == "error"
        run.wait()
        wall_s = time.perf_counter() - begin
        if not answered:
            told.seek(0)
            raise StethoError(f"'stetho screen' gave no answer: {' '.join(told.read().split())[-_TAIL:]}")
    return Screening(wall_s, answered[0], tuple(answered), audio_s, failed)


def rows(
    root: Path, engines: Sequence[str], workers: Sequence[int], *, bundle: str = "default", recordings: int = 0
) -> Iterator[Row]:
    """The machine, then a row for every engine and number of workers; all recordings where ``recordings`` is 0.

    ``recordings_per_s`` is of the time after the first answer: what a long archive sees. ``ratio`` is to one worker of
    the same engine, where that was measured.
    """
    yield machine_row()
    found = sorted(p.resolve() for p in root.rglob("*") if p.suffix.lower() in {".wav", ".flac"})
    if not found:
        raise StethoError(f"no wav or flac files under {root}; give a folder of recordings")
    chosen = found[: recordings or None]
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(chosen):
            (Path(folder) / f"{number:06d}{path.suffix}").symlink_to(path)
        alone: dict[str, float] = {}
        for engine in engines:
            for count in workers:
                run = screen(Path(folder), engine, count, bundle)
                row = _row(run, engine, count, bundle, root)
                if count == 1:
                    alone[engine] = row["recordings_per_s"]
                row["ratio"] = row["recordings_per_s"] / alone[engine] if alone.get(engine) else None
                yield row


def _row(run: Screening, engine: str, workers: int, bundle: str, root: Path) -> Row:
    count = len(run.answered_s)
    after_s = max(run.answered_s[-1] - run.first_s, 1e-9)
    share = (count - 1) / count if count > 1 else 1.0
    return {
        "benchmark": "screening",
        "subject": {"model": bundle, "engine": engine, "part": f"screen, {engine} × {workers}"},
        "workers": workers,
        "input": f"recordings under {root.name}, each 'stetho screen --json' a process of its own",
        "n": count,
        "failed_recordings": run.failed,
        "audio_s": run.audio_s,
        "wall_s": run.wall_s,
        "first_answer_s": run.first_s,
        "recordings_per_s": (count - 1 if count > 1 else count) / after_s,
        "times_real_time": run.audio_s * share / after_s,
    }


def main(
    root: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    engine: Annotated[list[str] | None, typer.Option("--engine", help="local, ray; may be repeated.")] = None,
    workers: Annotated[list[int] | None, typer.Option("--workers", min=1, help="Processes; may be repeated.")] = None,
    bundle: Annotated[str, typer.Option("--bundle", help="Bundle directory, or 'default'.")] = "default",
    recordings: Annotated[int, typer.Option("--recordings", min=0, help="So many at most; 0: all.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A dozen recordings.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the rows as a JSON file.")] = None,
) -> None:
    """Throughput of 'stetho screen' against workers; JSON lines on stdout."""
    engines = engine or list(ENGINES)
    if unknown := [name for name in engines if name not in ENGINES]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(ENGINES)}", param_hint="--engine")
    words = [Path(a).name if a.startswith("/") else a for a in sys.argv[1:]]
    command = " ".join(["python -m benchmarks.studies.screening", *words])
    kept: list[Row] = []
    for row in rows(root, engines, workers or [1, 2], bundle=bundle, recordings=_QUICK if quick else recordings):
        kept.append(row)
        typer.echo(json.dumps(row))
        if out is not None:
            write_results(out, command, kept)  # with each row: Ctrl-C keeps what was measured


if __name__ == "__main__":
    typer.run(main)
