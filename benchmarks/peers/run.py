"""The SDK and its peers in the same rounds: front end, inference, stream, windows; sed_eval on the same events.

Every workload is a process of its own (``worker.py``); peers have their own environments. Ratios of CPU time are from
interleaved rounds, so that other load on the machine affects all workloads of a round alike.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.compare import ratio_interval
from benchmarks.core.energy import EnergyMeter
from benchmarks.core.harness import Row, machine_row, percentiles, round_order
from benchmarks.peers.contests import CONTESTS, TORCH, Contest, Maker
from benchmarks.peers.environments import interpreter
from benchmarks.peers.process import WorkerProcess
from edge_sdk.errors import StethoError
from edge_sdk.runtime.bundle.load import Bundle, load_bundle

_OURS = "ours"
_SLOW_TO_START = ("torchaudio", "librosa", *TORCH)  # left out of --quick


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """What to compare and for how long."""

    bundle: str = "default"
    seconds: float = 60.0  # of audio in one unit of work
    rounds: int = 30
    warm_up: int = 2
    quick: bool = False  # only peers that are importable here and start at once
    cache: Path | None = None  # of environments; None: the user's cache folder
    only: tuple[str, ...] = ()  # among CONTESTS; all where empty


def run_peers(options: PeerOptions, on_step: Callable[[str], None] | None = None) -> Iterator[Row]:
    """Rows: the machine, then one per workload; a peer that is left out is a row with ``failed``.

    ``cpu_ratio`` is our CPU time divided by the peer's (below 1: ours is less), the median over rounds;
    ``cpu_ratio_low`` and ``cpu_ratio_high`` are the ends of its 95 % interval. ``energy_ratio`` is the same of joules,
    only where the machine has a meter.
    """
    report_step = on_step or (lambda _: None)
    yield machine_row()
    bundle = load_bundle(options.bundle, allow_untrained=True)
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(bundle, options.bundle, max(8.0, options.seconds), Path(folder))
        for contest in maker.contests(options.only or CONTESTS):
            report_step(f"{contest.title}: {', '.join(contest.peers)}")
            yield from _run_contest(contest, bundle, options, Path(folder), report_step)


@dataclass
class Rounds:
    """What the rounds of a contest gave; a workload that failed once has no seconds."""

    cpu: dict[str, list[float]]  # seconds of each round
    wall: dict[str, list[float]]
    joules: dict[str, list[float]]  # of the whole machine; fewer than rounds where it has no meter
    energy_source: str | None = None
    interrupted: bool = False  # Ctrl-C ended it; the whole rounds before are kept

    @classmethod
    def of(cls, names: Iterable[str]) -> Rounds:
        """No round yet."""
        cpu, wall, joules = ({name: list[float]() for name in names} for _ in range(3))
        return cls(cpu, wall, joules)

    def keep(self, name: str, response: dict[str, Any], meter: EnergyMeter) -> None:
        """One unit of work."""
        self.cpu[name].append(response["cpu_s"])
        self.wall[name].append(response["wall_s"])
        if meter.joules is not None:
            self.joules[name].append(meter.joules)
            self.energy_source = meter.source

    def drop(self, name: str) -> None:
        """The workload failed."""
        for kept in (self.cpu, self.wall, self.joules):
            kept[name] = []

    def cut(self, whole: int) -> None:
        """Keep the whole rounds of an interrupted contest."""
        for kept in (self.cpu, self.wall, self.joules):
            for name in kept:
                kept[name] = kept[name][:whole]
        self.interrupted = True


def _run_contest(
    contest: Contest, bundle: Bundle, options: PeerOptions, folder: Path, on_step: Callable[[str], None]
) -> Iterator[Row]:
    about: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        workers: dict[str, WorkerProcess] = {}
        for name in (_OURS, *contest.peers):
            try:
                python, where = _environment(name, contest, options, on_step)
            except StethoError as error:
                yield _row(contest, bundle, name, {"failed": str(error)})
                continue
            settings = {**contest.settings}
            if contest.kind == "front-end":
                settings["keep"] = str(folder / f"frames-{name}.npy")
            workers[name] = stack.enter_context(WorkerProcess(python, f"{contest.kind}/{name}", settings, folder))
            about[name] = {"environment": where}
        for name in list(workers):
            response = workers[name].receive()
            about[name] |= {k: v for k, v in response.items() if k != "ready"}
            if "failed" in response:
                yield _row(contest, bundle, name, about[name])
                del workers[name]
        if _OURS not in workers:
            return
        if contest.kind == "events":
            yield from _agreement(contest, bundle, about)
            return
        rounds = _rounds(workers, options)
        for name in workers:
            if not rounds.cpu[name]:
                yield _row(contest, bundle, name, {**about[name], "failed": "its process died during the work"})
                continue
            more = dict(about[name])
            if name == _OURS and contest.kind == "stream" and not rounds.interrupted:
                more["stages"] = _shares(workers[name].request("profile"))
            if contest.kind == "front-end":
                more["largest_difference"] = _difference(folder, name)
            yield _row(contest, bundle, name, more | _figures(contest, rounds, name))
        if rounds.interrupted:
            raise KeyboardInterrupt


def _environment(name: str, contest: Contest, options: PeerOptions, on_step: Callable[[str], None]) -> tuple[str, str]:
    if name in (_OURS, "onnxruntime-default"):
        return sys.executable, "present environment"
    if options.quick and name in _SLOW_TO_START:
        raise StethoError(f"{name} takes long to start; run without --quick")
    return interpreter(contest.names.get(name, name), make=not options.quick, folder=options.cache, on_step=on_step)


def _rounds(workers: dict[str, WorkerProcess], options: PeerOptions) -> Rounds:
    """All workloads in turn, in another order each round; without a whole round, Ctrl-C is raised."""
    names, dead = list(workers), set()
    rounds = Rounds.of(names)
    try:
        for index in range(options.warm_up + options.rounds):
            for name in round_order(names, index):
                if name in dead:
                    continue
                with EnergyMeter() as meter:
                    response = workers[name].request("go")
                if "failed" in response:
                    dead.add(name)
                    rounds.drop(name)
                elif index >= options.warm_up:
                    rounds.keep(name, response, meter)
    except KeyboardInterrupt:
        whole = min((len(rounds.wall[name]) for name in names if name not in dead), default=0)
        if not whole:
            raise
        rounds.cut(whole)
    return rounds


def _figures(contest: Contest, rounds: Rounds, name: str) -> Row:
    cpu, wall, joules = (kept[name] for kept in (rounds.cpu, rounds.wall, rounds.joules))
    row: Row = {**percentiles(wall), "cpu_s": float(np.sum(cpu))}
    if contest.audio_s is not None:
        row["cpu_s_per_hour"] = float(np.median(cpu)) * 3600 / contest.audio_s
        row["audio_s"] = contest.audio_s
    row["samples_ms"] = [round(1e3 * s, 4) for s in cpu]
    if len(joules) == len(cpu):
        row |= {"joules": float(np.sum(joules)), "energy_source": rounds.energy_source}
    if name != _OURS and rounds.cpu[_OURS]:
        row["cpu_ratio"], low, high = ratio_interval(rounds.cpu[_OURS], cpu, paired=True)
        row["cpu_ratio_low"], row["cpu_ratio_high"] = low, high
        row["wall_ratio"] = ratio_interval(rounds.wall[_OURS], wall, paired=True)[0]
        if len(joules) == len(rounds.joules[_OURS]) == len(cpu):
            row["energy_ratio"] = ratio_interval(rounds.joules[_OURS], joules, paired=True)[0]
    return row


def _shares(stages: dict[str, Any]) -> dict[str, float]:
    if "failed" in stages:
        return {}
    total = sum(stages.values())
    return {name: seconds / total for name, seconds in stages.items()} if total else {}


def _difference(folder: Path, name: str) -> float | None:
    """Largest difference of the peer's log energies from ours; None for librosa, whose processing chain differs."""
    if name in (_OURS, "librosa"):
        return None
    ours, theirs = (_frames(folder / f"frames-{n}.npy") for n in (_OURS, name))
    count = min(len(ours), len(theirs))
    return float(np.abs(ours[:count] - theirs[:count]).max())


def _frames(path: Path) -> npt.NDArray[np.float32]:
    frames: npt.NDArray[np.float32] = np.load(path)
    return frames


def _agreement(contest: Contest, bundle: Bundle, about: dict[str, dict[str, Any]]) -> Iterator[Row]:
    for name, scores in about.items():
        if "failed" in scores:
            continue
        difference = abs(scores["f1"] - about[_OURS]["f1"])
        yield _row(contest, bundle, name, {**scores, "difference": difference, "agrees": difference < 1e-9})


def _row(contest: Contest, bundle: Bundle, name: str, figures: dict[str, Any]) -> Row:
    figures = dict(figures)
    subject = {
        "model": f"{bundle.manifest.name} {bundle.manifest.version}",
        "artefact": bundle.artefact.format,
        "engine": figures.pop("engine", None),
        "threads": figures.pop("threads", None),
        "batch": 1,
        "part": f"{contest.kind}: {name}" + _rate(contest.settings),
    }
    return {"benchmark": "peers", "subject": subject, "contest": contest.kind, "input": contest.title, **figures}


def _rate(settings: dict[str, Any]) -> str:
    return f" {settings['rate_hz']} Hz" if "rate_hz" in settings else ""
