"""Export a model, verify the bundle and load it: ``python export_and_verify.py OUT [CHECKPOINT]``.

Without a checkpoint a network with random weights is exported; such a bundle is for timing and refuses to screen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import edge_sdk
from edge_sdk.runtime.bundle.verification import verify_bundle
from export.export_bundle import ExportOptions, export_bundle


def main(out: Path, checkpoint: str | None) -> None:
    options = ExportOptions(model=checkpoint or "compact", out=out, untrained=checkpoint is None, formats="onnx-fp32")
    export_bundle(options, print)
    for check in verify_bundle(out):
        print("ok  " if check.ok else "FAIL", check.name, check.detail)
    bundle = edge_sdk.load_bundle(out, allow_untrained=True)
    print(bundle)
    try:
        edge_sdk.load_bundle(out)
    except edge_sdk.BundleError as error:
        print(f"refused: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
