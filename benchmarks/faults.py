"""Faults on purpose, each against a stated bound: time to recover, sound lost, and whether it is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.fault_child import Trace
from benchmarks.harness import Row, machine_row, percentiles
from benchmarks.live_sound import LiveSound, patient
from edge_sdk.events import CycleResult, Event, Health, StreamStats
from edge_sdk.runtime.bundle import Bundle, load_bundle
from edge_sdk.runtime.session import Session
from firmware_bridge.device_port import PtyPort
from firmware_bridge.emulator import DeviceOptions, EmulatedDevice
from firmware_bridge.faults import Faults, Unplug

RATE_HZ = 8000
ON_TIME_S = 0.1
"""A block that reaches the sink later than this after its capture is late."""

RECOVERY_BOUND_S = 1.0
"""Of faults in the computer: from their end until every block is on time."""

REPLUG_BOUND_S = 2.5
"""From the return of a device to its first sound: the pause between two looks is at most 1 s, and it must be opened."""

LOSS_GAP_BOUND_S = 0.25
"""Longest silence at the sink while frames are lost."""

RECORD_BOUND_S = 1.5
"""Sound that was heard but cannot be read from the recording when the disk is full."""

_BLOCK_S = 0.05
_JOINED_S = 0.25  # of blocks that a session hands over at once when it is behind
_LEAST_PATIENT_S = 4.0  # a breath must fit
_FRAME_BYTES = 185  # of 10 ms at 8 kHz on the wire
_DEVICE_HOLDS_S = 3.0  # its 64 KiB are at least that much sound, framing included
_CHILD_S = 60.0


@dataclass(frozen=True, slots=True)
class FaultOptions:
    """What to suffer, for how long."""

    bundle: str = "default"
    calm_s: float = 3.0  # before and after each fault
    fault_s: float = 5.0
    only: tuple[str, ...] = ()  # names of faults; all where empty

    @classmethod
    def quick(cls, bundle: str = "default", only: tuple[str, ...] = ()) -> FaultOptions:
        return cls(bundle=bundle, calm_s=0.2, fault_s=0.4, only=only)


def run(options: FaultOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then one a fault. ``passed`` is the finding; nothing is raised for it."""
    yield machine_row()
    bundle = load_bundle(options.bundle, allow_untrained=True)
    for name in options.only or FAULTS:
        if on_step is not None:
            on_step(name)
        begin = time.monotonic()
        row = FAULTS[name](bundle, options)
        subject = {
            "model": f"{bundle.manifest.name} {bundle.manifest.version}",
            "artefact": bundle.artefact.format,
            "engine": bundle.engine.name,
            "part": name,
        }
        yield {"benchmark": "faults", "subject": subject, **row, "wall_s": time.monotonic() - begin}


# -- what every row says -----------------------------------------------------------------------------------------------


def _row(
    fault: str,
    *,
    recovery_s: float | None,
    recovery_bound_s: float | None,
    lost: int,
    lost_bound: int,
    accounted: bool,
    arrivals: Sequence[tuple[int, int, int, float]] = (),
    **more: Any,
) -> Row:
    """``accounted``: the samples heard and the samples told as lost are exactly what the source had."""
    wrong = []
    if recovery_bound_s is not None and (recovery_s is None or recovery_s > recovery_bound_s):
        wrong.append("never recovered" if recovery_s is None else f"recovered after {recovery_s:.2f} s")
    if lost > lost_bound:
        wrong.append(f"lost {lost} samples")
    if not accounted:
        wrong.append("the count of lost samples is wrong")
    wrong += more.pop("wrong", [])
    row: Row = {
        "fault": fault,
        "recovery_s": recovery_s,
        "recovery_bound_s": recovery_bound_s,
        "lost_samples": lost,
        "lost_bound_samples": lost_bound,
        "sample_rate": RATE_HZ,
        "accounted": accounted,
        "passed": not wrong,
        "why": "; ".join(wrong),
        **more,
    }
    return row | (percentiles([a[3] for a in arrivals]) if arrivals else {})


def recovery_s(arrivals: Sequence[tuple[int, int, int, float]], end_ns: int) -> float | None:
    """Seconds from the end of a fault until the last late block is through; None when the last of all is late."""
    after = [a for a in arrivals if a[0] >= end_ns]
    late = [a[0] for a in after if a[3] > ON_TIME_S]
    if not after or (late and late[-1] == after[-1][0]):
        return None
    return (late[-1] - end_ns) / 1e9 if late else 0.0


def on_device_clock(arrivals: Sequence[tuple[int, int, int, float]]) -> list[tuple[int, int, int, float]]:
    """The same arrivals, late against the device's own sample clock, set by the block that came earliest by it.

    A serial link stamps a block when the host takes it: what waited in between would not show.
    """
    if not arrivals:
        return []
    due_s = [(first + n) / RATE_HZ for _, first, n, _ in arrivals]
    start_s = min(a[0] / 1e9 - due for a, due in zip(arrivals, due_s, strict=True))
    return [(*a[:3], a[0] / 1e9 - start_s - due) for a, due in zip(arrivals, due_s, strict=True)]


# -- this computer -----------------------------------------------------------------------------------------------------


class _Played:
    """A live session that was disturbed for a while."""

    def __init__(
        self,
        bundle: Bundle,
        options: FaultOptions,
        *,
        begin: Callable[[Trace], object],
        end: Callable[[Trace], object],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        queue_s: float = 2.0,
    ) -> None:
        self.sound = patient("asthma", RATE_HZ, max(_LEAST_PATIENT_S, 2 * options.calm_s + options.fault_s))
        self.source = LiveSound([self.sound], RATE_HZ, seconds=2 * options.calm_s + options.fault_s, block_s=_BLOCK_S)
        self.trace = Trace()
        self.health: list[Health] = []
        self.begin_ns = self.end_ns = 0
        session = Session(
            self.source, bundle, [self.trace], on_health=self.health.append, clock_ns=clock_ns, queue_s=queue_s
        )

        def disturb() -> None:
            time.sleep(options.calm_s)
            self.begin_ns = time.monotonic_ns()
            begin(self.trace)
            time.sleep(options.fault_s)
            end(self.trace)
            self.end_ns = time.monotonic_ns()

        hand = threading.Thread(target=disturb, name="fault", daemon=True)
        hand.start()
        try:
            self.stats: StreamStats = session.run()
        finally:
            hand.join()
        self.overload = session.overload

    @property
    def accounted(self) -> bool:
        return self.stats.samples_in + self.stats.samples_lost == self.source.delivered

    @property
    def recovery_s(self) -> float | None:
        return recovery_s(self.trace.arrivals, self.end_ns)

    def same_events_as_calm(self, bundle: Bundle) -> bool:
        """The breaths are those that the same samples give without time and threads."""
        stream = bundle.stream(RATE_HZ)
        calm = [*stream.accept(self.sound[: self.source.delivered]), *stream.finish()]
        return _breaths(calm) == _breaths(self.trace.events)


def _breaths(events: Sequence[Event]) -> list[tuple[int, int, str | None]]:
    return [(e.cycle.onset, e.cycle.end, e.label) for e in events if isinstance(e, CycleResult)]


def cpu_hog(bundle: Bundle, options: FaultOptions) -> Row:
    """Twice as many busy processes as cores."""
    count = 2 * (os.cpu_count() or 1)
    hogs: list[subprocess.Popen[bytes]] = []

    def begin(_: Trace) -> None:
        hogs.extend(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count))

    def end(_: Trace) -> None:
        for hog in hogs:
            hog.kill()
            hog.wait()

    try:
        played = _Played(bundle, options, begin=begin, end=end)
    finally:
        end(Trace())
    return _row(
        f"{count} busy processes for {options.fault_s:g} s",
        recovery_s=played.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=0,
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        skipped=played.stats.skipped,
    )


def slow_consumer(bundle: Bundle, options: FaultOptions) -> Row:
    """A sink that takes four times as long as the sound: answers go first, then the oldest sound, counted."""
    queue_s = min(2.0, options.fault_s / 2)

    def slow(trace: Trace) -> None:
        trace.slowness = 4.0

    def quick(trace: Trace) -> None:
        trace.slowness = 0.0

    played = _Played(bundle, options, begin=slow, end=quick, queue_s=queue_s)
    return _row(
        f"a sink at a quarter of the speed of life for {options.fault_s:g} s, {queue_s:g} s of queue",
        recovery_s=played.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=round(max(0.0, options.fault_s + 4 * _JOINED_S - queue_s) * RATE_HZ),
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        skipped=played.stats.skipped,
        dropped=played.overload.dropped,
    )


def wall_clock(bundle: Bundle, options: FaultOptions) -> Row:
    """The time of day leaps an hour ahead, then two back."""
    leap_s = [0.0]
    real, real_ns = time.time, time.time_ns

    def begin(_: Trace) -> None:
        leap_s[0] = 3600.0

    def end(_: Trace) -> None:
        leap_s[0] = -3600.0

    def told() -> float:
        return real() + leap_s[0]

    def told_ns() -> int:
        return real_ns() + round(leap_s[0] * 1e9)

    with mock.patch("time.time", told), mock.patch("time.time_ns", told_ns):
        played = _Played(bundle, options, begin=begin, end=end)
    same = played.same_events_as_calm(bundle)
    return _row(
        "the time of day, as this process is told it, is set 1 h ahead, then 2 h back",
        recovery_s=played.recovery_s,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=0,
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        same_events=same,
        wrong=[] if same else ["the events differ from those of an undisturbed run"],
    )


def monotonic_clock(bundle: Bundle, options: FaultOptions) -> Row:
    """The session's clock leaps ahead, as after a suspended computer wakes."""
    leap_ns = [0]

    def begin(_: Trace) -> None:
        leap_ns[0] = 30_000_000_000

    played = _Played(
        bundle, options, begin=begin, end=lambda _: None, clock_ns=lambda: time.monotonic_ns() + leap_ns[0]
    )
    well = not played.health or played.health[-1].state == "healthy"
    back = [h.at_ns - 30_000_000_000 for h in played.health if h.state == "healthy"]
    same = played.same_events_as_calm(bundle)
    return _row(
        "the monotonic clock leaps 30 s ahead",
        recovery_s=((back[-1] - played.begin_ns) / 1e9 if back else 0.0) if well else None,
        recovery_bound_s=RECOVERY_BOUND_S,
        lost=played.stats.samples_lost,
        lost_bound=0,
        accounted=played.accounted,
        arrivals=played.trace.arrivals,
        same_events=same,
        wrong=[] if same else ["the events differ from those of an undisturbed run"],
    )


# -- the device --------------------------------------------------------------------------------------------------------


@contextmanager
def _device(seconds: float, faults: Faults | None = None) -> Iterator[tuple[Path, EmulatedDevice, threading.Thread]]:
    """An emulated stethoscope on a pseudo-terminal that plays a patient once."""
    sound = patient("asthma", RATE_HZ, max(_LEAST_PATIENT_S, seconds))[: round(seconds * RATE_HZ)]
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
    from edge_sdk.sources.serial_link import SerialSource

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
    return _row(
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
    return _row(
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


# -- a process of its own ----------------------------------------------------------------------------------------------


def _child(*arguments: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    command = [sys.executable, "-m", "benchmarks.fault_child", *arguments]
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
    return _row(
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
    return _row(
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


FAULTS: dict[str, Callable[[Bundle, FaultOptions], Row]] = {
    "cpu-hog": cpu_hog,
    "slow-consumer": slow_consumer,
    "unplug": unplug,
    "frame-loss": frame_loss,
    "disk-full": disk_full,
    "clock-wall": wall_clock,
    "clock-monotonic": monotonic_clock,
    "sigstop": stop_and_continue,
}
"""Name → what does it."""
