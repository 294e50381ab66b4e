"""Where a serial stethoscope is: a port as named, or the port that has its serial number at the moment."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass

from edge_sdk.errors import SourceError

_log = logging.getLogger(__name__)

_SERIAL_NUMBER = "SN="
_BAUD = re.compile(r"@(\d+)$")
_LOWEST_BAUD, _HIGHEST_BAUD = 300, 20_000_000

_GRACE_S = 2.0
"""Seconds that another stethoscope must be the only one before plain ``serial`` takes it for one that was lost: a
device that was pulled and put back needs about a second until its port exists again."""


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A serial source as requested: ``[PORT | SN=NUMBER][@BAUD]``."""

    port: str | None  # None: the only stethoscope, or the one with the serial number
    serial_number: str | None
    baud: int

    @property
    def name(self) -> str:
        """Name of the source, without the baud rate."""
        if self.serial_number is not None:
            return f"serial:{_SERIAL_NUMBER}{self.serial_number}"
        return "serial" if self.port is None else f"serial:{self.port}"


def parse_port(text: str | None, baud: int | None = None) -> PortSpec:
    """Read what follows ``serial:``.

    Raises
    ------
    SourceError
        If the baud rate is given twice or out of range, or the serial number is empty.
    """
    from firmware_bridge.diagnosis import DEFAULT_BAUD

    rest = text or ""
    found = _BAUD.search(rest)
    if found is not None:
        rest = rest[: found.start()]
        if baud is not None and baud != int(found[1]):
            raise SourceError(f"two baud rates, {found[1]} in serial:{text} and {baud}; give one of them")
        baud = int(found[1])
    if baud is not None and not _LOWEST_BAUD <= baud <= _HIGHEST_BAUD:
        raise SourceError(f"{baud} is no baud rate; give one from {_LOWEST_BAUD} to {_HIGHEST_BAUD}")
    serial_number = None
    if rest.upper().startswith(_SERIAL_NUMBER):
        serial_number = rest[len(_SERIAL_NUMBER) :].strip()
        if not serial_number:
            raise SourceError("serial:SN= needs the serial number of a device; 'stetho devices' lists them")
        rest = ""
    return PortSpec(rest or None, serial_number, DEFAULT_BAUD if baud is None else baud)


class PortFinder:
    """Finds the port of one device, again and again while it is away.

    A device that has a USB serial number is found by it, whatever name its port has when it is back. Otherwise the
    named port is used.

    Parameters
    ----------
    spec
        As requested.
    """

    def __init__(self, spec: PortSpec) -> None:
        self._spec = spec
        self._usb_serial: str | None = None  # of the device found last
        self._port: str | None = None  # found last
        self._away_since_s: float | None = None

    def find(self) -> str:
        """Return the port to open.

        Raises
        ------
        LinkOpenError
            If no device fits.
        """
        from firmware_bridge.discovery import port_with_serial_number, usb_serial_number

        port = None
        if self._usb_serial is not None:
            port = port_with_serial_number(self._usb_serial)
        if port is None:
            port = self._find_first()
        elif port != self._port and self._spec.port is not None:
            _log.warning("%s: the device with serial number %s is now at %s", self._spec.name, self._usb_serial, port)
        self._port = port
        self._usb_serial = usb_serial_number(port) or self._spec.serial_number
        self._away_since_s = None
        return port

    def hint(self, device_serial: str) -> str:
        """What to do where the device does not come back to its port; ``device_serial``: as it reported it."""
        from firmware_bridge.discovery import find_devices

        if self._spec.port is None:
            return ""
        others = [device.port for device in find_devices() if device.port != self._port]
        there = f" ({', '.join(others)} is there)" if others else ""
        number = f" or 'serial:{_SERIAL_NUMBER}{device_serial}'" if device_serial else ""
        return f"; if it is back under another name{there}, 'serial'{number} finds it by its serial number"

    def _find_first(self) -> str:
        from firmware_bridge.discovery import find_by_serial_number, find_single_device
        from firmware_bridge.errors import LinkOpenError

        spec = self._spec
        if spec.serial_number is not None:
            return find_by_serial_number(spec.serial_number, baud=spec.baud)
        if spec.port is not None:
            return spec.port
        if self._usb_serial is None:
            return find_single_device().port
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
        other = find_single_device().port  # there is none, or too many: still away
        if now_s - self._away_since_s < _GRACE_S:
            raise LinkOpenError(f"the device with serial number {self._usb_serial} is not back; another is at {other}")
        return other
