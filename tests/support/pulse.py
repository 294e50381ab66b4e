"""A private PulseAudio: sound cards that a test plays into, plugs in and unplugs. Needs neither root nor hardware."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

_TOOLS = {"pulseaudio": "pulseaudio", "pactl": "pulseaudio-utils", "paplay": "pulseaudio-utils"}
_ALSA_PLUGIN = "libasound_module_pcm_pulse.so"


def _require_tools() -> None:
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if not any(Path("/usr/lib").glob(f"*/alsa-lib/{_ALSA_PLUGIN}")) and not list(Path("/usr/lib").glob(_ALSA_PLUGIN)):
        missing.add("libasound2-plugins")
    if missing:
        pytest.fail(f"install {' '.join(sorted(missing))} (.ci/system-packages does), then run again")


class Pulse:
    """A private daemon with its own home; the end of ``with`` kills it and every program started through it."""

    def __init__(self) -> None:
        _require_tools()
        self.home = Path(tempfile.mkdtemp(prefix="pa-"))  # short: a socket's path has 108 characters at most
        runtime = self.home / "run"
        runtime.mkdir(mode=0o700)
        self._socket = runtime / "native"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PULSE_", "DBUS_", "XDG_"))},
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "PULSE_RUNTIME_PATH": str(runtime),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        self._pcms: dict[str, str] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._describe()

    def __enter__(self) -> Pulse:
        native = f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}"
        options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-L", native]
        if os.geteuid() == 0:
            options.append("--log-level=error")
        self.start("pulseaudio", *options)
        deadline = time.monotonic() + 15
        while self._pactl("info", check=False).returncode != 0:
            if time.monotonic() > deadline:
                self._end()
                raise RuntimeError("pulseaudio did not start")
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that uses this daemon; it is killed at the end."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        running: subprocess.Popen[bytes] = subprocess.Popen(command, env=self.environment, **quiet)
        self._running.append(running)
        return running

    def cable(self, name: str, rate: int) -> None:
        """Add a sink that :meth:`play` plays into, and the microphone ``name`` that captures it."""
        sink = f"sink_name={name} rate={rate} format=s16le channels=1 channel_map=mono norewinds=1"
        self._pactl("load-module", "module-null-sink", *sink.split())
        self._pcms[name] = f"{name}.monitor"
        self._describe()

    def plug(self, name: str, rate: int) -> tuple[str, Path]:
        """Add a microphone fed from a FIFO; return the argument of :meth:`unplug` and the FIFO."""
        fifo = self.home / f"{name}.fifo"
        source = f"source_name={name} file={fifo} format=s16le rate={rate} channels=1 channel_map=mono"
        module = self._pactl("load-module", "module-pipe-source", *source.split()).stdout.strip()
        self._pcms[name] = name
        self._describe()
        return module, fifo

    def unplug(self, module: str) -> None:
        self._pactl("unload-module", module)

    def play(self, name: str, wav: Path) -> subprocess.Popen[bytes]:
        return self.start("paplay", f"--device={name}", "--latency-msec=200", str(wav))

    def captures(self) -> int:
        """Number of programs that capture now."""
        return len(self._pactl("list", "short", "source-outputs").stdout.splitlines())

    def wait_for_capture(self, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.captures():
            assert time.monotonic() < deadline, "no program opened the microphone"
            time.sleep(0.02)

    def _pactl(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        line = ["pactl", *command]
        return subprocess.run(
            line,
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=15,
            stdin=subprocess.DEVNULL,
        )

    def _describe(self) -> None:
        """Write ALSA's names of the microphones; PortAudio lists those with a hint."""
        text = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
        for name, device in self._pcms.items():
            text += f'pcm.{name} {{ type pulse device "{device}" hint {{ show on description "{name}" }} }}\n'
        (self.home / ".asoundrc").write_text(text)

    def _end(self) -> None:
        for running in reversed(self._running):
            if running.poll() is None:
                running.send_signal(signal.SIGKILL)
            running.wait(timeout=10)
            for stream in (running.stdout, running.stderr):
                if stream is not None:
                    stream.close()
        shutil.rmtree(self.home, ignore_errors=True)


def noise(seconds: float, rate: int, seed: int = 7) -> npt.NDArray[np.int16]:
    """Noise ``[n]`` in which no two parts are alike."""
    rng = np.random.default_rng(seed)
    return rng.integers(-12_000, 12_000, round(seconds * rate), dtype=np.int16)


def write_played(path: Path, samples: npt.NDArray[np.int16], rate: int, lead_s: float = 0.5) -> Path:
    """Write a wav that begins with silence, while the cable starts."""
    soundfile.write(path, np.concatenate([np.zeros(round(lead_s * rate), np.int16), samples]), rate, subtype="PCM_16")
    return path
