"""Our COBS agrees with the reference package on every input."""

from __future__ import annotations

import pytest
from cobs import cobs as oracle
from hypothesis import example, given
from hypothesis import strategies as st

from firmware_bridge.cobs import CobsError, cobs_decode, cobs_encode, longest_encoded

# Runs around 254 bytes are where implementations go wrong.
_RUNS = st.lists(st.tuples(st.sampled_from([0, 1, 5, 253, 254, 255, 508]), st.sampled_from([1, 0x7E, 255])), max_size=6)
_DATA = st.one_of(st.binary(max_size=700), _RUNS.map(lambda runs: b"\0".join(bytes([v]) * n for n, v in runs)))


@given(_DATA)
@example(b"")
@example(b"\1" * 254)
@example(b"\1" * 254 + b"\0")
@example(b"\0" * 300)
def test_encodes_as_the_reference_and_is_decoded_again(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert encoded == oracle.encode(data)
    assert 0 not in encoded
    assert len(data) < len(encoded) <= longest_encoded(len(data))
    assert cobs_decode(encoded) == data


@given(st.binary(max_size=300))
def test_decodes_or_refuses_as_the_reference(data: bytes) -> None:
    try:
        expected = oracle.decode(data)
    except oracle.DecodeError:
        expected = None
    if expected is None or not data:  # the reference accepts empty input
        with pytest.raises(CobsError):
            cobs_decode(data)
    else:
        assert cobs_decode(data) == expected
