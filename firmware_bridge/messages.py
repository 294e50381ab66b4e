"""Messages of the link protocol: frozen dataclasses that pack to and unpack from the payload of a frame."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias, TypeVar

from firmware_bridge.constants import (
    MAJOR,
    MAX_PAYLOAD,
    SITES,
    UNKNOWN_BYTE,
    UNKNOWN_TEMPERATURE,
    AckCode,
    Capability,
    Codec,
    DeviceState,
    MessageType,
)
from firmware_bridge.errors import ProtocolError

_PayloadT = TypeVar("_PayloadT", bound="_FixedPayload")


@dataclass(frozen=True, slots=True)
class _FixedPayload:
    """A payload of fixed layout: ``_LAYOUT`` holds the fields in their order."""

    _LAYOUT: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        """Return the payload."""
        return self._LAYOUT.pack(*(getattr(self, field.name) for field in fields(self)))

    @classmethod
    def unpack(cls: type[_PayloadT], payload: bytes) -> _PayloadT:
        """Read a payload; raises ``struct.error`` if it is too short."""
        make: Callable[..., _PayloadT] = cls
        return make(*cls._LAYOUT.unpack_from(payload))


def _text16(text: str) -> bytes:
    # Truncated between characters, not inside one.
    return text.encode()[:16].decode("utf-8", "ignore").encode()


@dataclass(frozen=True, slots=True)
class Info:
    """INFO: identity and capabilities of the device."""

    serial: str
    model: str
    firmware: tuple[int, int, int] = (1, 0, 0)
    capabilities: Capability = Capability.S16
    boot_id: int = 0  # new at each start of the device
    rates_hz: tuple[int, ...] = ()
    proto_min: int = MAJOR
    proto_max: int = MAJOR

    TYPE: ClassVar[MessageType] = MessageType.INFO
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBBBBxII16s16sB")

    def pack(self) -> bytes:
        """Return the payload."""
        fixed = self._LAYOUT.pack(
            self.proto_min,
            self.proto_max,
            *self.firmware,
            self.capabilities,
            self.boot_id,
            _text16(self.serial),
            _text16(self.model),
            len(self.rates_hz),
        )
        return fixed + struct.pack(f"<{len(self.rates_hz)}I", *self.rates_hz)

    @classmethod
    def unpack(cls, payload: bytes) -> Info:
        """Read a payload; raises ``struct.error`` if it is too short."""
        low, high, *firmware, caps, boot, serial, model, count = cls._LAYOUT.unpack_from(payload)
        rates = struct.unpack_from(f"<{count}I", payload, cls._LAYOUT.size)
        major, minor, patch = firmware
        text = [part.rstrip(b"\0").decode("utf-8", "replace") for part in (serial, model)]
        return cls(text[0], text[1], (major, minor, patch), Capability(caps), boot, rates, low, high)


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """FORMAT: how the audio of a stream is sampled and sent."""

    rate_num: int
    rate_den: int = 1
    bits: int = 16
    channels: int = 1
    codec: int = Codec.S16
    site_code: int = 0
    gain_cdb: int = 0  # 0.01 dB
    block: int = 0  # samples per AUDIO frame
    clock_id: int = 0  # sample indices with the same clock_id form one unbroken count

    TYPE: ClassVar[MessageType] = MessageType.FORMAT
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IIIBBBBhH")

    @property
    def rate_hz(self) -> float:
        """Samples per second and channel."""
        return self.rate_num / self.rate_den

    @property
    def gain_db(self) -> float:
        """Gain of the device in dB."""
        return self.gain_cdb / 100

    @property
    def site(self) -> str | None:
        """Body site, or None where the device does not know it."""
        return SITES[self.site_code] if self.site_code < len(SITES) else None

    def pack(self) -> bytes:
        """Return the payload."""
        return self._LAYOUT.pack(
            self.clock_id,
            self.rate_num,
            self.rate_den,
            self.bits,
            self.channels,
            self.codec,
            self.site_code,
            self.gain_cdb,
            self.block,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> StreamFormat:
        """Read a payload; raises ``struct.error`` if it is too short, ``ProtocolError`` without a rate or channel."""
        clock_id, num, den, bits, channels, codec, site, gain, block = cls._LAYOUT.unpack_from(payload)
        message = cls(num, den, bits, channels, codec, site, gain, block, clock_id)
        if not message.rate_num or not message.rate_den or not message.channels:
            raise ProtocolError(f"FORMAT has no rate or no channel: {message}")
        return message


@dataclass(frozen=True, slots=True)
class Audio:
    """AUDIO: encoded samples; ``firmware_bridge.audio`` decodes them."""

    codec: int
    count: int  # samples per channel
    data: bytes

    TYPE: ClassVar[MessageType] = MessageType.AUDIO
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BxH")

    def pack(self) -> bytes:
        """Return the payload."""
        return self._LAYOUT.pack(self.codec, self.count) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Audio:
        """Read a payload; raises ``struct.error`` if it is too short."""
        codec, count = cls._LAYOUT.unpack_from(payload)
        return cls(codec, count, payload[cls._LAYOUT.size :])


@dataclass(frozen=True, slots=True)
class Status:
    """STATUS: state of the device; None where the device does not know a value."""

    uptime_us: int
    dropped_blocks: int = 0  # ready but not sent
    overruns: int = 0  # dropped before they were ready
    battery_mv: int = 0
    battery_percent: int | None = None
    contact: bool | None = None
    temperature_c: float | None = None
    state: int = DeviceState.IDLE

    TYPE: ClassVar[MessageType] = MessageType.STATUS
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QIIHBBhBx")

    def pack(self) -> bytes:
        """Return the payload."""
        return self._LAYOUT.pack(
            self.uptime_us,
            self.dropped_blocks,
            self.overruns,
            self.battery_mv,
            UNKNOWN_BYTE if self.battery_percent is None else self.battery_percent,
            UNKNOWN_BYTE if self.contact is None else int(self.contact),
            UNKNOWN_TEMPERATURE if self.temperature_c is None else round(self.temperature_c * 100),
            self.state,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Status:
        """Read a payload; raises ``struct.error`` if it is too short."""
        uptime, dropped, overruns, mv, battery, contact, temperature, state = cls._LAYOUT.unpack_from(payload)
        return cls(
            uptime,
            dropped,
            overruns,
            mv,
            None if battery == UNKNOWN_BYTE else battery,
            None if contact == UNKNOWN_BYTE else bool(contact),
            None if temperature == UNKNOWN_TEMPERATURE else temperature / 100,
            state,
        )


@dataclass(frozen=True, slots=True)
class DeviceEvent(_FixedPayload):
    """EVENT: something happened on the device, at the sample index of the frame."""

    code: int
    value: int = 0

    TYPE: ClassVar[MessageType] = MessageType.EVENT
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<Bxxxi")


@dataclass(frozen=True, slots=True)
class Log:
    """LOG: a line of text for people, ``level`` as in ``logging``."""

    level: int
    text: str

    TYPE: ClassVar[MessageType] = MessageType.LOG

    def pack(self) -> bytes:
        """Return the payload."""
        return bytes([self.level]) + self.text.encode()[: MAX_PAYLOAD - 1]

    @classmethod
    def unpack(cls, payload: bytes) -> Log:
        """Read a payload; raises ``struct.error`` if it is too short."""
        return cls(struct.unpack_from("<B", payload)[0], payload[1:].decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Time(_FixedPayload):
    """TIME, the reply to TIME_REQUEST: t1 of the host, t2 and t3 of the device, in ns."""

    t1: int
    t2: int
    t3: int

    TYPE: ClassVar[MessageType] = MessageType.TIME
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class End(_FixedPayload):
    """END: the device has nothing more to send."""

    total: int  # sample index after the last sample
    reason: int = 0

    TYPE: ClassVar[MessageType] = MessageType.END
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QB")


@dataclass(frozen=True, slots=True)
class Reply(_FixedPayload):
    """ACK (``code`` 0) or NACK: outcome of one command."""

    command: int
    code: int
    command_seq: int

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBH")

    @property
    def TYPE(self) -> MessageType:
        """ACK or NACK."""
        return MessageType.ACK if self.code == AckCode.DONE else MessageType.NACK


@dataclass(frozen=True, slots=True)
class Command:
    """A command without payload: START, STOP, GET_INFO or PING."""

    type: MessageType

    @property
    def TYPE(self) -> MessageType:
        """Type of the frame."""
        return self.type

    def pack(self) -> bytes:
        """Return the empty payload."""
        return b""


@dataclass(frozen=True, slots=True)
class Hello(_FixedPayload):
    """HELLO, the first command: the range of major versions that the host supports."""

    low: int = MAJOR
    high: int = MAJOR

    TYPE: ClassVar[MessageType] = MessageType.HELLO
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BB")


@dataclass(frozen=True, slots=True)
class SetGain(_FixedPayload):
    """SET_GAIN: set the gain of the device."""

    gain_cdb: int  # 0.01 dB

    TYPE: ClassVar[MessageType] = MessageType.SET_GAIN
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<h")


@dataclass(frozen=True, slots=True)
class SetFormat(_FixedPayload):
    """SET_FORMAT: set rate, bits or codec (not while audio runs) or the site (at any time); 0 changes nothing."""

    rate_hz: int = 0
    bits: int = 0
    codec: int = 0
    site_code: int = UNKNOWN_BYTE  # 255: unchanged

    TYPE: ClassVar[MessageType] = MessageType.SET_FORMAT
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IBBBx")


@dataclass(frozen=True, slots=True)
class TimeRequest(_FixedPayload):
    """TIME_REQUEST: ask for the device clock."""

    t1: int  # host clock, ns

    TYPE: ClassVar[MessageType] = MessageType.TIME_REQUEST
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<Q")


DeviceMessage: TypeAlias = Info | StreamFormat | Audio | Status | DeviceEvent | Log | Time | End | Reply
HostMessage: TypeAlias = Command | Hello | SetGain | SetFormat | TimeRequest
Message: TypeAlias = DeviceMessage | HostMessage
