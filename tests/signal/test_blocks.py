"""Re-blocking: the hops that come out do not depend on the blocks that go in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.signal.blocks import Reblocker


@given(sizes=st.lists(st.integers(0, 700), max_size=30), hop=st.integers(1, 200))
def test_hops_are_exact_and_nothing_is_lost(sizes: list[int], hop: int) -> None:
    samples = np.arange(sum(sizes), dtype=np.float32)
    reblocker, hops = Reblocker(hop), []
    for block in np.split(samples, np.cumsum(sizes))[:-1]:
        hops += reblocker.accept(block)
        assert reblocker.pending < hop
    rest = reblocker.flush()
    assert all(h.shape == (hop,) for h in hops)
    assert rest.size == samples.size % hop
    np.testing.assert_array_equal(np.concatenate([*hops, rest]), samples)


@given(sizes=st.lists(st.integers(0, 700), max_size=30), hop=st.integers(1, 200), data=st.data())
def test_the_first_hop_may_be_shorter(sizes: list[int], hop: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, hop))
    samples = np.arange(sum(sizes), dtype=np.float32)
    reblocker = Reblocker(hop, first)
    for _ in range(2):  # after a flush too
        hops = [h for block in np.split(samples, np.cumsum(sizes))[:-1] for h in reblocker.accept(block)]
        rest = reblocker.flush()
        assert [h.size for h in hops] == [first, *[hop] * len(hops)][: len(hops)]
        np.testing.assert_array_equal(np.concatenate([*hops, rest]), samples)


def test_one_large_block_gives_all_its_hops_at_once() -> None:
    assert len(Reblocker(80).accept(np.zeros(8000, dtype=np.float32))) == 100


def test_hops_do_not_share_memory() -> None:
    first, second = Reblocker(2).accept(np.array([1, 2, 3, 4], dtype=np.float32))
    first[:] = 9
    np.testing.assert_array_equal(second, [3, 4])


def test_flush_and_reset_leave_nothing_behind() -> None:
    reblocker = Reblocker(10)
    reblocker.accept(np.ones(7, dtype=np.float32))
    assert reblocker.flush().size == 7
    assert reblocker.flush().size == 0
    reblocker.accept(np.ones(7, dtype=np.float32))
    reblocker.reset()
    assert reblocker.accept(np.zeros(10, dtype=np.float32))[0].max() == 0


def test_a_hop_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="hop"):
        Reblocker(0)
    with pytest.raises(ValueError, match="first"):
        Reblocker(10, 11)
