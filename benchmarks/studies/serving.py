"""``stetho serve``: streams of 8 kHz that one core serves, memory of a stream, and from an event to the screen.

``python -m benchmarks.studies.serving --streams 20 --streams 40 --streams 60 --seconds 30 --out FILE``
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.core.harness import Row, machine_row
from benchmarks.core.machine import usable_cores
from benchmarks.core.rows import write_results
from edge_sdk.errors import StethoError
from edge_sdk.runtime.bundle.load import load_bundle
from edge_sdk.sources.phantom import PhantomSource

RATE = 8000
FRAME_S = 0.1
DEADLINE_S = 0.1
_PATIENTS = 8  # different ones among the streams
_LOOP_S = 30.0  # of audio of each
_FRAME_SECONDS = re.compile(r'^stetho_frame_seconds_bucket{le="([^"]+)"} (\S+)$', re.MULTILINE)


class ServerProcess:
    """``stetho serve`` on one core or several."""

    def __init__(self, folder: Path, cores: Sequence[int], *arguments: str) -> None:
        command = [sys.executable, "-m", "edge_sdk.cli.main", "serve", "--json", "--port", "0", "--max-streams", "512"]
        if cores and shutil.which("taskset"):
            command = ["taskset", "-c", ",".join(map(str, cores)), *command]
        self.process = subprocess.Popen(
            [*command, "--recordings", str(folder), *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise StethoError("the server did not start; run 'stetho serve' to see why")
        self.url = str(json.loads(line)["url"]).rstrip("/")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)

    def rss_mb(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def frames(self) -> dict[float, float]:
        """Frames computed within each delay in seconds, cumulative."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {float(edge): float(count) for edge, count in _FRAME_SECONDS.findall(text)}


def scheduler() -> str:
    """How the kernel schedules this process and the server: "fifo" keeps other processes of a busy machine out."""
    names = {os.SCHED_OTHER: "other", os.SCHED_FIFO: "fifo", os.SCHED_RR: "round robin"}
    return names.get(os.sched_getscheduler(0), "unknown")


def phantoms() -> list[bytes]:
    """16-bit PCM of simulated patients."""
    found = []
    for n in range(_PATIENTS):
        scenario = ("asthma", "healthy", "pneumonia")[n % 3]
        source = PhantomSource(scenario, seed=1_000_000 + n, duration_s=_LOOP_S, sample_rate=RATE)
        samples = np.concatenate([block.samples for block in source])
        found.append(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())
    return found


def alone(pcm: Sequence[bytes], frame_s: float = FRAME_S) -> float:
    """Share of a core that one stream takes in this process, without any server, in the same frames."""
    bundle = load_bundle()
    stream = bundle.stream(RATE)
    samples = np.frombuffer(pcm[0], "<i2").astype(np.float32) / 32768
    size = round(frame_s * RATE)
    begin = time.process_time()
    for at in range(0, samples.size, size):
        stream.accept(samples[at : at + size])
    return (time.process_time() - begin) / (samples.size / RATE)


async def play(ws_url: str, pcm: Sequence[bytes], streams: int, seconds: float, record: bool) -> None:
    """Send ``streams`` streams in real time, evenly spread over a frame's length."""
    import websockets

    size = 2 * round(FRAME_S * RATE)

    async def one(number: int) -> None:
        data = pcm[number % len(pcm)]
        async with websockets.connect(f"{ws_url}/api/streams", compression=None, ping_interval=None) as socket:
            await socket.send(json.dumps({"rate": RATE, "format": "s16le", "record": record}))
            reading = asyncio.create_task(_drain(socket))
            begin = time.perf_counter() + FRAME_S * number / streams
            for k in range(round(seconds / FRAME_S)):
                await asyncio.sleep(max(0.0, begin + k * FRAME_S - time.perf_counter()))
                at = k * size % (len(data) - size)
                await socket.send(data[at : at + size])
            await socket.send('{"type": "end"}')
            await reading

    await asyncio.gather(*(one(number) for number in range(streams)))


async def _drain(socket: Any) -> None:
    async for _ in socket:
        pass


def level(pcm: Sequence[bytes], streams: int, seconds: float, *, record: bool) -> Row:
    """One number of streams on one core: misses of the deadline, delays, memory and CPU time."""
    cores = usable_cores()
    before = alone(pcm)
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder), cores[:1], "--threads", "1") as server:
        time.sleep(1.0)
        idle_mb, cpu_s = server.rss_mb(), server.cpu_s()
        memory: list[float] = []

        async def run() -> None:
            playing = asyncio.create_task(play("ws" + server.url[4:], pcm, streams, seconds, record))
            await asyncio.sleep(0.9 * seconds)
            memory.append(server.rss_mb())
            await playing

        asyncio.run(run())
        frames, cpu_s = server.frames(), server.cpu_s() - cpu_s
    total = max(frames.values())
    return {
        "benchmark": "serving",
        "subject": {"model": "default", "part": f"{streams} streams{', recorded' if record else ''}"},
        "streams": streams,
        "cores": cores[:1],
        "scheduler": scheduler(),
        "input": f"simulated patients, {RATE} Hz, 16 bits, a message each {1000 * FRAME_S:g} ms, {seconds:g} s",
        "n": int(total),
        "deadline_ms": 1000 * DEADLINE_S,
        "misses": int(total - frames[DEADLINE_S]),
        "within_50_ms": frames[0.05] / total,
        "cpu_s": cpu_s,
        "core_share_per_stream": cpu_s / seconds / streams,
        "core_share_alone": 0.5 * (before + alone(pcm)),  # the same moment: other processes slow both
        "idle_rss_mb": idle_mb,
        "rss_mb": memory[0],
        "rss_mb_per_stream": (memory[0] - idle_mb) / streams,
    }


def to_the_screen(seconds: float, speed: float) -> Row:
    """From the session's event to its picture in headless Chromium."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    if executable is None:
        raise StethoError("Chromium is missing; install it with: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder), [], "--source", "phantom:asthma", "--speed", str(speed)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(server.url)
        time.sleep(seconds)
        found = page.eval_on_selector("#live-canvas", "canvas => canvas.dataset.allDelays")
        browser.close()
    delays = np.sort(np.asarray(json.loads(found), dtype=np.float64))
    p50, p95, p99 = (float(np.percentile(delays, share)) for share in (50, 95, 99))
    return {
        "benchmark": "serving",
        "subject": {"model": "default", "part": "event to screen"},
        "scheduler": scheduler(),
        "input": f"phantom:asthma at {speed:g} × real time, headless Chromium 1280 × 900, {seconds:g} s",
        "n": int(delays.size),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": float(delays[-1]),
    }


def serving_rows(streams: Sequence[int], seconds: float, screen_s: float, speed: float) -> Iterator[Row]:
    """Rows: the machine, each number of streams without and the largest with recordings, the screen."""
    yield machine_row()
    pcm = phantoms()
    for count in streams:
        yield level(pcm, count, seconds, record=False)
    if streams:
        yield level(pcm, max(streams), seconds, record=True)
    if screen_s > 0:
        yield to_the_screen(screen_s, speed)


def main(
    streams: Annotated[
        list[int] | None, typer.Option("--streams", min=0, help="At once; may be repeated; 0: none.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=2, help="Real time at each number.")] = 30.0,
    screen: Annotated[float, typer.Option("--screen", min=0, help="Seconds of the live page; 0: not measured.")] = 60.0,
    speed: Annotated[float, typer.Option("--speed", min=0.1, help="Pace of the live page's patient.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the rows as a JSON file.")] = None,
) -> None:
    """Streams that one core serves, their memory, and the delay to the screen; JSON lines on stdout."""
    arguments = [Path(a).name if a.startswith("/") else a for a in sys.argv[1:]]
    command = " ".join(["python -m benchmarks.studies.serving", *arguments])
    kept: list[Row] = []
    counts = [20, 40, 60] if streams is None else [count for count in streams if count]
    for row in serving_rows(counts, seconds, screen, speed):
        kept.append(row)
        typer.echo(json.dumps(row))
        if out is not None:
            write_results(out, command, kept)


if __name__ == "__main__":
    typer.run(main)
