"""The SDK and its peers in the same rounds: front end, inference, streaming loop; sed_eval on the same events.

Every workload is a process of its own (``worker.py``); peers have their own environments. Ratios of CPU time are from
interleaved rounds, so that other load on the machine affects all workloads of a round alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.compare import ratio_interval
from benchmarks.core.audio import phantom_samples
from benchmarks.core.harness import Row, machine_row, percentiles
from benchmarks.peers.environments import interpreter
from edge_sdk.errors import StethoError
from edge_sdk.runtime.bundle.load import Bundle, load_bundle, resolve_bundle
from edge_sdk.signal.padding import fit_window

BLOCK_S = 0.08
"""Block length of the front-end comparison."""

CONTESTS = ("front-end", "inference", "stream", "events")

_TIMEOUT_S = 900.0  # for a start or a unit of work; torch.compile takes minutes on busy cores
_WORKER = Path(__file__).with_name("worker.py")
_ROOT = Path(__file__).resolve().parents[2]
_OURS = "ours"
_TORCH = ("torch-eager", "torch-compile")
_SLOW_TO_START = ("torchaudio", "librosa", "torch-eager", "torch-compile")  # left out of --quick


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
    ``cpu_ratio_low`` and ``cpu_ratio_high`` are the ends of its 95 % interval.
    """
    report_step = on_step or (lambda _: None)
    yield machine_row()
    bundle = load_bundle(options.bundle, allow_untrained=True)
    with tempfile.TemporaryDirectory() as folder:
        for contest in _contests(bundle, options, Path(folder)):
            if options.only and contest.kind not in options.only:
                continue
            report_step(f"{contest.title}: {', '.join(contest.peers)}")
            yield from _run_contest(contest, bundle, options, Path(folder), report_step)


_Seconds: TypeAlias = dict[str, list[float]]
"""Name of the workload → seconds of each round."""


@dataclass(frozen=True, slots=True)
class _Contest:
    kind: str
    title: str
    peers: tuple[str, ...]
    settings: dict[str, Any]
    audio_s: float | None = None  # in one unit of work
    names: dict[str, str] = field(default_factory=dict)  # peer → name of its environment, where it is another


def _contests(bundle: Bundle, options: PeerOptions, folder: Path) -> Iterator[_Contest]:
    spec = bundle.front_end
    seconds = max(8.0, options.seconds)
    samples = phantom_samples("pneumonia", spec.rate_hz, seconds)
    model = (bundle.manifest.training.get("recipe") or {}).get("model")
    common = {"paths": [str(_ROOT)], "bundle": options.bundle, "spec": spec.to_dict()}
    scaled = {**spec.to_dict(), "scale": 1.0}  # peers take the samples as they are
    np.save(folder / "audio.npy", samples * np.float32(spec.scale))
    block = round(BLOCK_S * spec.rate_hz)
    yield _Contest(
        "front-end",
        f"front end, {1000 * BLOCK_S:g}-ms blocks at {spec.rate_hz} Hz",
        ("kaldi-native-fbank", "torchaudio", "librosa"),
        {**common, "spec": scaled, "audio": str(folder / "audio.npy"), "block": block},
        samples.size // block * block / spec.rate_hz,
    )
    np.save(folder / "windows.npy", np.stack([fit_window(c, spec) for c in np.array_split(samples, int(seconds // 4))]))
    inference = {
        **common,
        "windows": str(folder / "windows.npy"),
        "artefact": bundle.artefact.format,
        "onnx": str((resolve_bundle(options.bundle) / bundle.artefact.file).resolve()),
        "model": model,
        "classes": len(bundle.labels),
    }
    yield _Contest(
        "inference",
        "inference of one breath after the other",
        ("onnxruntime-default", *_TORCH),
        inference,
        names=dict.fromkeys(_TORCH, "torchaudio"),
    )
    for rate in (8000, 16000):
        np.save(folder / f"audio{rate}.npy", phantom_samples("pneumonia", rate, seconds))
        settings = {**common, "audio": str(folder / f"audio{rate}.npy"), "rate_hz": rate}
        yield _Contest("stream", f"streaming loop at {rate} Hz", ("silero-vad",), settings, seconds)
    yield _Contest("events", "event scores", ("sed_eval",), {**common, "events": _events(20)})


def _events(count: int) -> list[dict[str, Any]]:
    """True cycles, and those that an imperfect detector could find."""
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(count):
        begins = np.cumsum(rng.uniform(2.0, 4.0, 8))
        truth = np.stack((begins, begins + rng.uniform(1.0, 2.0, 8)), axis=1)
        found = truth[rng.random(8) < 0.85] + rng.normal(0.0, 0.15, 2)
        rows.append({"truth": truth.tolist(), "found": found.tolist()})
    return rows


# -- one contest -------------------------------------------------------------------------------------------------------


class _WorkerProcess:
    """A workload in a process of its own."""

    def __init__(self, python: str, workload: str, settings: dict[str, Any], folder: Path) -> None:
        path = folder / f"{workload.replace('/', '-')}.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | one_thread
        self._process = subprocess.Popen(
            [python, str(_WORKER), workload, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C must not reach it: the parent keeps the rounds so far and then kills it
        )

    def __enter__(self) -> _WorkerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def receive(self) -> dict[str, Any]:
        """The next response; ``{"failed": ...}`` where the process died."""
        assert self._process.stdout is not None
        limit = threading.Timer(_TIMEOUT_S, self._process.kill)
        limit.start()
        try:
            for line in self._process.stdout:
                if line.startswith("{"):  # libraries may print
                    response: dict[str, Any] = json.loads(line)
                    return response
        finally:
            limit.cancel()
        return {
            "failed": f"its process ended with status {self._process.wait()}, or gave no response for {_TIMEOUT_S:g} s"
        }

    def request(self, command: str) -> dict[str, Any]:
        """Send a command and return the response."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except OSError as error:
            return {"failed": str(error)}
        return self.receive()


def _run_contest(
    contest: _Contest, bundle: Bundle, options: PeerOptions, folder: Path, on_step: Callable[[str], None]
) -> Iterator[Row]:
    about: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        workers: dict[str, _WorkerProcess] = {}
        for name in (_OURS, *contest.peers):
            try:
                python, where = _environment(name, contest, options, on_step)
            except StethoError as error:
                yield _row(contest, bundle, name, {"failed": str(error)})
                continue
            settings = {**contest.settings}
            if contest.kind == "front-end":
                settings["keep"] = str(folder / f"frames-{name}.npy")
            workers[name] = stack.enter_context(_WorkerProcess(python, f"{contest.kind}/{name}", settings, folder))
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
        cpu, wall, interrupted = _rounds(workers, options)
        for name in workers:
            if len(cpu[name]) == 0:
                yield _row(contest, bundle, name, {**about[name], "failed": "its process died during the work"})
                continue
            more = dict(about[name])
            if name == _OURS and contest.kind == "stream" and not interrupted:
                more["stages"] = _shares(workers[name].request("profile"))
            if contest.kind == "front-end":
                more["largest_difference"] = _difference(folder, name)
            yield _row(contest, bundle, name, more | _figures(contest, cpu, wall, name))
        if interrupted:
            raise KeyboardInterrupt


def _environment(name: str, contest: _Contest, options: PeerOptions, on_step: Callable[[str], None]) -> tuple[str, str]:
    if name in (_OURS, "onnxruntime-default"):
        return sys.executable, "present environment"
    if options.quick and name in _SLOW_TO_START:
        raise StethoError(f"{name} takes long to start; run without --quick")
    return interpreter(contest.names.get(name, name), make=not options.quick, folder=options.cache, on_step=on_step)


def _rounds(workers: dict[str, _WorkerProcess], options: PeerOptions) -> tuple[_Seconds, _Seconds, bool]:
    """CPU and wall seconds per round, in rotating order; a workload that fails once has none.

    The last item is whether Ctrl-C ended it: the whole rounds before are kept; without any, Ctrl-C is raised.
    """
    cpu: _Seconds = {name: [] for name in workers}
    wall: _Seconds = {name: [] for name in workers}
    names, dead = list(workers), set()
    try:
        for index in range(options.warm_up + options.rounds):
            shift = index % len(names)
            for name in names[shift:] + names[:shift]:
                if name in dead:
                    continue
                response = workers[name].request("go")
                if "failed" in response:
                    dead.add(name)
                    cpu[name], wall[name] = [], []
                elif index >= options.warm_up:
                    cpu[name].append(response["cpu_s"])
                    wall[name].append(response["wall_s"])
    except KeyboardInterrupt:
        whole = min((len(wall[name]) for name in names if name not in dead), default=0)
        if not whole:
            raise
        kept = [{name: spent[:whole] for name, spent in seconds.items()} for seconds in (cpu, wall)]
        return kept[0], kept[1], True
    return cpu, wall, False


def _figures(contest: _Contest, cpu: dict[str, list[float]], wall: dict[str, list[float]], name: str) -> Row:
    row: Row = {**percentiles(wall[name]), "cpu_s": float(np.sum(cpu[name]))}
    if contest.audio_s is not None:
        row["cpu_s_per_hour"] = float(np.median(cpu[name])) * 3600 / contest.audio_s
        row["audio_s"] = contest.audio_s
    row["samples_ms"] = [round(1e3 * s, 4) for s in cpu[name]]
    if name != _OURS:
        row["cpu_ratio"], low, high = ratio_interval(cpu[_OURS], cpu[name], paired=True)
        row["cpu_ratio_low"], row["cpu_ratio_high"] = low, high
        row["wall_ratio"] = ratio_interval(wall[_OURS], wall[name], paired=True)[0]
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


def _agreement(contest: _Contest, bundle: Bundle, about: dict[str, dict[str, Any]]) -> Iterator[Row]:
    for name, scores in about.items():
        if "failed" in scores:
            continue
        difference = abs(scores["f1"] - about[_OURS]["f1"])
        yield _row(contest, bundle, name, {**scores, "difference": difference, "agrees": difference < 1e-9})


def _row(contest: _Contest, bundle: Bundle, name: str, figures: dict[str, Any]) -> Row:
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
