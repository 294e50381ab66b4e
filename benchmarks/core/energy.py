"""Energy over a time span, where the machine measures it: RAPL counters on PCs, INA3221 sensors on Jetson."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PERIOD_S = 0.1  # between two readings of a power sensor
_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_GPU_SOC")  # the whole board's input on Jetson boards
_TEGRASTATS = re.compile(r"(?:VDD_IN|POM_5V_IN|VIN_SYS_5V0) (\d+)(?:mW)?/")

Reader = Callable[[], float]


def rapl_domains(root: Path = Path("/sys/class/powercap")) -> list[tuple[Path, float]]:
    """Readable package counters and the joules at which each wraps; parts of a package are not counted again."""
    found = []
    for folder in sorted(root.glob("*rapl:[0-9]*")):
        if folder.name.count(":") != 1:
            continue
        try:
            int((folder / "energy_uj").read_text())
            found.append((folder / "energy_uj", int((folder / "max_energy_range_uj").read_text()) / 1e6))
        except (OSError, ValueError):  # readable by root only, on most systems
            continue
    return found


def board_power(root: Path = Path("/sys/class/hwmon")) -> tuple[str, Reader] | None:
    """Name and reader (watts) of the rail that feeds the whole board; ``None`` without an INA3221."""
    rails: dict[str, Reader] = {}
    for folder in sorted(root.glob("hwmon*")):
        try:
            if (folder / "name").read_text().strip() != "ina3221":
                continue
        except OSError:
            continue
        for label in sorted(folder.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = folder / f"in{number}_input", folder / f"curr{number}_input"
            if volts.is_file() and amperes.is_file():
                rails[label.read_text().strip()] = _watts(volts, amperes)
    return next(((name, rails[name]) for name in _TOTAL_RAILS if name in rails), None)


def _watts(millivolts: Path, milliamperes: Path) -> Reader:
    return lambda: int(millivolts.read_text()) * int(milliamperes.read_text()) / 1e6


def tegrastats_watts(line: str) -> float | None:
    """Watts of the board's input in a line of ``tegrastats``."""
    found = _TEGRASTATS.search(line)
    return int(found.group(1)) / 1000 if found else None


class EnergyMeter:
    """Counts the joules of the whole machine (not of this process) inside a ``with`` block.

    ``joules`` and ``source`` are ``None`` on a machine without a readable meter.
    """

    def __init__(self, powercap: Path = Path("/sys/class/powercap"), hwmon: Path = Path("/sys/class/hwmon")) -> None:
        self.joules: float | None = None
        self.source: str | None = None
        self._domains = rapl_domains(powercap)
        self._rail = None if self._domains else board_power(hwmon)
        self._tegrastats = None if self._domains or self._rail else shutil.which("tegrastats")
        self._before: list[float] = []
        self._watts: list[tuple[float, float]] = []  # time, watts
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None

    @property
    def available(self) -> bool:
        """Whether the machine has a meter that this process may read."""
        return bool(self._domains or self._rail or self._tegrastats)

    def figures(self) -> dict[str, Any]:
        """Fields of a benchmark row after the ``with`` block; empty where nothing was measured."""
        return energy_of([self])

    def __enter__(self) -> EnergyMeter:
        if self._domains:
            self.source = "rapl"
            self._before = [_joules(path) for path, _ in self._domains]
        elif self._rail is not None:
            self.source = f"ina3221 {self._rail[0]}"
            self._start(self._poll)
        elif self._tegrastats is not None:
            self.source = "tegrastats"
            command = [self._tegrastats, "--interval", str(round(_PERIOD_S * 1000))]
            self._child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._start(self._read_tegrastats)
        return self

    def __exit__(self, *_: object) -> None:
        if self._domains:
            pairs = zip(self._domains, self._before, strict=True)
            # The counters of some virtual machines stand still: that is no energy of 0.
            self.joules = sum((_joules(path) - before) % wrap for (path, wrap), before in pairs) or None
            return
        self._stop.set()
        if self._child is not None:
            self._child.terminate()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._child is not None:
            self._child.wait(2.0)
        if len(self._watts) >= 2:
            steps = zip(self._watts, self._watts[1:], strict=False)
            self.joules = sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in steps)

    def _start(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="stetho-energy", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        assert self._rail is not None
        while True:
            last = self._stop.is_set()
            try:
                self._watts.append((time.monotonic(), self._rail[1]()))
            except (OSError, ValueError):
                return
            if last:
                return
            self._stop.wait(_PERIOD_S)

    def _read_tegrastats(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        for line in self._child.stdout:
            watts = tegrastats_watts(line)
            if watts is not None:
                self._watts.append((time.monotonic(), watts))


def energy_of(meters: Sequence[EnergyMeter]) -> dict[str, Any]:
    """Fields of a benchmark row for the spans of several meters; empty where one of them measured nothing."""
    joules = [meter.joules for meter in meters if meter.joules is not None]
    if not joules or len(joules) < len(meters):
        return {}
    return {"joules": sum(joules), "energy_source": meters[0].source}


def _joules(path: Path) -> float:
    return int(path.read_text()) / 1e6
