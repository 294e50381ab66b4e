"""Damaged files for fuzzing: edits that keep most of a valid file, and limits on time and memory."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from edge_sdk.errors import StethoError

LONG_S = float(os.environ.get("STETHO_FUZZ_S", "600"))
"""Seconds of the long form of each fuzz test, ``make test-long``."""

DURATIONS = [pytest.param(0.0, id="short"), pytest.param(LONG_S, id="long", marks=pytest.mark.long)]

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_TOKEN = re.compile(rb"[^\s,;:\[\]{}\"_]+")
_WORDS = (
    b"", b"-1", b"0", b"0.0", b"1", b"-0.5", b"1e308", b"1e400", b"-1e400", b"NaN", b"nan", b"Infinity", b"inf", b"1_0",
    b"99999999999999999999999", b"4294967296", b"null", b"true", b"[]", b"{}", b'""', b"normal", b"x", b"../x", b"/",
    b"\0", b"\xff", b"\xe9", b"\xef\xbb\xbf", "\N{FULLWIDTH DIGIT ONE}".encode(), b'"', b"\r", b"\n", b",", b"\t",
    b"[" * 5000, b"0:00:99", b"1:2:3:4", b"E", b"I", b"wav", b"schema", b"type", b"9" * 5000,
)  # fmt: skip
_INTEGERS = (0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

_place = st.one_of(st.integers(0, 100), st.integers(0, 1 << 20))
_edit = st.one_of(
    st.tuples(st.just("flip"), _place, st.integers(1, 255)),
    st.tuples(st.just("integer"), _place, st.sampled_from(_INTEGERS), st.sampled_from((1, 2, 4, 8)), st.booleans()),
    st.tuples(st.just("insert"), _place, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("delete"), _place, st.integers(1, 64)),
    st.tuples(st.just("repeat"), _place, st.integers(1, 64), st.integers(1, 40)),
    st.tuples(st.just("number"), st.integers(0, 400), st.sampled_from(_WORDS)),
    st.tuples(st.just("token"), st.integers(0, 400), st.sampled_from(_WORDS)),
    st.tuples(st.just("line"), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.just("cut"), _place),
    st.tuples(st.just("encode"), st.sampled_from(("utf-16", "utf-8-sig", "utf-32", "cp037"))),
)

Edits = Sequence[tuple[Any, ...]]

edits: st.SearchStrategy[Edits] = st.lists(_edit, min_size=1, max_size=6)
"""A few edits of a file, for :func:`damaged`."""


def damaged(content: bytes, changes: Edits) -> bytes:
    """The content after the edits, in order."""
    for kind, *values in changes:
        content = _EDITS[kind](content, *values)
    return content


def _integer(content: bytes, at: int, value: int, size: int, little: bool) -> bytes:
    at %= len(content) + 1
    raw = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little" if little else "big")
    return content[:at] + raw + content[at + size :]


def _flip(content: bytes, at: int, mask: int) -> bytes:
    at %= max(1, len(content))
    return content[:at] + bytes(byte ^ mask for byte in content[at : at + 1]) + content[at + 1 :]


def _insert(content: bytes, at: int, new: bytes) -> bytes:
    at %= len(content) + 1
    return content[:at] + new + content[at:]


def _delete(content: bytes, at: int, size: int) -> bytes:
    at %= len(content) + 1
    return content[:at] + content[at + size :]


def _repeat(content: bytes, at: int, size: int, times: int) -> bytes:
    at %= len(content) + 1
    return content[:at] + content[at : at + size] * times + content[at:]


def _line(content: bytes, one: int, other: int) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        one, other = one % len(lines), other % len(lines)
        lines[one], lines[other] = lines[other], lines[one] * 2
    return b"".join(lines)


def _cut(content: bytes, at: int) -> bytes:
    return content[: at % (len(content) + 1)]


def _encode(content: bytes, encoding: str) -> bytes:
    return content.decode("utf-8", "replace").encode(encoding, "replace")


def _replacing(pattern: re.Pattern[bytes]) -> Callable[[bytes, int, bytes], bytes]:
    def replaced(content: bytes, which: int, word: bytes) -> bytes:
        found = list(pattern.finditer(content))
        if not found:
            return content + word
        match = found[which % len(found)]
        return content[: match.start()] + word + content[match.end() :]

    return replaced


_EDITS: dict[str, Callable[..., bytes]] = {
    "flip": _flip, "integer": _integer, "insert": _insert, "delete": _delete, "repeat": _repeat, "cut": _cut,
    "number": _replacing(_NUMBER), "token": _replacing(_TOKEN), "line": _line, "encode": _encode,
}  # fmt: skip


def fuzz(check: Callable[..., None], *strategies: st.SearchStrategy[Any], duration_s: float, examples: int) -> None:
    """Call ``check`` with examples of the strategies, in rounds of other seeds until ``duration_s`` have passed."""
    end_s = time.monotonic() + duration_s
    for number in range(1_000_000):
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        limits = settings(
            max_examples=examples, derandomize=False, database=None, deadline=None, suppress_health_check=checks
        )
        seed(number)(limits(given(*strategies)(check)))()
        if time.monotonic() >= end_s:
            return


@contextmanager
def bounded(seconds: float = 30.0, megabytes: int = 1024) -> Iterator[None]:
    """Raise ``TimeoutError`` or ``MemoryError`` inside, in the main thread of a POSIX system, beyond these limits."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_or_refuse(read: Callable[[], object]) -> None:
    """Call ``read`` within the limits: it returns, or raises an error of the SDK with a message for people."""
    message = "read"
    with bounded():
        try:
            read()
        except StethoError as error:
            message = str(error)
    assert message.strip(), "an error without a message"
