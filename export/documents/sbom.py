"""Software bill of materials of a bundle, in CycloneDX 1.6: its files with hashes, and the tools that made them.

https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import uuid
from collections.abc import Mapping
from typing import Any

from edge_sdk.runtime.bundle.schema import Manifest

SBOM_FILE = "sbom.cdx.json"
TOOLS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "soundfile", "soxr", "torch", "torchaudio", "msgspec")
_SDK = "stethoscope-edge-sdk"


def sbom(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """JSON of the bill; equal bytes for equal content and tools.

    Parameters
    ----------
    manifest
        Manifest of the bundle; its ``files`` may still be empty.
    files
        Name → content of every file of the bundle except ``bundle.json`` and the bill itself.
    """
    bundle_ref = f"bundle:{manifest.name}@{manifest.version}"
    listed = [_file(name, content, manifest) for name, content in sorted(files.items())]
    tools = [_package(name) for name in TOOLS if _version(name)]
    identity = json.dumps([manifest.name, manifest.version, [c["hashes"] for c in listed], tools], sort_keys=True)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": f"{manifest.created}T00:00:00Z",
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": _SDK, "version": manifest.sdk_version}]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": bundle_ref,
                "name": manifest.name,
                "version": manifest.version,
                "description": manifest.description,
            },
        },
        "components": [*listed, *tools, _python()],
        "dependencies": [
            {"ref": bundle_ref, "dependsOn": [c["bom-ref"] for c in listed]},
            *({"ref": c["bom-ref"], "dependsOn": [t["bom-ref"] for t in tools]} for c in listed if _is_model(c)),
        ],
    }
    return json.dumps(bill, indent=2, ensure_ascii=False).encode() + b"\n"


def _file(name: str, content: bytes, manifest: Manifest) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model" if name.endswith(".onnx") else "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
    }
    entry = next((a for a in manifest.artefacts if a.file == name), None)
    if entry is not None:
        component["properties"] = [
            {"name": "stetho:format", "value": entry.format},
            {"name": "stetho:precision", "value": entry.precision},
            {"name": "stetho:verified", "value": str(entry.verified).lower()},
        ]
    return component


def _package(name: str) -> dict[str, Any]:
    version = _version(name) or ""
    public, _, local = version.partition("+")  # a local version, as torch's CPU builds have, is a qualifier of the purl
    purl = f"pkg:pypi/{name}@{public}" + (f"%2B{local}" if local else "")
    component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    about = importlib.metadata.metadata(name)
    if "License-Expression" in about and (licence := about["License-Expression"]):
        component["licenses"] = [{"expression": licence}]
    return component


def _python() -> dict[str, Any]:
    version = platform.python_version()
    return {"type": "platform", "bom-ref": f"python@{version}", "name": "CPython", "version": version}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_model(component: Mapping[str, Any]) -> bool:
    return component["type"] == "machine-learning-model"
