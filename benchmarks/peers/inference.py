"""Inference engines that ``bench peers`` times; each imports its library only when it is created."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.workload import PeerWorkload


class InferenceWorkload(PeerWorkload):
    """Cycles in the classifier's window, one after another."""

    logits: Callable[[np.ndarray], object]

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.windows = np.load(settings["windows"])  # [n, window]

    def go(self) -> object:
        return [self.logits(self.windows[i : i + 1]) for i in range(len(self.windows))]


class OurInference(InferenceWorkload):
    """The engine that the bundle selects."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.runtime.bundle.load import load_bundle

        bundle = load_bundle(settings["bundle"], artefact=settings["artefact"], threads=1, allow_untrained=True)
        self.logits = bundle.classifier.logits
        self.about = {"engine": bundle.engine.name, "threads": 1}


class DefaultOrtInference(InferenceWorkload):
    """ONNX Runtime with its default settings."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.runtime.engines.library import onnxruntime

        session = onnxruntime.InferenceSession(settings["onnx"], providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        self.logits = lambda window: session.run(None, {name: window})
        self.about = {"engine": f"onnxruntime-{onnxruntime.__version__} with its default threads"}


class TorchInference(InferenceWorkload):
    """The untrained network of the recipe in torch eager."""

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

    def eager(self, window: np.ndarray) -> object:
        with self.torch.inference_mode():
            return self.network(self.torch.from_numpy(window)).numpy()


class CompiledInference(TorchInference):
    """The same network compiled by torch, which calls a C++ compiler."""

    def __init__(self, settings: dict[str, Any]) -> None:
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise FileNotFoundError(
                f"torch.compile needs a C++ compiler and there is no {compiler}; install it or set CXX"
            )
        super().__init__(settings)
        self.network = self.torch.compile(self.network)
        before = time.perf_counter()
        self.logits(self.windows[:1])
        self.about = {**self.about, "compile_s": time.perf_counter() - before}
