"""Stethoscopes for tests: the reference firmware in QEMU, the emulated device on a thread, a faulty cable."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from firmware_bridge.emulator.device import DeviceOptions, EmulatedDevice, EmulatorReport
from firmware_bridge.emulator.faults import Faults, FaultyWire
from firmware_bridge.emulator.port import open_device_port
from firmware_bridge.errors import LinkError, LinkVersionError
from firmware_bridge.link import DeviceLink, ResumePoint

C_FOLDER = Path(__file__).resolve().parents[2] / "firmware_bridge" / "c"
TABLE_RATE = 16000

_PACKAGES = {
    "gcc": "gcc",
    "make": "make",
    "clang": "clang libclang-rt-dev",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
}


def require(*tools: str) -> None:
    """Fail with the name of the package that provides a missing tool."""
    missing = [_PACKAGES[tool] for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"install {' '.join(missing)} (.ci/system-packages does), then run again")


def run(*command: str | Path, timeout_s: float = 120.0, **options: object) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(  # type: ignore[call-overload]
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout_s, check=False, **options
    )
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def build_firmware(folder: Path, wav: Path | None = None) -> tuple[Path, npt.NDArray[np.int16]]:
    """Build the reference firmware for QEMU; return it and the 16-bit, 16 kHz table that it plays."""
    require("make", "arm-none-eabi-gcc")
    run("make", "-C", C_FOLDER / "mps2-an385", f"BUILD={folder}", f"WAV={wav or ''}")
    return folder / "stethoscope.elf", np.fromfile(folder / "table.bin", "<i2")


class Qemu:
    """The firmware on an emulated Cortex-M3, its UART on a pseudo-terminal behind the stable name ``link``."""

    def __init__(self, firmware: Path, link: Path) -> None:
        require("qemu-system-arm")
        self._firmware, self.link = firmware, link
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = ["qemu-system-arm", "-M", "mps2-an385", "-kernel", str(self._firmware), "-display", "none"]
        self._process = subprocess.Popen(
            [*command, "-monitor", "none", "-serial", "pty"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        first_line = self._process.stdout.readline()
        found = re.search(r"/dev/pts/\d+", first_line)
        assert found, f"qemu-system-arm printed: {first_line}{self._process.stdout.read()}"
        fresh = self.link.with_suffix(".new")
        fresh.symlink_to(found.group())
        fresh.replace(self.link)

    def kill(self) -> None:
        """Like pulling the cable and the battery."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        with contextlib.suppress(FileNotFoundError):
            self.link.unlink()

    def __enter__(self) -> Qemu:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def noise(duration_s: float, rate_hz: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Noise of 16-bit values at no particular level: no two parts are alike."""
    rng = np.random.default_rng(seed)
    return (rng.integers(-32768, 32768, round(duration_s * rate_hz)) / np.float32(32768)).astype(np.float32)


@contextlib.contextmanager
def emulated(
    link: Path | str, samples: npt.NDArray[np.float32], options: DeviceOptions, faults: Faults | None = None
) -> Iterator[tuple[str, EmulatorReport]]:
    """An emulated device on a thread; yields what the host opens and the device's report."""

    def source() -> Iterator[npt.NDArray[np.float32]]:
        yield from np.array_split(samples, max(1, samples.size // 1000))

    port = open_device_port(str(link))
    device = EmulatedDevice(source, port, options, faults)
    port.plug()
    stop = threading.Event()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            device.run(stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield port.name, device.report
    finally:
        stop.set()
        thread.join(5.0)
    assert not failed and not thread.is_alive(), failed


class PtyRelay:
    """A bad cable: a pseudo-terminal whose bytes come from another one, damaged on the way to the host."""

    def __init__(
        self, device: str, wire: FaultyWire, *, to_device: Callable[[bytes], bytes] = lambda data: data
    ) -> None:
        self._device = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._device)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._wire, self._to_device = wire, to_device
        self.original = bytearray()  # what the device sent
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PtyRelay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5.0)
        for fd in (self._device, self._master, self._slave):
            os.close(fd)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the device is gone
            while not self._stop.is_set():
                ready, _, _ = select.select([self._device, self._master], [], [], 0.05)
                if self._device in ready:
                    data = os.read(self._device, 65536)
                    self.original += data
                    os.write(self._master, self._wire.damage(data))
                if self._master in ready:
                    os.write(self._device, self._to_device(os.read(self._master, 65536)))


def reopened(port: str, resume: ResumePoint | None, timeout_s: float) -> DeviceLink:
    """Open a link to a device that was away, as soon as it is back."""
    deadline = time.monotonic() + timeout_s
    while True:
        link = DeviceLink(port, resume=resume)
        try:
            link.open()
            return link
        except LinkVersionError:
            raise
        except LinkError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Wait for ``condition``; whether it came true before the timeout."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
