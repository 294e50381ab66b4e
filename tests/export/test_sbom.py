"""The bill of materials is valid CycloneDX 1.6, complete, and the same each time."""

from __future__ import annotations

import hashlib
import json

import pytest

from edge_sdk.runtime.bundle.load import DEFAULT_BUNDLE, read_manifest
from export.documents.sbom import SBOM_FILE, TOOLS, sbom


def _files() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in DEFAULT_BUNDLE.iterdir() if p.name not in ("bundle.json", SBOM_FILE)}


def test_the_bill_keeps_the_schema_of_cyclonedx() -> None:
    from cyclonedx.schema import SchemaVersion  # seconds, which every worker would spend on collecting this file
    from cyclonedx.validation.json import JsonStrictValidator

    text = sbom(read_manifest(DEFAULT_BUNDLE), _files()).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


@pytest.mark.requirement("BUN-5")
def test_the_bill_holds_every_file_with_its_hash_and_every_tool_with_its_version() -> None:
    files = _files()
    bill = json.loads(sbom(read_manifest(DEFAULT_BUNDLE), files))
    components = {c["name"]: c for c in bill["components"]}
    for name, content in files.items():
        assert components[name]["hashes"][0]["content"] == hashlib.sha256(content).hexdigest()
    assert all(components[tool]["version"] for tool in TOOLS)
    refs = {c["bom-ref"] for c in bill["components"]}
    assert all(set(d["dependsOn"]) <= refs for d in bill["dependencies"])


def test_the_same_bundle_has_the_same_bill_and_another_one_another() -> None:
    manifest, files = read_manifest(DEFAULT_BUNDLE), _files()
    assert sbom(manifest, files) == sbom(manifest, files)
    other = json.loads(sbom(manifest, files | {"golden.npz": b"x"}))
    assert other["serialNumber"] != json.loads(sbom(manifest, files))["serialNumber"]
