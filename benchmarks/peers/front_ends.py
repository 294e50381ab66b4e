"""Front ends that ``bench peers`` times; each imports its library only when it is created."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.workload import PeerWorkload


class FrontEndWorkload(PeerWorkload):
    """Blocks of audio in, log-mel frames out as soon as they are complete."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        audio = np.load(settings["audio"])
        size = settings["block"]
        self.spec = settings["spec"]
        self.blocks = [audio[i : i + size] for i in range(0, audio.size - size + 1, size)]

    def go(self) -> object:
        frames = self.frames()
        if self.settings.get("keep"):
            np.save(self.settings["keep"], frames)
        return frames

    def frames(self) -> np.ndarray:
        """All log-mel frames, ``[T, M]``."""
        raise NotImplementedError

    def carried(self, frames_of: Callable[[np.ndarray], np.ndarray], least: int = 0) -> np.ndarray:
        """Frames of a function without state; samples that the next frames need are carried over."""
        held, out = np.zeros(0, np.float32), []
        for block in self.blocks:
            held = np.concatenate((held, block))
            if held.size >= least:
                out.append(frames_of(held))
                held = held[len(out[-1]) * self.spec["hop_samples"] :]
        return np.concatenate(out)


class OurFrontEnd(FrontEndWorkload):
    """The incremental front end of the SDK."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.signal.logmel import LogMel
        from edge_sdk.signal.spec import FrontEndSpec

        self.make = lambda: LogMel(FrontEndSpec.from_dict(self.spec), single=True)  # as in a stream; theirs is too

    def frames(self) -> np.ndarray:
        mel = self.make()
        return np.concatenate([mel.accept(block) for block in self.blocks])


class KnfFrontEnd(FrontEndWorkload):
    """kaldi-native-fbank, a streaming C++ library."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import kaldi_native_fbank as knf  # type: ignore[import-not-found]

        self.knf, spec = knf, self.spec
        options = self.options = knf.FbankOptions()
        frame, mel = options.frame_opts, options.mel_opts
        frame.samp_freq, frame.dither, frame.snip_edges = spec["rate_hz"], 0.0, True
        frame.frame_length_ms = 1000.0 * spec["frame_samples"] / spec["rate_hz"]
        frame.frame_shift_ms = 1000.0 * spec["hop_samples"] / spec["rate_hz"]
        frame.window_type, frame.remove_dc_offset = spec["window_type"], spec["remove_dc"]
        frame.preemph_coeff = spec["preemphasis"]
        mel.num_bins, mel.low_freq, mel.high_freq = spec["mel_bins"], spec["low_hz"], spec["high_hz"]
        options.use_energy = False

    def frames(self) -> np.ndarray:
        mel, rate = self.knf.OnlineFbank(self.options), self.spec["rate_hz"]
        out: list[Any] = []
        for block in self.blocks:
            mel.accept_waveform(rate, block)
            while len(out) < mel.num_frames_ready:
                out.append(mel.get_frame(len(out)))
        return np.array(out)


class TorchaudioFrontEnd(FrontEndWorkload):
    """``torchaudio.compliance.kaldi``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import torch
        from torchaudio.compliance import kaldi

        torch.set_num_threads(1)
        self.torch, spec = torch, self.spec
        self.fbank = lambda x: kaldi.fbank(
            x,
            sample_frequency=spec["rate_hz"],
            frame_length=1000.0 * spec["frame_samples"] / spec["rate_hz"],
            frame_shift=1000.0 * spec["hop_samples"] / spec["rate_hz"],
            num_mel_bins=spec["mel_bins"],
            low_freq=spec["low_hz"],
            high_freq=spec["high_hz"],
            window_type=spec["window_type"],
            remove_dc_offset=spec["remove_dc"],
            preemphasis_coefficient=spec["preemphasis"],
            dither=0.0,
        )

    def frames(self) -> np.ndarray:
        return self.carried(lambda x: self.fbank(self.torch.from_numpy(x)[None]).numpy())


class LibrosaFrontEnd(FrontEndWorkload):
    """``librosa.feature.melspectrogram``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import librosa

        self.fft = 1 << (self.spec["frame_samples"] - 1).bit_length()
        self.mel_of = lambda x: librosa.feature.melspectrogram(
            y=x,
            sr=self.spec["rate_hz"],
            n_fft=self.fft,
            win_length=self.spec["frame_samples"],
            hop_length=self.spec["hop_samples"],
            n_mels=self.spec["mel_bins"],
            fmin=self.spec["low_hz"],
            fmax=self.spec["high_hz"],
            center=False,
            htk=True,
            norm=None,
        )

    def frames(self) -> np.ndarray:
        floor = self.spec["log_floor"]
        return self.carried(lambda x: np.log(np.maximum(self.mel_of(x), floor)).T, self.fft)
