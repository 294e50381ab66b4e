"""Payloads of the link protocol as frozen dataclasses that pack and unpack themselves."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

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


def _text16(text: str) -> bytes:
    # Cut between characters, not inside one.
    return text.encode()[:16].decode("utf-8", "ignore").encode()


@dataclass(frozen=True, slots=True)
class Info:
    """Who the device is and what it can do."""

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
        low, high, *firmware, caps, boot, serial, model, count = cls._LAYOUT.unpack_from(payload)
        rates = struct.unpack_from(f"<{count}I", payload, cls._LAYOUT.size)
        major, minor, patch = firmware
        text = [part.rstrip(b"\0").decode("utf-8", "replace") for part in (serial, model)]
        return cls(text[0], text[1], (major, minor, patch), Capability(caps), boot, rates, low, high)


@dataclass(frozen=True, slots=True)
class Format:
    """How the audio of a stream is sampled and sent."""

    rate_num: int
    rate_den: int = 1
    bits: int = 16
    channels: int = 1
    codec: int = Codec.S16
    site_code: int = 0
    gain_cdb: int = 0  # 0.01 dB
    block: int = 0  # samples per AUDIO frame
    clock_id: int = 0  # sample indices of one clock_id form one unbroken count

    TYPE: ClassVar[MessageType] = MessageType.FORMAT
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IIIBBBBhH")

    @property
    def rate_hz(self) -> float:
        return self.rate_num / self.rate_den

    @property
    def gain_db(self) -> float:
        return self.gain_cdb / 100

    @property
    def site(self) -> str | None:
        """Where on the body, or None where the device does not know."""
        return SITES[self.site_code] if self.site_code < len(SITES) else None

    def pack(self) -> bytes:
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
    def unpack(cls, payload: bytes) -> Format:
        clock_id, num, den, bits, channels, codec, site, gain, block = cls._LAYOUT.unpack_from(payload)
        message = cls(num, den, bits, channels, codec, site, gain, block, clock_id)
        if not message.rate_num or not message.rate_den or not message.channels:
            raise ProtocolError(f"FORMAT names no rate or no channel: {message}")
        return message


@dataclass(frozen=True, slots=True)
class Audio:
    """Encoded samples; ``firmware_bridge.audio`` turns them into numbers."""

    codec: int
    count: int  # samples per channel
    data: bytes

    TYPE: ClassVar[MessageType] = MessageType.AUDIO
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BxH")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.codec, self.count) + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> Audio:
        codec, count = cls._LAYOUT.unpack_from(payload)
        return cls(codec, count, payload[cls._LAYOUT.size :])


@dataclass(frozen=True, slots=True)
class Status:
    """How the device does; ``None`` where it does not know."""

    uptime_us: int
    dropped_blocks: int = 0  # were ready but not sent
    overruns: int = 0  # were lost before they were ready
    battery_mv: int = 0
    battery_percent: int | None = None
    contact: bool | None = None
    temperature_c: float | None = None
    state: int = DeviceState.IDLE

    TYPE: ClassVar[MessageType] = MessageType.STATUS
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QIIHBBhBx")

    def pack(self) -> bytes:
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
class DeviceEvent:
    """Something happened on the device; the frame's sample index says when."""

    code: int
    value: int = 0

    TYPE: ClassVar[MessageType] = MessageType.EVENT
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<Bxxxi")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.code, self.value)

    @classmethod
    def unpack(cls, payload: bytes) -> DeviceEvent:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class Log:
    """A line for people, ``level`` as in ``logging``."""

    level: int
    text: str

    TYPE: ClassVar[MessageType] = MessageType.LOG

    def pack(self) -> bytes:
        return bytes([self.level]) + self.text.encode()[: MAX_PAYLOAD - 1]

    @classmethod
    def unpack(cls, payload: bytes) -> Log:
        return cls(struct.unpack_from("<B", payload)[0], payload[1:].decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Time:
    """Answer to a time request: t1 of the host, t2 and t3 of the device, ns."""

    t1: int
    t2: int
    t3: int

    TYPE: ClassVar[MessageType] = MessageType.TIME
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QQQ")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.t1, self.t2, self.t3)

    @classmethod
    def unpack(cls, payload: bytes) -> Time:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class End:
    """The device has nothing more to send."""

    total: int  # sample index after the last sample
    reason: int = 0

    TYPE: ClassVar[MessageType] = MessageType.END
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QB")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.total, self.reason)

    @classmethod
    def unpack(cls, payload: bytes) -> End:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class Reply:
    """ACK (``code`` 0) or NACK of one command."""

    command: int
    code: int
    command_seq: int

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBH")

    @property
    def TYPE(self) -> MessageType:
        return MessageType.ACK if self.code == AckCode.DONE else MessageType.NACK

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.command, self.code, self.command_seq)

    @classmethod
    def unpack(cls, payload: bytes) -> Reply:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class Command:
    """A command without a payload: START, STOP, GET_INFO, PING."""

    type: MessageType

    @property
    def TYPE(self) -> MessageType:
        return self.type

    def pack(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens the conversation: the major versions that the host speaks."""

    low: int = MAJOR
    high: int = MAJOR

    TYPE: ClassVar[MessageType] = MessageType.HELLO
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BB")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.low, self.high)

    @classmethod
    def unpack(cls, payload: bytes) -> Hello:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class SetGain:
    gain_cdb: int  # 0.01 dB

    TYPE: ClassVar[MessageType] = MessageType.SET_GAIN
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<h")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.gain_cdb)

    @classmethod
    def unpack(cls, payload: bytes) -> SetGain:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class SetFormat:
    """Ask for another rate, depth or codec (when not streaming), or tell the site (at any time); 0 changes nothing."""

    rate_hz: int = 0
    bits: int = 0
    codec: int = 0
    site_code: int = UNKNOWN_BYTE  # 255: unchanged

    TYPE: ClassVar[MessageType] = MessageType.SET_FORMAT
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IBBBx")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.rate_hz, self.bits, self.codec, self.site_code)

    @classmethod
    def unpack(cls, payload: bytes) -> SetFormat:
        return cls(*cls._LAYOUT.unpack_from(payload))


@dataclass(frozen=True, slots=True)
class TimeRequest:
    t1: int  # host clock, ns

    TYPE: ClassVar[MessageType] = MessageType.TIME_REQUEST
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<Q")

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self.t1)

    @classmethod
    def unpack(cls, payload: bytes) -> TimeRequest:
        return cls(*cls._LAYOUT.unpack_from(payload))


DeviceMessage: TypeAlias = Info | Format | Audio | Status | DeviceEvent | Log | Time | End | Reply
HostMessage: TypeAlias = Command | Hello | SetGain | SetFormat | TimeRequest
Message: TypeAlias = DeviceMessage | HostMessage
