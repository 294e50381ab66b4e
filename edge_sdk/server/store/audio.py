"""Audio of recordings for the browser: 16-bit WAV through a listening filter, kept while there is room."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.server.settings import RequestError
from edge_sdk.server.store.recordings import StoredRecording
from edge_sdk.signal.listening import LISTENING_FILTERS, filter_blocks

_MOST_BYTES = 256 << 20
_BLOCK_S = 4.0


class RenderedAudio:
    """Files of filtered audio in a temporary folder, the longest unused of them deleted first. Thread-safe."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stetho-audio-")
        self._most_bytes = most_bytes
        self._files: OrderedDict[str, int] = OrderedDict()  # name → bytes, the latest used last
        self._lock = threading.Lock()

    def close(self) -> None:
        """Delete the files."""
        self._folder.cleanup()

    def wav(self, recording: StoredRecording, filter_name: str) -> Path:
        """Path of the WAV file.

        Raises
        ------
        RequestError
            No such filter (422), or the audio cannot be read (404).
        """
        if filter_name not in LISTENING_FILTERS:
            raise RequestError(422, f"the filter is one of {', '.join(LISTENING_FILTERS)}")
        try:
            found = recording.audio_file.stat()
        except OSError:
            raise RequestError(404, f"the audio of {recording.id} is missing") from None
        key = f"{recording.id} {filter_name} {found.st_mtime_ns} {found.st_size}"
        name = hashlib.sha256(key.encode()).hexdigest()[:32] + ".wav"
        path = Path(self._folder.name, name)
        with self._lock:  # one at a time: rendering takes the whole processor
            if name not in self._files:
                _render(recording.audio_file, path, filter_name)
                self._files[name] = path.stat().st_size
            self._files.move_to_end(name)
            while sum(self._files.values()) > self._most_bytes and len(self._files) > 1:
                oldest, _ = self._files.popitem(last=False)
                Path(self._folder.name, oldest).unlink(missing_ok=True)
        return path


def _render(source: Path, target: Path, filter_name: str) -> None:
    import soundfile

    try:
        with soundfile.SoundFile(str(source)) as audio:
            rate = int(audio.samplerate)
            with soundfile.SoundFile(
                str(target), "w", samplerate=rate, channels=1, subtype="PCM_16", format="WAV"
            ) as out:
                for block in filter_blocks(_blocks(audio, round(_BLOCK_S * rate)), filter_name, rate):
                    out.write(np.clip(block, -1.0, 1.0))
    except (RuntimeError, OSError) as error:
        target.unlink(missing_ok=True)
        raise RequestError(404, f"the audio cannot be read ({error})") from None


def _blocks(audio: object, size: int) -> Iterator[npt.NDArray[np.float32]]:
    for block in audio.blocks(blocksize=size, dtype="float32", always_2d=True):  # type: ignore[attr-defined]
        yield block[:, 0]
