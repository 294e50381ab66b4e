"""Our COBS is everybody's COBS, and nothing it is given makes it misbehave."""

from __future__ import annotations

import pytest
from cobs import cobs as oracle
from hypothesis import example, given
from hypothesis import strategies as st

from firmware_bridge import cobs

# Runs around 254 bytes are where implementations go wrong.
_RUNS = st.lists(st.tuples(st.sampled_from([0, 1, 5, 253, 254, 255, 508]), st.sampled_from([1, 0x7E, 255])), max_size=6)
_DATA = st.one_of(st.binary(max_size=700), _RUNS.map(lambda runs: b"\0".join(bytes([v]) * n for n, v in runs)))


@given(_DATA)
@example(b"")
@example(b"\1" * 254)
@example(b"\1" * 254 + b"\0")
@example(b"\0" * 300)
def test_encodes_as_the_reference_and_comes_back(data: bytes) -> None:
    encoded = cobs.encode(data)
    assert encoded == oracle.encode(data)
    assert 0 not in encoded
    assert len(data) < len(encoded) <= cobs.longest(len(data))
    assert cobs.decode(encoded) == data


@given(st.binary(max_size=300))
def test_decodes_or_refuses_as_the_reference(data: bytes) -> None:
    try:
        expected = oracle.decode(data)
    except oracle.DecodeError:
        expected = None
    if expected is None or not data:  # the reference takes nothing for something empty
        with pytest.raises(cobs.CobsError):
            cobs.decode(data)
    else:
        assert cobs.decode(data) == expected
