"""Constants of the link protocol, as ``PROTOCOL.md`` defines them."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from firmware_bridge.cobs import longest_encoded

MAJOR, MINOR = 1, 0
VERSION = MAJOR << 4 | MINOR
MAX_PAYLOAD = 2048
HEADER_BYTES = 14
CRC_BYTES = 4
MAX_BODY = HEADER_BYTES + MAX_PAYLOAD + CRC_BYTES
MAX_ENCODED = longest_encoded(MAX_BODY)
"""Upper limit of the bytes between two delimiters that can be a frame."""

COMMAND_BIT = 0x80
ACK_TIMEOUT_S = 0.25
RETRIES = 3
UNKNOWN_TEMPERATURE = -32768
UNKNOWN_BYTE = 255
SITES = (
    None,
    "trachea",
    "left anterior",
    "right anterior",
    "left posterior",
    "right posterior",
    "left lateral",
    "right lateral",
)
"""Body sites by code, with the names that the corpora use."""


class MessageType(IntEnum):
    """Type byte of a frame; bit 0x80 marks host to device."""

    INFO = 0x01
    FORMAT = 0x02
    AUDIO = 0x03
    STATUS = 0x04
    EVENT = 0x05
    LOG = 0x06
    TIME = 0x07
    END = 0x08
    ACK = 0x09
    NACK = 0x0A
    HELLO = 0x81
    START = 0x82
    STOP = 0x83
    SET_GAIN = 0x84
    SET_FORMAT = 0x85
    GET_INFO = 0x86
    PING = 0x87
    TIME_REQUEST = 0x88


class Flags(IntFlag):
    """Flags byte of a frame; other bits are 0 and ignored."""

    NONE = 0
    CLIPPED = 1  # a sample was at full scale
    DISCONTINUITY = 2  # the device dropped samples just before these
    RETRY = 128  # a command sent again


class Codec(IntEnum):
    """Sample format of an AUDIO payload."""

    S16 = 1
    S24 = 2
    ADPCM = 3


class Capability(IntFlag):
    """What a device supports, as INFO reports it."""

    S16 = 1
    S24 = 2
    ADPCM = 4
    GAIN = 8
    BATTERY = 16
    CONTACT = 32
    TEMPERATURE = 64
    BUTTON = 128
    SET_FORMAT = 256


class AckCode(IntEnum):
    """Outcome of a command: 0 in ACK, the others in NACK."""

    DONE = 0
    UNKNOWN_COMMAND = 1
    MALFORMED = 2
    NOT_SUPPORTED = 3
    NOT_NOW = 4
    VERSION = 5


class EventCode(IntEnum):
    """Kind of an EVENT message."""

    BUTTON_DOWN = 1
    BUTTON_UP = 2
    CONTACT_LOST = 3
    CONTACT_MADE = 4
    BATTERY_LOW = 5
    OVERRUN = 6


class DeviceState(IntEnum):
    """State of the device in STATUS."""

    IDLE = 0
    STREAMING = 1
    ENDED = 2
