"""A device that was given a key runs only what that key signed, whole, and never an older version."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.errors import BundleError, ExportError, MissingDependencyError
from edge_sdk.runtime.bundle.load import load_bundle, verify_bundle
from edge_sdk.runtime.bundle.signature import SIGNATURE, versions_file
from export.signing import make_key, sign_bundle
from tests.cli.conftest import Stetho, stetho  # noqa: F401
from tests.support.tiny_bundle import ARTEFACT, write_tiny_bundle


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STETHO_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("STETHO_TRUSTED_KEYS", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "maker", "clinic")
    return tmp_path / "maker"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name("maker.pub")


def _signed(folder: Path, key: Path, version: str = "1.0.0") -> Path:
    write_tiny_bundle(folder, untrained=False, version=version)
    sign_bundle(folder, key)
    return folder


def test_a_signed_bundle_loads_and_says_who_signed_it(tmp_path: Path, key: Path, public: Path) -> None:
    folder = _signed(tmp_path / "b", key)
    assert load_bundle(folder, trusted=[public]).manifest.version == "1.0.0"
    checks = {c.name: c for c in verify_bundle(folder, [public])}
    assert checks["signature"].ok and checks["signature"].detail.startswith("by clinic ")
    assert checks["version"].ok


def test_without_a_trusted_key_nothing_is_enforced_and_verify_says_so(tmp_path: Path, key: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "b", untrained=False)
    load_bundle(folder)
    assert "unsigned" in next(c.detail for c in verify_bundle(folder) if c.name == "signature")
    sign_bundle(folder, key)
    assert "not checked" in next(c.detail for c in verify_bundle(folder) if c.name == "signature")
    assert not versions_file().exists()


@pytest.mark.requirement("BUN-2")
def test_an_unsigned_bundle_is_refused_where_a_key_is_configured(
    tmp_path: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_bundle(tmp_path / "b", untrained=False)
    monkeypatch.setenv("STETHO_TRUSTED_KEYS", str(public))
    with pytest.raises(BundleError, match="is not signed, and trusted keys are configured; sign it with"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["bundle.json", ARTEFACT, "golden.npz", SIGNATURE])
@pytest.mark.requirement("BUN-2")
def test_a_change_of_any_file_that_is_loaded_is_refused(name: str, tmp_path: Path, key: Path, public: Path) -> None:
    folder = _signed(tmp_path / "b", key)
    path = folder / name
    if name == "bundle.json":
        path.write_text(path.read_text().replace('"normal"', '"wheeze"', 1))
    elif name == SIGNATURE:
        fields = json.loads(path.read_text())
        fields["signature"] = fields["signature"][::-1].replace("=", "") + "=="
        path.write_text(json.dumps(fields))
    else:
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"was changed after clinic signed it|does not match its sha256"):
        load_bundle(folder, trusted=[public])


def test_a_changed_file_with_its_hash_corrected_is_still_refused(tmp_path: Path, key: Path, public: Path) -> None:
    folder = _signed(tmp_path / "b", key)
    other = write_tiny_bundle(tmp_path / "other", untrained=False, seed=3, version="1.0.0")
    for name in ("bundle.json", ARTEFACT, "golden.npz"):
        shutil.copy(other / name, folder / name)
    load_bundle(folder)  # whole in itself
    with pytest.raises(BundleError, match="was changed after clinic signed it"):
        load_bundle(folder, trusted=[public])


def test_the_signature_is_checked_before_the_manifest_is_even_parsed(tmp_path: Path, key: Path, public: Path) -> None:
    folder = _signed(tmp_path / "b", key)
    (folder / "bundle.json").write_bytes(b"{" * 1000)
    with pytest.raises(BundleError, match="was changed after"):
        load_bundle(folder, trusted=[public])


def test_the_key_of_someone_else_is_refused(tmp_path: Path, key: Path, public: Path) -> None:
    make_key(tmp_path / "other")
    folder = _signed(tmp_path / "b", tmp_path / "other")
    with pytest.raises(BundleError, match=r"which is not trusted here \(trusted: clinic"):
        load_bundle(folder, trusted=[public])
    load_bundle(folder, trusted=[public, tmp_path / "other.pub"])


def test_an_older_version_is_refused_once_a_newer_one_ran(tmp_path: Path, key: Path, public: Path) -> None:
    old, new = _signed(tmp_path / "old", key, "1.9.0"), _signed(tmp_path / "new", key, "1.10.0")
    load_bundle(old, trusted=[public])
    load_bundle(new, trusted=[public])
    with pytest.raises(
        BundleError, match=r"tiny 1\.9\.0 is older than 1\.10\.0.*install 1\.10\.0 or newer.*delete 'tiny'"
    ):
        load_bundle(old, trusted=[public])
    assert not next(c for c in verify_bundle(old, [public]) if c.name == "version").ok
    load_bundle(old)  # not enforced without keys
    load_bundle(new, trusted=[public])
    versions_file().write_text("{}")  # on purpose, as the message says
    load_bundle(old, trusted=[public])


def test_a_bundle_that_does_not_load_does_not_move_the_record(tmp_path: Path, key: Path, public: Path) -> None:
    folder = _signed(tmp_path / "b", key, "9.0")
    (folder / ARTEFACT).write_bytes(b"broken")
    with pytest.raises(BundleError):
        load_bundle(folder, trusted=[public])
    assert not versions_file().exists()


def test_a_record_that_cannot_be_read_or_written_stops_the_device(
    tmp_path: Path, key: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _signed(tmp_path / "b", key)
    versions_file().parent.mkdir()
    versions_file().write_text("[1")
    with pytest.raises(BundleError, match="repair or delete it"):
        load_bundle(folder, trusted=[public])
    monkeypatch.setenv("STETHO_STATE", str(folder / ARTEFACT))
    with pytest.raises(BundleError, match="record"):
        load_bundle(folder, trusted=[public])


def test_bad_keys_are_plain_errors(tmp_path: Path, key: Path, public: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "b", untrained=False)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(folder, trusted=[tmp_path / "nowhere"])
    (tmp_path / "bad").write_text("# a comment\ned25519 !!!\n")
    with pytest.raises(BundleError, match="bad, line 2: not a public key"):
        load_bundle(folder, trusted=[tmp_path / "bad"])
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BundleError, match="holds no key"):
        load_bundle(folder, trusted=[tmp_path / "empty"])
    with pytest.raises(ExportError, match="is not a readable private key"):
        sign_bundle(folder, public)
    with pytest.raises(ExportError, match="never overwritten"):
        make_key(key)
    assert key.stat().st_mode & 0o077 == 0


def test_a_damaged_bundle_is_not_signed(tmp_path: Path, key: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "b")
    (folder / ARTEFACT).write_bytes(b"x")
    with pytest.raises(BundleError, match="a damaged bundle is not signed"):
        sign_bundle(folder, key)
    assert not (folder / SIGNATURE).exists()


def test_without_cryptography_a_configured_key_stops_and_an_absent_one_does_not(
    tmp_path: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_bundle(tmp_path / "b", untrained=False)
    for name in [m for m in sys.modules if m == "cryptography" or m.startswith("cryptography.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    load_bundle(folder)
    with pytest.raises(MissingDependencyError, match=r"stethoscope-edge-sdk\[trust\]"):
        load_bundle(folder, trusted=[public])


def test_extra_files_of_the_manifest_are_checked(tmp_path: Path) -> None:
    import hashlib

    good = hashlib.sha256(b"# tiny\n").hexdigest()
    folder = write_tiny_bundle(tmp_path / "b", files={"MODEL_CARD.md": good})
    assert all(c.ok for c in verify_bundle(folder))
    (folder / "MODEL_CARD.md").write_text("changed")
    assert [c.name for c in verify_bundle(folder) if not c.ok] == ["sha256 MODEL_CARD.md"]


def test_the_command_line_makes_keys_signs_and_verifies(stetho: Stetho, tmp_path: Path) -> None:  # noqa: F811
    folder = write_tiny_bundle(tmp_path / "b", untrained=False)
    made = stetho("keys", "new", tmp_path / "k", "--name", "clinic", "--json")
    assert made.status == 0 and made.records[0]["name"] == "clinic"
    refused = stetho("verify", folder, "--trusted-key", tmp_path / "k.pub", "--json")
    assert refused.status == 1 and "not signed" in refused.err
    assert stetho("keys", "sign", folder, "--key", tmp_path / "k").status == 0
    assert stetho("verify", folder, "--trusted-key", tmp_path / "k.pub").status == 0


@pytest.mark.parametrize("extra", [[], ["-rawin"]])
def test_openssl_keys_sign_too(extra: list[str], tmp_path: Path) -> None:
    key = tmp_path / "openssl.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True, capture_output=True)
    folder = write_tiny_bundle(tmp_path / "b", untrained=False)
    signer = sign_bundle(folder, key)
    (tmp_path / "trusted").write_text(signer.line + "\n")
    load_bundle(folder, trusted=[tmp_path / "trusted"])
