"""SHA-256 is the same by the interpreter and by OpenSSL, and a start does not load OpenSSL for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk import digests
from edge_sdk.digests import sha256, sha256_file


@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) + 1])
@pytest.mark.parametrize("large_from", [1 << 30, 1])
def test_both_implementations_agree_with_hashlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, large_from: int
) -> None:
    monkeypatch.setattr(digests, "_LARGE_BYTES", large_from)
    content = bytes(k * 7 % 251 for k in range(size))
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert (sha256(content), sha256_file(tmp_path / "file")) == (expected, expected)


def test_an_interpreter_without_its_own_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_interpreters_own", lambda: None)
    assert sha256(b"breath") == hashlib.sha256(b"breath").hexdigest()


def test_loading_a_bundle_does_not_load_openssl() -> None:
    program = "import sys, edge_sdk\nedge_sdk.load_bundle('default')\nprint('_hashlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
