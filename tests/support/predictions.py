"""Outputs of the artefacts of bundles; needs only numpy and ONNX Runtime, so the Python of any board can run it.

python predictions.py BUNDLE...     # one JSON object a line
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # edge_sdk, which sets it elsewhere, is not there

import onnxruntime

STEPS = 40  # of the segmenter, its state carried over: 3.2 s of audio


def predictions(folder):  # type: ignore[no-untyped-def]  # Python 3.8 must read this file
    """A row per artefact: its output, the golden output of the bundle, and the allowed difference."""
    manifest = json.loads((folder / "bundle.json").read_text())
    with np.load(folder / manifest["golden"]["file"]) as golden:
        for artefact in manifest["artefacts"]:
            session = _session(folder / artefact["file"])
            feed = {i.name: golden["metadata_" + i.name] for i in session.get_inputs() if i.name != "pcm"}
            feed["pcm"] = golden["pcm"].astype(np.float32) / 32768
            yield {
                "bundle": folder.name,
                "artefact": artefact["format"],
                "output": session.run(None, feed)[0].ravel().tolist(),
                "golden": golden["logits_" + artefact["format"].replace("-", "_")].ravel().tolist(),
                "allowed": manifest["golden"]["tolerance"][artefact["format"]],
            }
    segmenter = manifest.get("segmenter") or {}
    if segmenter.get("file"):
        output = _steps(_session(folder / segmenter["file"]))
        yield {"bundle": folder.name, "artefact": "segmenter", "output": output}


def _session(path):  # type: ignore[no-untyped-def]
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine does
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _steps(session):  # type: ignore[no-untyped-def]
    """All outputs of all steps on random features, each state going into the next step."""
    rng = np.random.RandomState(0)  # its numbers are the same in every numpy
    shapes = {i.name: i.shape for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if name != "features"}
    found = []
    for _ in range(STEPS):
        features = (8 + 3 * rng.randn(*shapes["features"])).astype(np.float32)
        outputs = dict(zip(names, session.run(None, {"features": features, **state})))  # noqa: B905  # not in 3.8
        state = {name: outputs[name + "_next"] for name in state}
        found += [value for name in names for value in outputs[name].ravel().tolist()]
    return found


if __name__ == "__main__":
    print(json.dumps({"onnxruntime": onnxruntime.__version__}))
    for argument in sys.argv[1:]:
        for row in predictions(Path(argument)):
            print(json.dumps(row))
