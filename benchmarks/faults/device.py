"""Faults of the device and of the process that hears it: cable, lost frames, a stopped process, a full disk."""

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

from benchmarks.core.harness import Row
from benchmarks.core.live_audio import patient
from benchmarks.faults.child import Trace
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
"""From the return of a device to its first sound: the pause between two looks is at most 1 s, and it must be opened."""

LOSS_GAP_BOUND_S = 0.25
"""Longest silence at the sink while frames are lost."""

RECORD_BOUND_S = 1.5
"""Sound that was heard but cannot be read from the recording when the disk is full."""

_FRAME_BYTES = 185  # of 10 ms at 8 kHz on the wire
_DEVICE_HOLDS_S = 3.0  # its 64 KiB are at least that much sound, framing included
_CHILD_S = 60.0


@contextmanager
def _device(seconds: float, faults: Faults | None = None) -> Iterator[tuple[Path, EmulatedDevice, threading.Thread]]:
    """An emulated stethoscope on a pseudo-terminal that plays a patient once."""
    sound = patient("asthma", RATE_HZ, max(LEAST_PATIENT_S, seconds))[: round(seconds * RATE_HZ)]
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "stethoscope"
        port = PtyPort(link)
        port.plug()
        device = EmulatedDevice(lambda: [sound], port, DeviceOptions(rate_hz=RATE_HZ, once=True), faults)
        stop = threading.Event()
        thread = threading.Thread(target=device.run, args=(stop,), name="emulated device", daemon=True)
        thread.start()
        try:
            yield link, device, thread
        finally:
            stop.set()
            thread.join(10.0)


def _hear(bundle: Bundle, link: Path) -> tuple[Trace, StreamStats]:
    from edge_sdk.sources.serial import SerialSource

    trace = Trace()
    stats = Session(SerialSource(str(link)), bundle, [trace], give_up_s=10.0).run()
    return trace, stats


def unplug(bundle: Bundle, options: FaultOptions) -> Row:
    """The cable is pulled and put back; the device runs on."""
    away_s = options.fault_s
    seconds = options.calm_s + away_s + max(options.calm_s, 1.0)
    with _device(seconds, Faults(unplugs=(Unplug(options.calm_s, away_s),))) as (link, device, thread):
        trace, stats = _hear(bundle, link)
        thread.join(10.0)
    times = np.array([a[0] for a in trace.arrivals])
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


def frame_loss(bundle: Bundle, options: FaultOptions) -> Row:
    """One frame of twenty is damaged on the wire."""
    seconds = 2 * options.calm_s + options.fault_s
    with _device(seconds, Faults(drop_every=20.0 * _FRAME_BYTES)) as (link, device, thread):
        trace, stats = _hear(bundle, link)
        thread.join(10.0)
    report, block = device.report, RATE_HZ // 100
    gaps_s = np.diff([a[0] for a in trace.arrivals]) / 1e9
    return fault_row(
        f"{report.drops} stretches of up to 64 bytes lost among {report.frames} frames (one of twenty)",
        recovery_s=float(gaps_s.max()) if gaps_s.size else None,
        recovery_bound_s=LOSS_GAP_BOUND_S,
        lost=stats.samples_lost,
        lost_bound=2 * block * report.drops,  # a stretch touches two frames at most
        accounted=stats.samples_in + stats.samples_lost == report.samples,
        arrivals=on_device_clock(trace.arrivals),
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


def _last_words(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The child's result; empty with ``"error"`` where it died."""
    try:
        out, problem = child.communicate(timeout=_CHILD_S)
        words: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        child.kill()
        out, problem = child.communicate()
        return {"error": " ".join(problem.split())[-300:] or "the process said nothing"}
    return words


def stop_and_continue(bundle: Bundle, options: FaultOptions) -> Row:
    """SIGSTOP, later SIGCONT, to a process that hears a serial stethoscope."""
    seconds = 2 * options.calm_s + options.fault_s + 0.5
    end_ns = 0
    with _device(seconds) as (link, device, thread):
        child = _child("listen", str(link), options.bundle)
        assert child.stdout is not None
        try:
            child.stdout.readline()  # the first block has come
            time.sleep(options.calm_s)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(options.fault_s)
            os.kill(child.pid, signal.SIGCONT)
            end_ns = time.monotonic_ns()
            words = _last_words(child)
        finally:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
            child.kill()
            child.wait()
        thread.join(10.0)
    arrivals = on_device_clock([(int(a), int(b), int(c), float(d)) for a, b, c, d in words.get("arrivals", [])])
    lost, heard = int(words.get("samples_lost", 0)), int(words.get("samples_in", 0))
    return fault_row(
        f"SIGSTOP for {options.fault_s:g} s; the device holds about {_DEVICE_HOLDS_S:g} s",
        recovery_s=recovery_s(arrivals, end_ns),
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=lost,
        lost_bound=round(max(0.0, options.fault_s - _DEVICE_HOLDS_S) * RATE_HZ) + RATE_HZ // 100,
        accounted=heard + lost == device.report.samples,
        arrivals=arrivals,
        wrong=[words["error"]] if "error" in words else [],
    )


def disk_full(bundle: Bundle, options: FaultOptions) -> Row:
    """The recording may not grow any further: the session says so, and what was heard before can be read."""
    import soundfile

    most = round(options.calm_s * RATE_HZ * 2)  # about two bytes a sample
    with tempfile.TemporaryDirectory() as folder:
        words = _last_words(_child("record", folder, str(most), options.bundle))
        kept, broken = 0, []
        for path in Path(folder).glob("*.flac"):
            try:
                kept += soundfile.info(str(path)).frames
            except soundfile.LibsndfileError as error:
                broken.append(f"the recording cannot be read: {error}")
        for path in Path(folder).glob("*.events.jsonl"):
            broken += _unreadable(path)
    if not words.get("typed"):
        broken.append(f"it ended with {words.get('error') or 'no error at all'} instead of a typed error")
    return fault_row(
        f"no file may grow beyond {most} bytes (RLIMIT_FSIZE)",
        recovery_s=None,
        recovery_bound_s=None,  # the session ends
        lost=max(0, int(words.get("heard", 0)) - kept),
        lost_bound=round(RECORD_BOUND_S * RATE_HZ),
        accounted=True,
        wrong=broken,
        message=str(words.get("message", "")).replace(folder, "DIR"),
        recorded_s=kept / RATE_HZ,
    )


def _unreadable(events: Path) -> list[str]:
    lines = events.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[:-1]):  # the last one may be cut short
        try:
            json.loads(line)
        except ValueError:
            return [f"line {number + 1} of the events cannot be read"]
    return []
