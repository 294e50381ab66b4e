"""All recordings of a corpus at the model's rate in one array, cached on disk under a key of its inputs.

Kept in float32: rounding to 16 bits would drown the faint high bins that the device does receive.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk.corpora.audio import read_recording
from edge_sdk.files import own_folder, storing_in, whole_file
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.data_identity import digest_of

_log = logging.getLogger(__name__)
_FORMAT = 3  # part of the key: bump when the meaning of the stored samples changes

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass(frozen=True)
class AudioBank:
    """Concatenated recordings; recording ``i`` is ``samples[starts[i] : starts[i] + lengths[i]]``."""

    samples: Tensor  # [total] float32 in ±1
    starts: npt.NDArray[np.int64]  # [R]
    lengths: npt.NDArray[np.int64]  # [R]
    digests: tuple[str, ...] = ()  # [R] checksum of each file's samples and rate

    @cached_property
    def digest(self) -> str:
        """Checksum of all audio; of the files where they are known, so that no resampler changes it."""
        return digest_of(self.digests or (self.samples, self.lengths))

    @classmethod
    def load(
        cls, paths: Sequence[Path], spec: FrontEndSpec, *, cache: Path | None = None, progress: Progress | None = None
    ) -> AudioBank:
        """Read, resample and keep ``paths``; a second call with unchanged files reads one array instead.

        Raises
        ------
        AudioError
            A recording that cannot be read.
        """
        folder = cache or own_folder("cache")
        key = _key(paths, spec)
        store, index = folder / f"audio-{key}.npy", folder / f"audio-{key}.json"
        if store.is_file() and index.is_file():
            lengths, digests = json.loads(index.read_text(encoding="utf-8"))
            samples = np.load(store, allow_pickle=False)
        else:
            samples, lengths, digests = _read_all(paths, spec.rate_hz, progress)
            with storing_in("cache", folder):
                with whole_file(store) as draft, draft.open("wb") as file:
                    np.save(file, samples, allow_pickle=False)
                with whole_file(index) as draft:
                    draft.write_text(json.dumps([lengths, digests]), encoding="utf-8")
            _log.info("cached %d recordings in %s", len(paths), store)
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
        return cls(torch.from_numpy(samples), starts, np.array(lengths, dtype=np.int64), tuple(digests))

    @classmethod
    def joined(cls, banks: Sequence[AudioBank]) -> AudioBank:
        """The recordings of several banks in one, in order."""
        if len(banks) == 1:
            return banks[0]
        offsets = np.cumsum([0, *(len(bank.samples) for bank in banks[:-1])])
        return cls(
            torch.cat([bank.samples for bank in banks]),
            np.concatenate([bank.starts + offset for bank, offset in zip(banks, offsets, strict=True)]),
            np.concatenate([bank.lengths for bank in banks]),
            tuple(digest for bank in banks for digest in bank.digests),
        )

    def gather(
        self,
        start: Tensor,
        length: Tensor,
        window: int,
        speed: Tensor,
        phase: Tensor,
        *,
        crop: Literal["centre", "start"] = "centre",
    ) -> Tensor:
        """Cut excerpts, play them at ``speed`` and repeat them to ``window`` samples, as ``fit_window`` does.

        Parameters
        ----------
        start, length : Tensor
            ``[B]`` int64: first sample and number of samples of each excerpt.
        window : int
            Samples N of the result.
        speed : Tensor
            ``[B]`` playback speed, 1 as recorded; linear interpolation between samples.
        phase : Tensor
            ``[B]`` in [0, 1): where in the excerpt the window begins.
        crop : str
            Which part of an excerpt longer than the window is kept.

        Returns
        -------
        Tensor
            ``[B, N]`` float32 in ±1.
        """
        margin = ((length - window * speed) / 2).clamp(min=0.0).floor()  # left out at either end of a long excerpt
        if crop == "start":
            margin = torch.zeros_like(margin)
        position = cyclic_position(length, window, speed, phase) + margin[:, None]  # [B, N]
        floor = position.floor()
        share = position - floor
        index, last = floor.long(), (length - 1)[:, None]
        here = self.samples[start[:, None] + torch.minimum(index, last)]
        after = self.samples[start[:, None] + torch.minimum(index + 1, last)]
        return here + (after - here) * share


def cyclic_position(length: Tensor, window: int, speed: Tensor, phase: Tensor) -> Tensor:
    """Position of each sample of a window in its excerpt: ``[B, N]`` float32 in samples, from 0; see ``gather``."""
    kept = torch.minimum(length.float(), window * speed)[:, None]
    return torch.remainder(torch.arange(window) * speed[:, None] + phase[:, None] * kept, kept)


def _read_all(
    paths: Sequence[Path], rate_hz: int, progress: Progress | None
) -> tuple[npt.NDArray[np.float32], list[int], list[str]]:
    waves, digests = [], []
    for done, path in enumerate(paths):
        if progress is not None:
            progress("reading recordings", done, len(paths))
        samples, rate = read_recording(path)
        digests.append(digest_of(samples, rate))
        waves.append(resample(samples, rate, rate_hz).astype(np.float32, copy=False))
    if progress is not None:
        progress("reading recordings", len(paths), len(paths))
    return np.concatenate(waves), [wave.size for wave in waves], digests


def _key(paths: Sequence[Path], spec: FrontEndSpec) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {spec.rate_hz} {spec.resampler}".encode())
    for path in paths:
        stat = path.stat()
        digest.update(os.fsencode(path.resolve()) + f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]
