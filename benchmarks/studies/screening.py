"""``stetho screen`` of an archive: recordings per second against workers, on local processes and on Ray.

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

from benchmarks.core.audio import audio_files
from benchmarks.core.harness import Row, machine_row
from benchmarks.core.rows import write_results
from edge_sdk.errors import StethoError

ENGINES = ("local", "ray")
_QUICK = 12  # recordings
_TAIL = 300  # characters of the error output of a failed run


@dataclass(frozen=True, slots=True)
class ScreeningRun:
    """One run over all recordings."""

    wall_s: float  # from the start of the command to its end
    first_s: float  # until the first recording was done: includes interpreter, cluster, bundle
    done_s: tuple[float, ...]  # end of each recording, increasing
    audio_s: float
    failed: int


def time_screening(recordings: Path, engine: str, workers: int, bundle: str) -> ScreeningRun:
    """Run the command and measure when the last line of each recording arrives.

    Raises
    ------
    StethoError
        The command gave no result.
    """
    command = [sys.executable, "-m", "edge_sdk.cli.main", "screen", str(recordings), "--json", "--bundle", bundle]
    command += ["--engine", engine, "--jobs", str(workers)]
    begin = time.perf_counter()
    done, audio_s, failed = [], 0.0, 0
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as run,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            record: dict[str, Any] = json.loads(line)
            if record["type"] in ("summary", "error"):
                done.append(time.perf_counter() - begin)
                audio_s += float(record.get("duration_s", 0.0))
                failed += record["type"] == "error"
        run.wait()
        wall_s = time.perf_counter() - begin
        if not done:
            errors.seek(0)
            raise StethoError(f"'stetho screen' gave no result: {' '.join(errors.read().split())[-_TAIL:]}")
    return ScreeningRun(wall_s, done[0], tuple(done), audio_s, failed)


def screening_rows(
    root: Path, engines: Sequence[str], workers: Sequence[int], *, bundle: str = "default", recordings: int = 0
) -> Iterator[Row]:
    """Rows: the machine, then one per engine and number of workers; 0 ``recordings`` means all.

    ``recordings_per_s`` counts from the first result on, as for a long archive. ``ratio`` is against one worker of the
    same engine, where that was measured.
    """
    yield machine_row()
    found = sorted(path.resolve() for path in audio_files(root))
    if not found:
        raise StethoError(f"no wav or flac files under {root}; give a folder of recordings")
    chosen = found[: recordings or None]
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(chosen):
            (Path(folder) / f"{number:06d}{path.suffix}").symlink_to(path)
        alone: dict[str, float] = {}
        for engine in engines:
            for count in workers:
                run = time_screening(Path(folder), engine, count, bundle)
                row = _row(run, engine, count, bundle, root)
                if count == 1:
                    alone[engine] = row["recordings_per_s"]
                row["ratio"] = row["recordings_per_s"] / alone[engine] if alone.get(engine) else None
                yield row


def _row(run: ScreeningRun, engine: str, workers: int, bundle: str, root: Path) -> Row:
    count = len(run.done_s)
    after_s = max(run.done_s[-1] - run.first_s, 1e-9)
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
    recordings: Annotated[int, typer.Option("--recordings", min=0, help="Number of recordings at most; 0: all.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A dozen recordings.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the rows as a JSON file.")] = None,
) -> None:
    """Throughput of 'stetho screen' against workers; JSON lines on stdout."""
    engines = engine or list(ENGINES)
    if unknown := [name for name in engines if name not in ENGINES]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(ENGINES)}", param_hint="--engine")
    arguments = [Path(a).name if a.startswith("/") else a for a in sys.argv[1:]]
    command = " ".join(["python -m benchmarks.studies.screening", *arguments])
    kept: list[Row] = []
    for row in screening_rows(
        root, engines, workers or [1, 2], bundle=bundle, recordings=_QUICK if quick else recordings
    ):
        kept.append(row)
        typer.echo(json.dumps(row))
        if out is not None:
            write_results(out, command, kept)  # after each row, so that Ctrl-C keeps the rows so far


if __name__ == "__main__":
    typer.run(main)
