"""Faults of the device and its receiving process: cable, lost frames, a stopped process, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.audio import phantom_samples
from benchmarks.core.harness import Row
from benchmarks.faults.child import ArrivalSink
from benchmarks.faults.row import (
    LEAST_PATIENT_S,
    RATE_HZ,
    RECOVERY_BOUND_S,
    FaultOptions,
    fault_row,
    on_device_clock,
    recovery_s,
)
from edge_sdk.events import StreamStats
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.session import Session
from firmware_bridge.emulator.device import DeviceOptions, EmulatedDevice
from firmware_bridge.emulator.faults import Faults, Unplug
from firmware_bridge.emulator.port import PtyPort

REPLUG_BOUND_S = 2.5
"""From the return of a device to its first audio: the host looks at least once a second, then opens the port."""

DROP_GAP_BOUND_S = 0.25
"""Longest time without a block at the sink while frames are lost."""

RECORD_BOUND_S = 1.5
"""Received audio that is missing in the recording when the disk is full."""

_FRAME_BYTES = 185  # of 10 ms at 8 kHz on the wire
_DEVICE_HOLDS_S = 3.0  # its 64 KiB hold at least that much audio, framing included
_CHILD_S = 60.0


@contextmanager
def _device(seconds: float, faults: Faults | None = None) -> Iterator[tuple[Path, EmulatedDevice, threading.Thread]]:
    """An emulated stethoscope on a pseudo-terminal that plays a patient once."""
    samples = phantom_samples("asthma", RATE_HZ, max(LEAST_PATIENT_S, seconds))[: round(seconds * RATE_HZ)]
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "stethoscope"
        port = PtyPort(link)
        port.plug()
        device = EmulatedDevice(lambda: [samples], port, DeviceOptions(rate_hz=RATE_HZ, once=True), faults)
        stop = threading.Event()
        thread = threading.Thread(target=device.run, args=(stop,), name="emulated device", daemon=True)
        thread.start()
        try:
            yield link, device, thread
        finally:
            stop.set()
            thread.join(10.0)


def _receive(bundle: Bundle, link: Path) -> tuple[ArrivalSink, StreamStats]:
    from edge_sdk.sources.serial import SerialSource

    sink = ArrivalSink()
    stats = Session(SerialSource(str(link)), bundle, [sink], give_up_s=10.0).run()
    return sink, stats


def unplug(bundle: Bundle, options: FaultOptions) -> Row:
    """The cable is unplugged and plugged in again; the device keeps running."""
    away_s = options.fault_s
    seconds = options.calm_s + away_s + max(options.calm_s, 1.0)
    with _device(seconds, Faults(unplugs=(Unplug(options.calm_s, away_s),))) as (link, device, thread):
        sink, stats = _receive(bundle, link)
        thread.join(10.0)
    times = np.array([a[0] for a in sink.arrivals])
    longest = int(np.argmax(np.diff(times))) if times.size > 1 else 0
    back = times.size > 1 and stats.gaps > 0
    return fault_row(
        f"the cable is out for {away_s:g} s",
        recovery_s=float(times[longest + 1] - times[longest]) / 1e9 - away_s if back else None,
        recovery_bound_s=REPLUG_BOUND_S,
        lost=stats.samples_lost,
        lost_bound=round((away_s + REPLUG_BOUND_S) * RATE_HZ),
        accounted=stats.samples_in + stats.samples_lost == device.report.samples,
        gaps=stats.gaps,
    )


def drop_frames(bundle: Bundle, options: FaultOptions) -> Row:
    """One of twenty frames is damaged on the wire."""
    seconds = 2 * options.calm_s + options.fault_s
    with _device(seconds, Faults(drop_every=20.0 * _FRAME_BYTES)) as (link, device, thread):
        sink, stats = _receive(bundle, link)
        thread.join(10.0)
    report, block = device.report, RATE_HZ // 100
    gaps_s = np.diff([a[0] for a in sink.arrivals]) / 1e9
    return fault_row(
        f"{report.drops} stretches of up to 64 bytes lost among {report.frames} frames (one of twenty)",
        recovery_s=float(gaps_s.max()) if gaps_s.size else None,
        recovery_bound_s=DROP_GAP_BOUND_S,
        lost=stats.samples_lost,
        lost_bound=2 * block * report.drops,  # a lost stretch touches at most two frames
        accounted=stats.samples_in + stats.samples_lost == report.samples,
        arrivals=on_device_clock(sink.arrivals),
        gaps=stats.gaps,
        lost_share=stats.samples_lost / report.samples if report.samples else None,
    )


def _child(*arguments: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    command = [sys.executable, "-m", "benchmarks.faults.child", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )


def _result(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of the child; only ``"error"`` where it died."""
    try:
        out, problem = child.communicate(timeout=_CHILD_S)
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        child.kill()
        out, problem = child.communicate()
        return {"error": " ".join(problem.split())[-300:] or "the process gave no output"}
    return result


def stop_and_continue(bundle: Bundle, options: FaultOptions) -> Row:
    """SIGSTOP, later SIGCONT, for a process that receives a serial stethoscope."""
    seconds = 2 * options.calm_s + options.fault_s + 0.5
    end_ns = 0
    with _device(seconds) as (link, device, thread):
        child = _child("listen", str(link), options.bundle)
        assert child.stdout is not None
        try:
            child.stdout.readline()  # the first block has arrived
            time.sleep(options.calm_s)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(options.fault_s)
            os.kill(child.pid, signal.SIGCONT)
            end_ns = time.monotonic_ns()
            result = _result(child)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
            child.kill()
            child.wait()
        thread.join(10.0)
    arrivals = on_device_clock([(int(a), int(b), int(c), float(d)) for a, b, c, d in result.get("arrivals", [])])
    lost, received = int(result.get("samples_lost", 0)), int(result.get("samples_in", 0))
    return fault_row(
        f"SIGSTOP for {options.fault_s:g} s; the device holds about {_DEVICE_HOLDS_S:g} s",
        recovery_s=recovery_s(arrivals, end_ns),
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=lost,
        lost_bound=round(max(0.0, options.fault_s - _DEVICE_HOLDS_S) * RATE_HZ) + RATE_HZ // 100,
        accounted=received + lost == device.report.samples,
        arrivals=arrivals,
        wrong=[result["error"]] if "error" in result else [],
    )


def disk_full(bundle: Bundle, options: FaultOptions) -> Row:
    """The recording cannot grow any further: the session reports it, and the audio before remains readable."""
    import soundfile

    most = round(options.calm_s * RATE_HZ * 2)  # about two bytes a sample
    with tempfile.TemporaryDirectory() as folder:
        result = _result(_child("record", folder, str(most), options.bundle))
        kept, broken = 0, []
        for path in Path(folder).glob("*.flac"):
            try:
                kept += soundfile.info(str(path)).frames
            except soundfile.LibsndfileError as error:
                broken.append(f"the recording cannot be read: {error}")
        for path in Path(folder).glob("*.events.jsonl"):
            broken += _unreadable(path)
    if not result.get("typed"):
        broken.append(f"it ended with {result.get('error') or 'no error at all'} instead of a typed error")
    return fault_row(
        f"no file may grow beyond {most} bytes (RLIMIT_FSIZE)",
        recovery_s=None,
        recovery_bound_s=None,  # the session ends
        lost=max(0, int(result.get("received", 0)) - kept),
        lost_bound=round(RECORD_BOUND_S * RATE_HZ),
        accounted=True,
        wrong=broken,
        message=str(result.get("message", "")).replace(folder, "DIR"),
        recorded_s=kept / RATE_HZ,
    )


def _unreadable(events: Path) -> list[str]:
    lines = events.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[:-1]):  # the last line may be incomplete
        try:
            json.loads(line)
        except ValueError:
            return [f"line {number + 1} of the events cannot be read"]
    return []
