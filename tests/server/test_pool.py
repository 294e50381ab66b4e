"""Threads that compute streams: what waits together is computed together, in order, and no failure spreads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import edge_sdk
from edge_sdk.errors import StreamError
from edge_sdk.events import AudioBlock, Event
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.engines.steps import MOST_STREAMS
from edge_sdk.runtime.group import StreamGroup
from edge_sdk.runtime.stream import Stream
from edge_sdk.server.streams.pool import StreamPool

RATE, BLOCK = 8000, 400


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return edge_sdk.load_bundle()


class Waiting:
    """Blocks of silence for a stream; ``done`` holds the first sample of each that was computed."""

    def __init__(self, bundle: Bundle, blocks: int) -> None:
        self.stream, self.blocks, self.computed = bundle.stream(RATE), blocks, 0
        self.errors: list[Exception] = []
        self.finished = threading.Event()

    def begin(self) -> tuple[Stream, AudioBlock] | None:
        if self.computed == self.blocks:
            return None
        return self.stream, AudioBlock(np.zeros(BLOCK, np.float32), RATE, self.computed * BLOCK)

    def complete(self, found: list[Event] | Exception) -> bool:
        if isinstance(found, Exception):
            self.errors.append(found)
        self.computed += self.computed < self.blocks
        if self.computed == self.blocks:
            self.finished.set()
        return self.computed < self.blocks


class Failing(Waiting):
    """Raises where a piece of work begins."""

    def begin(self) -> tuple[Stream, AudioBlock] | None:
        self.finished.set()
        raise RuntimeError("broken")


def compute(works: Sequence[Waiting], threads: int) -> None:
    pool = StreamPool(threads)
    for work in works:
        pool.schedule(work)
    pool.start()
    assert all(work.finished.wait(20.0) for work in works)
    pool.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_streams_that_wait_together_advance_together(
    bundle: Bundle, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    accept = StreamGroup.accept

    def counted(self: StreamGroup, blocks: Any) -> Any:
        sizes.append(len(blocks))
        return accept(self, blocks)

    monkeypatch.setattr(StreamGroup, "accept", counted)
    works = [Waiting(bundle, 2 + k % 3) for k in range(MOST_STREAMS + 8)]
    compute(works, threads)
    assert sum(sizes) == sum(work.blocks for work in works)
    assert 1 < max(sizes) <= MOST_STREAMS
    for work in works:
        assert work.stream.stats.samples_in == work.blocks * BLOCK and not work.errors


def test_a_work_that_fails_leaves_the_others_alone(bundle: Bundle) -> None:
    finished = Waiting(bundle, 2)
    finished.stream.finish()
    works = [Waiting(bundle, 3), Failing(bundle, 3), finished, Waiting(bundle, 3)]
    compute(works, 1)
    assert [work.stream.stats.samples_in for work in works] == [3 * BLOCK, 0, 0, 3 * BLOCK]
    assert [type(error) for error in finished.errors] == [StreamError, StreamError]
    assert not works[0].errors and not works[3].errors
