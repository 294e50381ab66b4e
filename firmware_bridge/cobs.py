"""Consistent Overhead Byte Stuffing: encodes bytes without zeros, at most one byte longer per 254.

Cheshire and Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7 (1999).
"""

from __future__ import annotations

_LONGEST_RUN = 254


class CobsError(ValueError):
    """Data that no COBS encoder writes: it holds a zero, or a run that ends after the data."""


def cobs_encode(data: bytes | bytearray | memoryview) -> bytes:
    """Encode ``data``; the result holds no zero byte and no delimiter."""
    out = bytearray()
    runs = bytes(data).split(b"\0")
    last = len(runs) - 1
    for number, run in enumerate(runs):
        begin = 0
        while len(run) - begin >= _LONGEST_RUN:
            out.append(_LONGEST_RUN + 1)
            out += run[begin : begin + _LONGEST_RUN]
            begin += _LONGEST_RUN
        # A full run at the very end needs no empty one after it: it stands for no zero.
        if number < last or begin < len(run) or begin == 0:
            out.append(len(run) - begin + 1)
            out += run[begin:]
    return bytes(out)


def cobs_decode(data: bytes | bytearray | memoryview) -> bytes:
    """Decode the bytes between two delimiters.

    Raises
    ------
    CobsError
        If ``data`` is empty, holds a zero or ends inside a run.
    """
    source = bytes(data)
    end = len(source)
    if not end or 0 in source:
        raise CobsError("empty" if not end else "zero byte inside")
    out = bytearray()
    at = 0
    while at < end:
        code = source[at]
        following = at + code
        if following > end:
            raise CobsError(f"run of {code - 1} bytes at {at} ends after the data")
        out += source[at + 1 : following]
        at = following
        if code <= _LONGEST_RUN and at < end:
            out.append(0)
    return bytes(out)


def longest_encoded(size: int) -> int:
    """Upper limit of the encoded length of ``size`` bytes."""
    return size + max(1, -(-size // _LONGEST_RUN))
