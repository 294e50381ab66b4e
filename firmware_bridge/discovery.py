"""Finds the serial ports that are stethoscopes, by USB vendor, product and serial number."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_bridge.diagnosis import DEFAULT_BAUD
from firmware_bridge.errors import LinkError, LinkOpenError
from firmware_bridge.link import DeviceLink
from firmware_bridge.messages import Info, StreamFormat
from firmware_bridge.transport import is_socket

KNOWN_DEVICES: frozenset[tuple[int, int]] = frozenset({(0x1209, 0x0001)})
"""USB (vendor, product) of stethoscopes; this one is pid.codes' test id for prototypes, makers add their own."""

_BY_ID = Path("/dev/serial/by-id")


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A serial port with a stethoscope behind it."""

    port: str  # stable name under /dev/serial/by-id where the system makes one
    device: str  # as the system enumerates it: /dev/ttyACM0
    vid: int
    pid: int
    serial_number: str | None
    product: str | None


def find_devices(
    comports: Callable[[], Iterable[Any]] | None = None,
    *,
    usb_ids: Collection[tuple[int, int]] = KNOWN_DEVICES,
    serial_number: str | None = None,
    product: str = "stethoscope",
) -> list[FoundDevice]:
    """Return the ports whose (vid, pid) is in ``usb_ids`` or whose product text contains ``product``, ordered by port.

    Parameters
    ----------
    comports
        Lists ports as ``serial.tools.list_ports.comports`` does, which is the default.
    usb_ids
        (vid, pid) pairs of stethoscopes.
    serial_number
        Only the device with this serial number.
    product
        Compared without regard to case; empty: by (vid, pid) only.
    """
    if comports is None:
        comports = _system_ports
    found = [
        FoundDevice(_stable_name(port.device), port.device, port.vid, port.pid, port.serial_number, port.product)
        for port in comports()
        if port.vid is not None and port.pid is not None
        if (port.vid, port.pid) in usb_ids or (product and product.lower() in (port.product or "").lower())
    ]
    if serial_number is not None:
        found = [device for device in found if device.serial_number == serial_number]
    return sorted(found, key=lambda device: device.device)


def find_single_device(
    comports: Callable[[], Iterable[Any]] | None = None, *, serial_number: str | None = None
) -> FoundDevice:
    """Return the only stethoscope that is plugged in.

    Raises
    ------
    LinkOpenError
        If there is none, or more than one to choose from.
    """
    found = find_devices(comports, serial_number=serial_number)
    which = f" with serial number {serial_number}" if serial_number else ""
    if not found:
        raise LinkOpenError(f"no serial stethoscope{which} found; plug it in, or name its port: serial:/dev/ttyACM0")
    if len(found) > 1:
        names = ", ".join(device.port for device in found)
        raise LinkOpenError(f"{len(found)} serial stethoscopes found; name one: serial:PORT with PORT of {names}")
    return found[0]


def port_with_serial_number(serial_number: str, comports: Callable[[], Iterable[Any]] | None = None) -> str | None:
    """Return the port whose USB serial number is ``serial_number``, of any vendor; None if no or several ports have it.

    Cheap adapters share one serial number: it then identifies nothing.
    """
    ports = [port.device for port in (comports or _system_ports)() if port.serial_number == serial_number]
    return _stable_name(ports[0]) if len(ports) == 1 else None


def usb_serial_number(port: str, comports: Callable[[], Iterable[Any]] | None = None) -> str | None:
    """Return the USB serial number of a port, if it has one that no other port has."""
    if is_socket(port):
        return None
    path = Path(port).resolve()
    ports = list((comports or _system_ports)())
    found = next((other.serial_number for other in ports if Path(other.device).resolve() == path), None)
    return found if found and sum(other.serial_number == found for other in ports) == 1 else None


def find_by_serial_number(
    serial_number: str, *, baud: int = DEFAULT_BAUD, comports: Callable[[], Iterable[Any]] | None = None
) -> str:
    """Return the port of the device with this serial number: of USB, or as the device itself reports it.

    Raises
    ------
    LinkOpenError
        If there is none; the message names those that are there.
    """
    port = port_with_serial_number(serial_number, comports)
    if port is not None:
        return port
    seen = []
    for device in find_devices(comports):
        try:
            reported = identify(device.port, baud=baud)[0].serial
        except LinkError:  # in use, or no device with the link protocol
            reported = ""
        if reported == serial_number:
            return device.port
        seen.append(f"{reported or device.serial_number or 'none'} at {device.port}")
    there = f"; found: {', '.join(seen)}" if seen else ""
    raise LinkOpenError(f"no stethoscope with serial number {serial_number} found; plug it in{there}")


def identify(port: str, *, baud: int = DEFAULT_BAUD) -> tuple[Info, StreamFormat]:
    """Open a port, ask the device what it is and how it samples, and close it again.

    Raises
    ------
    LinkError
        As :meth:`DeviceLink.open`.
    """
    with DeviceLink(port, baud=baud) as link:
        return link.info, link.format


def _system_ports() -> Iterable[Any]:
    from serial.tools.list_ports import comports

    return comports()


def _stable_name(device: str) -> str:
    if _BY_ID.is_dir():
        for link in sorted(_BY_ID.iterdir()):
            if link.resolve() == Path(device).resolve():
                return str(link)
    return device
