"""Builds and reads frames of the link protocol, byte for byte as ``PROTOCOL.md`` defines them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from firmware_bridge.cobs import cobs_encode
from firmware_bridge.constants import CRC_BYTES, HEADER_BYTES, MAX_PAYLOAD, VERSION, MessageType
from firmware_bridge.errors import ProtocolError
from firmware_bridge.messages import (
    Audio,
    Command,
    DeviceEvent,
    End,
    Hello,
    Info,
    Log,
    Message,
    Reply,
    SetFormat,
    SetGain,
    Status,
    StreamFormat,
    Time,
    TimeRequest,
)

_HEADER = struct.Struct("<BBBBHQ")
_CRC = struct.Struct("<I")
_PARSERS = {
    kind.TYPE: kind
    for kind in (Info, StreamFormat, Audio, Status, DeviceEvent, Log, Time, End, Hello, SetGain, SetFormat, TimeRequest)
} | {MessageType.ACK: Reply, MessageType.NACK: Reply}
_WITHOUT_PAYLOAD = frozenset({MessageType.START, MessageType.STOP, MessageType.GET_INFO, MessageType.PING})


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame with a valid CRC."""

    type: int  # a MessageType, or a type of a later minor version
    seq: int = 0
    sample_index: int = 0
    payload: bytes = b""
    flags: int = 0
    stream: int = 0
    version: int = VERSION


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes on the wire, both delimiters included.

    Raises
    ------
    ProtocolError
        If the payload is longer than 2048 bytes or a header field is out of range.
    """
    if len(frame.payload) > MAX_PAYLOAD:
        raise ProtocolError(f"payload of {len(frame.payload)} bytes; a frame takes {MAX_PAYLOAD}: send shorter blocks")
    try:
        header = _HEADER.pack(
            frame.version, frame.type, frame.flags, frame.stream, frame.seq & 0xFFFF, frame.sample_index
        )
    except struct.error as error:
        raise ProtocolError(f"header field out of range in {frame}: {error}") from error
    body = header + frame.payload
    return b"\0" + cobs_encode(body + _CRC.pack(zlib.crc32(body))) + b"\0"


def encode_message(message: Message, *, seq: int, sample_index: int = 0, flags: int = 0, stream: int = 0) -> bytes:
    """Return a message as a frame on the wire.

    Raises
    ------
    ProtocolError
        As :func:`encode_frame`.
    """
    return encode_frame(Frame(message.TYPE, seq, sample_index, message.pack(), flags, stream))


def parse_body(body: bytes) -> Frame:
    """Read header, payload and CRC as COBS decoded them. Does not check the version.

    Raises
    ------
    ProtocolError
        If the body is too short or too long, or its CRC does not match.
    """
    if not HEADER_BYTES + CRC_BYTES <= len(body) <= HEADER_BYTES + MAX_PAYLOAD + CRC_BYTES:
        raise ProtocolError(f"length {len(body)}")
    if zlib.crc32(body[:-CRC_BYTES]) != _CRC.unpack_from(body, len(body) - CRC_BYTES)[0]:
        raise ProtocolError("crc")
    version, kind, flags, stream, seq, index = _HEADER.unpack_from(body)
    return Frame(kind, seq, index, body[HEADER_BYTES:-CRC_BYTES], flags, stream, version)


def parse(frame: Frame) -> Message | None:
    """Return the message in a frame, or None if this version does not know its type.

    Raises
    ------
    ProtocolError
        If the payload is shorter than the message or holds impossible values.
    """
    if frame.type in _WITHOUT_PAYLOAD:
        return Command(MessageType(frame.type))
    kind = _PARSERS.get(frame.type)  # type: ignore[call-overload]  # an unknown type is just not found
    if kind is None:
        return None
    try:
        message: Message = kind.unpack(frame.payload)
    except struct.error as error:
        raise ProtocolError(f"{MessageType(frame.type).name} payload of {len(frame.payload)} bytes: {error}") from error
    return message
