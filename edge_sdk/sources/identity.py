"""Which device a serial source listens to, and whether the one that came back is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firmware_bridge.link import DeviceLink


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """What a device reports of itself."""

    serial_number: str  # empty: it has none
    model: str
    site: str | None
    boot_id: int  # new at each start of the device; 0: unknown
    rate_hz: int
    firmware: str = ""  # may be updated between two sessions: not compared

    @classmethod
    def of(cls, link: DeviceLink) -> DeviceIdentity:
        """Identity of the device at the other end of an open link."""
        info, audio = link.info, link.format
        firmware = ".".join(map(str, info.firmware))
        return cls(info.serial.strip(), info.model.strip(), audio.site, info.boot_id, round(audio.rate_hz), firmware)

    def record(self) -> Mapping[str, str | None]:
        """JSON-ready fields: ``serial_number``, ``model``, ``site``, ``firmware``; None where unknown."""
        return {
            "serial_number": self.serial_number or None,
            "model": self.model or None,
            "site": self.site,
            "firmware": self.firmware or None,
        }

    def change_to(self, other: DeviceIdentity) -> str | None:
        """Why ``other`` cannot continue the session of this device, in words; None where it can.

        A site that the device has forgotten is no other site. A device without a serial number that was restarted
        cannot be told apart from another one of its model.
        """
        if self.serial_number != other.serial_number:
            return f"serial number {_shown(other.serial_number)} instead of {_shown(self.serial_number)}"
        if self.model != other.model:
            return f"model {_shown(other.model)} instead of {_shown(self.model)}"
        if not self.serial_number and (self.boot_id != other.boot_id or not self.boot_id):
            return "it has no serial number and was restarted: it may be another device"
        if self.site and other.site and self.site != other.site:
            return f"site {other.site} instead of {self.site}"
        if self.rate_hz != other.rate_hz:
            return f"{other.rate_hz} Hz instead of {self.rate_hz} Hz"
        return None


def _shown(text: str) -> str:
    return text or "none"
