"""Why a port that is open gives no link: no bytes, bytes of something else, or frames without a reply."""

from __future__ import annotations

import string

from firmware_bridge.transport import is_socket

DEFAULT_BAUD = 921_600
"""Baud rate of the reference firmware on a real UART; USB, sockets and pseudo-terminals ignore it."""

HEAD_BYTES = 256  # of the first bytes received, kept for the message
_TEXT_SHARE = 0.9
_SHOWN_CHARACTERS = 32
_PRINTABLE = frozenset(string.printable.encode())


def explain_no_reply(port: str, baud: int, received: int, frames: int, head: bytes) -> str:
    """Error message for a port on which nothing acknowledges HELLO.

    Parameters
    ----------
    port, baud
        As opened.
    received
        Bytes received.
    frames
        Valid frames among them.
    head
        The first bytes received.
    """
    if not received:
        uart = "" if is_socket(port) else f" A UART needs its baud rate: --baud, now {baud}."
        question = "is this a stethoscope, switched on and with its firmware running?"
        return f"{port}: open, but nothing replies; {question}{uart}"
    if frames:
        return (
            f"{port}: sends {frames} frames of the link protocol, but does not reply to HELLO; "
            f"does its receive line work, and does another program use it?"
        )
    if _is_text(head):
        shown = " ".join(head.decode("ascii", "ignore").split())[:_SHOWN_CHARACTERS]
        return (
            f"{port}: sends text ({shown!r} …) and no frames of the link protocol; firmware that prints its samples "
            f"or its log cannot be used: flash one with the link protocol (firmware_bridge/c)"
        )
    raw = "raw PCM without the link protocol, which cannot be used: see firmware_bridge/c"
    if is_socket(port):
        return f"{port}: sent {received} bytes that are no frames of the link protocol; this may be {raw}"
    return (
        f"{port}: sent {received} bytes that are no frames of the link protocol; another baud rate than {baud} "
        f"(try --baud 115200 or that of the firmware), or {raw}"
    )


def _is_text(head: bytes) -> bool:
    return sum(byte in _PRINTABLE for byte in head) >= _TEXT_SHARE * max(1, len(head))
