"""The ring: absolute indices, the newest samples, an error instead of wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import StreamError
from edge_sdk.signal.ring import Ring

EDGES = [0, 2**31 - 50, 2**32 - 1, 2**53 + 1, 2**62]


@given(
    sizes=st.lists(st.integers(0, 60), max_size=25),
    capacity=st.integers(1, 50),
    first=st.sampled_from(EDGES),
)
def test_ring_always_holds_the_newest_samples(sizes: list[int], capacity: int, first: int) -> None:
    ring, everything = Ring(capacity, first=first), np.zeros(0, dtype=np.float32)
    for size in sizes:
        block = (np.arange(size) + everything.size).astype(np.float32)
        ring.append(block)
        everything = np.concatenate((everything, block))
        assert ring.end == first + everything.size
        assert ring.start == first + max(0, everything.size - capacity)
        np.testing.assert_array_equal(ring.read(ring.start, ring.end), everything[ring.start - first :])
        middle = (ring.start + ring.end) // 2
        np.testing.assert_array_equal(ring.read(middle, ring.end), everything[middle - first :])


@pytest.mark.parametrize(("begin", "end"), [(4, 8), (8, 16), (9, 8), (0, 15), (-3, 2)])
def test_samples_that_are_gone_or_not_there_yet_are_refused(begin: int, end: int) -> None:
    ring = Ring(10)
    ring.append(np.arange(15, dtype=np.float32))
    with pytest.raises(StreamError, match="ring holds samples 5 to 15"):
        ring.read(begin, end)


def test_an_empty_span_is_an_empty_array() -> None:
    ring = Ring(10)
    ring.append(np.arange(15, dtype=np.float32))
    assert ring.read(15, 15).shape == (0,)


def test_what_is_read_is_a_copy() -> None:
    ring = Ring(4)
    ring.append(np.arange(4, dtype=np.float32))
    held = ring.read(0, 4)
    ring.append(np.full(4, 9, dtype=np.float32))
    np.testing.assert_array_equal(held, [0, 1, 2, 3])


def test_reset_starts_over_at_any_index() -> None:
    ring = Ring(4)
    ring.append(np.arange(6, dtype=np.float32))
    ring.reset(first=1000)
    assert (ring.start, ring.end) == (1000, 1000)
    ring.append(np.array([1, 2], dtype=np.float32))
    np.testing.assert_array_equal(ring.read(1000, 1002), [1, 2])
    with pytest.raises(StreamError):
        ring.read(999, 1001)


def test_a_ring_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity"):
        Ring(0)
