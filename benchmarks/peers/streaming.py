"""Streaming loops that ``bench peers`` times; each imports its library only when it is created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.workload import PeerWorkload

SILERO_CONTEXT, SILERO_WINDOW = {8000: 32, 16000: 64}, {8000: 256, 16000: 512}


class OurStream(PeerWorkload):
    """Resampling, features, segmentation, classification: from samples to labelled cycles."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.runtime.bundle.load import load_bundle

        self.audio, self.rate = np.load(settings["audio"]), settings["rate_hz"]
        self.bundle = load_bundle(settings["bundle"], threads=1, allow_untrained=True)
        self.about = {"engine": self.bundle.engine.name, "segmenter": self.bundle.segmenter.kind}

    def go(self) -> object:
        return self.play(self.bundle.stream(self.rate))

    def play(self, stream: Any) -> object:
        block = self.rate * 32 // 1000  # block length of the peer
        events = [e for i in range(0, self.audio.size, block) for e in stream.accept(self.audio[i : i + block])]
        return [*events, *stream.finish()]

    def profile(self) -> dict[str, float]:
        """CPU seconds by stage."""
        from benchmarks.stream.stages import StageClock, timed_stream

        clock = StageClock()
        self.play(timed_stream(self.bundle, self.rate, clock))
        return {stage: sum(seconds) for stage, seconds in clock.seconds.items()}


class Silero(PeerWorkload):
    """The voice detector of silero-vad in ONNX Runtime with windows of 32 ms and the state machine of its iterator.

    The iterator of the package needs torch; this is the same loop in numpy, so that torch is not measured.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import importlib.metadata
        import importlib.util

        from edge_sdk.runtime.engines.library import onnxruntime

        found = importlib.util.find_spec("silero_vad")  # not imported: that needs torch
        assert found is not None and found.origin is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # as the package sets them
        model = Path(found.origin).parent / "data" / "silero_vad.onnx"
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.audio, self.rate = np.load(settings["audio"]), settings["rate_hz"]
        version = importlib.metadata.version("silero-vad")
        self.about = {"engine": f"silero-vad-{version}, onnxruntime-{onnxruntime.__version__}", "threads": 1}

    def go(self) -> object:
        window, context = SILERO_WINDOW[self.rate], SILERO_CONTEXT[self.rate]
        rate = np.array(self.rate, np.int64)
        state, before = np.zeros((2, 1, 128), np.float32), np.zeros((1, context), np.float32)
        speaking, quiet_from, found = False, 0, []
        for begin in range(0, self.audio.size - window + 1, window):
            samples = np.concatenate((before, self.audio[None, begin : begin + window]), axis=1)
            out, state = self.session.run(None, {"input": samples, "state": state, "sr": rate})
            before, probability, end = samples[:, -context:], float(out[0, 0]), begin + window
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
