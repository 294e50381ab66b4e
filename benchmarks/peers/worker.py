"""One subject of ``bench peers`` in a process of its own: ``python worker.py SUBJECT SETTINGS.json``.

Needs of a peer's environment only numpy and the peer. Answers every line of standard input with one JSON object: ``go``
does one unit of work and tells its CPU and wall seconds, ``profile`` tells where the time goes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SILERO_CONTEXT, SILERO_WINDOW = {8000: 32, 16000: 64}, {8000: 256, 16000: 512}


class Subject:
    """Prepares in ``__init__``, does one unit of work in ``go``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.about: dict[str, Any] = {}

    def go(self) -> object:
        raise NotImplementedError

    def profile(self) -> dict[str, float]:
        return {}


# -- front end ---------------------------------------------------------------------------------------------------------


class FrontEnd(Subject):
    """Blocks of sound in, log-mel frames out, as they become complete."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        sound = np.load(settings["sound"])
        size = settings["block"]
        self.spec = settings["spec"]
        self.blocks = [sound[i : i + size] for i in range(0, sound.size - size + 1, size)]
        # What must be kept of one block for the frames of the next, by those who do not keep it themselves.
        self.carry = self.spec["frame_samples"] - self.spec["hop_samples"]

    def go(self) -> object:
        frames = self.frames()
        if self.settings.get("keep"):
            np.save(self.settings["keep"], frames)
        return frames

    def frames(self) -> np.ndarray:
        raise NotImplementedError


class OurFrontEnd(FrontEnd):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.signal.logmel import LogMel
        from edge_sdk.signal.spec import FrontEndSpec

        self.make = lambda: LogMel(FrontEndSpec.from_dict(self.spec))

    def frames(self) -> np.ndarray:
        mel = self.make()
        return np.concatenate([mel.accept(block) for block in self.blocks])


class KnfFrontEnd(FrontEnd):
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


class TorchaudioFrontEnd(FrontEnd):
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
        held, out = np.zeros(0, np.float32), []
        for block in self.blocks:
            held = np.concatenate((held, block))
            frames = self.fbank(self.torch.from_numpy(held)[None]).numpy()
            out.append(frames)
            held = held[len(frames) * self.spec["hop_samples"] :]
        return np.concatenate(out)


class LibrosaFrontEnd(FrontEnd):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import librosa

        self.librosa, self.fft = librosa, 1 << (self.spec["frame_samples"] - 1).bit_length()
        self.frames_of = lambda x: librosa.feature.melspectrogram(
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
        held, out = np.zeros(0, np.float32), []
        for block in self.blocks:
            held = np.concatenate((held, block))
            if held.size < self.fft:
                continue
            frames = np.log(np.maximum(self.frames_of(held), self.spec["log_floor"])).T
            out.append(frames)
            held = held[len(frames) * self.spec["hop_samples"] :]
        return np.concatenate(out)


# -- inference ---------------------------------------------------------------------------------------------------------


class Inference(Subject):
    """Breaths in the classifier's window, one after the other."""

    logits: Callable[[np.ndarray], object]

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.clips = np.load(settings["clips"])  # [n, window]

    def go(self) -> object:
        return [self.logits(self.clips[i : i + 1]) for i in range(len(self.clips))]


class OurInference(Inference):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.runtime.bundle.load import load_bundle

        bundle = load_bundle(settings["bundle"], artefact=settings["artefact"], threads=1, allow_untrained=True)
        self.logits = bundle.logits
        self.about = {"engine": bundle.engine.name, "threads": 1}


class DefaultOrtInference(Inference):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import onnxruntime

        session = onnxruntime.InferenceSession(settings["onnx"], providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        self.logits = lambda clip: session.run(None, {name: clip})
        self.about = {"engine": f"onnxruntime-{onnxruntime.__version__} with its default threads"}


class TorchInference(Inference):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import torch

        from edge_sdk.models.layers.front_end import FoldedFrontEnd
        from edge_sdk.models.registry import build_model
        from edge_sdk.signal.spec import FrontEndSpec

        torch.set_num_threads(1)
        spec, part = FrontEndSpec.from_dict(settings["spec"]), settings["model"]
        network = build_model(
            part["name"],
            size=part["size"],
            classes=settings["classes"],
            front_end=spec,
            options=part.get("options"),
        )
        self.torch, self.network = torch, torch.nn.Sequential(FoldedFrontEnd(spec), network).eval()
        self.logits = self.eager
        self.about = {"engine": f"torch-{torch.__version__}", "threads": 1}

    def eager(self, clip: np.ndarray) -> object:
        with self.torch.inference_mode():
            return self.network(self.torch.from_numpy(clip)).numpy()


class CompiledInference(TorchInference):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.network = self.torch.compile(self.network)
        before = time.perf_counter()
        self.logits(self.clips[:1])
        self.about = {**self.about, "compile_s": time.perf_counter() - before}


# -- streaming ---------------------------------------------------------------------------------------------------------


class OurStream(Subject):
    """Resample, features, segment, classify: samples to labelled breaths."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.runtime.bundle.load import load_bundle

        self.sound, self.rate = np.load(settings["sound"]), settings["rate_hz"]
        self.bundle = load_bundle(settings["bundle"], threads=1, allow_untrained=True)
        self.about = {"engine": self.bundle.engine.name, "segmenter": self.bundle.segmenter.kind}

    def go(self) -> object:
        return self.play(self.bundle.stream(self.rate))

    def play(self, stream: Any) -> object:
        block = self.rate * 32 // 1000  # the block of the peer
        events = [e for i in range(0, self.sound.size, block) for e in stream.accept(self.sound[i : i + block])]
        return [*events, *stream.finish()]

    def profile(self) -> dict[str, float]:
        """CPU seconds by stage."""
        from benchmarks.stream.stages import StageClock, timed_stream

        clock = StageClock()
        self.play(timed_stream(self.bundle, self.rate, clock))
        return {stage: sum(seconds) for stage, seconds in clock.seconds.items()}


class Silero(Subject):
    """The voice detector of silero-vad over ONNX Runtime in windows of 32 ms, with the iterator's state machine.

    The package's own iterator needs torch; this is the same loop in numpy, so that torch is not what is measured.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import importlib.metadata
        import importlib.util

        import onnxruntime

        found = importlib.util.find_spec("silero_vad")  # not imported: that needs torch
        assert found is not None and found.origin is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # as the package sets them
        model = Path(found.origin).parent / "data" / "silero_vad.onnx"
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.sound, self.rate = np.load(settings["sound"]), settings["rate_hz"]
        version = importlib.metadata.version("silero-vad")
        self.about = {"engine": f"silero-vad-{version}, onnxruntime-{onnxruntime.__version__}", "threads": 1}

    def go(self) -> object:
        window, context = SILERO_WINDOW[self.rate], SILERO_CONTEXT[self.rate]
        rate = np.array(self.rate, np.int64)
        state, before = np.zeros((2, 1, 128), np.float32), np.zeros((1, context), np.float32)
        speaking, quiet_from, found = False, 0, []
        for begin in range(0, self.sound.size - window + 1, window):
            heard = np.concatenate((before, self.sound[None, begin : begin + window]), axis=1)
            out, state = self.session.run(None, {"input": heard, "state": state, "sr": rate})
            before, probability, end = heard[:, -context:], float(out[0, 0]), begin + window
            if probability >= 0.5:
                quiet_from = 0
                if not speaking:
                    speaking = True
                    found.append({"start": begin})
            elif speaking and probability < 0.35:
                quiet_from = quiet_from or end
                if end - quiet_from >= self.rate // 10:
                    speaking, quiet_from = False, 0
                    found.append({"end": end})
        return found


# -- events ------------------------------------------------------------------------------------------------------------


class SedEval(Subject):
    """Event scores of sed_eval on given events."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import sed_eval
        from dcase_util.containers import MetaDataContainer

        self.sed_eval = sed_eval
        self.recordings = [
            [
                MetaDataContainer(
                    [{"filename": f"{number}.wav", "event_label": "breath", "onset": b, "offset": e} for b, e in spans]
                )
                for spans in (row["truth"], row["found"])
            ]
            for number, row in enumerate(settings["events"])
        ]
        self.about = {"f1": self.go(), "engine": f"sed_eval-{sed_eval.__version__}"}

    def go(self) -> object:
        metric = self.sed_eval.sound_event.EventBasedMetrics(["breath"], t_collar=0.2, percentage_of_length=0.5)
        for truth, found in self.recordings:
            metric.evaluate(reference_event_list=truth, estimated_event_list=found)
        return metric.results_overall_metrics()["f_measure"]["f_measure"]


class OurEvents(Subject):
    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.metrics.events import f1
        from edge_sdk.metrics.matching import match_collar

        self.match, self.f1 = match_collar, f1
        self.about = {"f1": self.go()}

    def go(self) -> object:
        rows = self.settings["events"]
        matched = sum(len(self.match(r["truth"], r["found"], 0.2)) for r in rows)
        return self.f1(matched, sum(len(r["truth"]) for r in rows), sum(len(r["found"]) for r in rows))


SUBJECTS: dict[str, type[Subject]] = {
    "front-end/ours": OurFrontEnd,
    "front-end/kaldi-native-fbank": KnfFrontEnd,
    "front-end/torchaudio": TorchaudioFrontEnd,
    "front-end/librosa": LibrosaFrontEnd,
    "inference/ours": OurInference,
    "inference/torch-eager": TorchInference,
    "inference/torch-compile": CompiledInference,
    "inference/onnxruntime-default": DefaultOrtInference,
    "stream/ours": OurStream,
    "stream/silero-vad": Silero,
    "events/ours": OurEvents,
    "events/sed_eval": SedEval,
}


def serve(subject: Subject) -> None:
    _say({"ready": True, **subject.about})
    for line in sys.stdin:
        if line.strip() == "profile":
            _say(subject.profile())
            continue
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        subject.go()
        _say({"wall_s": (time.perf_counter_ns() - wall) / 1e9, "cpu_s": (time.process_time_ns() - cpu) / 1e9})


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    sys.path[:0] = _settings.get("paths", [])
    try:
        _subject = SUBJECTS[sys.argv[1]](_settings)
    except Exception as error:  # told to whoever asked
        _say({"failed": f"{type(error).__name__}: {error}"})
        raise SystemExit(0) from None
    serve(_subject)
