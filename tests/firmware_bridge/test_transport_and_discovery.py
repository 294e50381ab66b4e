"""Every way in which a port can disappear is one typed error; stethoscopes are found by USB ids."""

from __future__ import annotations

import termios
from types import SimpleNamespace
from typing import Any

import pytest
import serial

from firmware_bridge import transport
from firmware_bridge.discovery import find_devices, find_single_device
from firmware_bridge.errors import LinkLost, LinkOpenError, LinkStalled


class _Broken:
    """A serial port on which everything fails in the given way."""

    def __init__(self, error: Exception, where: str) -> None:
        self._error, self._where = error, where

    @property
    def in_waiting(self) -> int:
        return self._fail("in_waiting") or 0

    def read(self, size: int) -> bytes:
        self._fail("read")
        return b""

    def write(self, data: bytes) -> int:
        self._fail("write")
        return len(data)

    def close(self) -> None:
        self._fail("close")

    def _fail(self, where: str) -> int | None:
        if where == self._where:
            raise self._error
        return None


@pytest.mark.parametrize("where", ["in_waiting", "read", "write"])
@pytest.mark.parametrize(
    "error",
    [
        serial.SerialException("device reports readiness to read but returned no data"),
        OSError(5, "Input/output error"),
        serial.SerialException("write failed: [Errno 5]"),
        termios.error(5, "Input/output error"),
    ],
    ids=["no data", "bare OSError", "write failed", "termios.error"],
)
def test_every_way_of_disappearing_is_link_lost(monkeypatch: pytest.MonkeyPatch, where: str, error: Exception) -> None:
    monkeypatch.setattr(serial, "serial_for_url", lambda *_, **__: _Broken(error, where))
    port = transport.open_transport("/dev/ttyTEST", 115200)
    with pytest.raises(LinkLost, match="ttyTEST: device disconnected"):
        port.write(b"x") if where == "write" else port.read()
    port.close()


def test_a_device_that_accepts_no_bytes_is_stalled_not_lost_and_closing_never_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: dict[str, Any] = {}

    def fake(*_: object, **given: object) -> _Broken:
        made.update(given)
        return _Broken(serial.SerialTimeoutException("Write timeout"), "write")

    monkeypatch.setattr(serial, "serial_for_url", fake)
    with pytest.raises(LinkStalled, match="takes no bytes"):
        transport.open_transport("/dev/ttyTEST", 115200).write(b"x")
    assert made["exclusive"] is True  # or two programs would steal bytes from each other
    monkeypatch.setattr(serial, "serial_for_url", lambda *_, **__: _Broken(termios.error(5, "gone"), "close"))
    transport.open_transport("/dev/ttyTEST", 115200).close()


def test_no_permission_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise serial.SerialException(13, "could not open port")

    monkeypatch.setattr(serial, "serial_for_url", refuse)
    with pytest.raises(LinkOpenError, match="no permission; add the user to the port's group"):
        transport.open_transport("/dev/ttyTEST", 115200)
    monkeypatch.undo()
    with pytest.raises(LinkOpenError, match="nonsense"):
        transport.open_transport("nonsense://x", 115200)


def _port(device: str, vid: int | None, pid: int | None, serial_number: str | None, product: str | None) -> Any:
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number=serial_number, product=product)


_PORTS = [
    _port("/dev/ttyACM1", 0x0483, 0x5740, "B7", "Acme Stethoscope 2"),
    _port("/dev/ttyACM0", 0x1209, 0x0001, "A1", None),
    _port("/dev/ttyUSB0", 0x0403, 0x6001, "C3", "USB UART"),
    _port("/dev/ttyS0", None, None, None, None),
]


def test_stethoscopes_are_found_by_ids_or_product_and_chosen_by_serial_number() -> None:
    assert [found.device for found in find_devices(lambda: _PORTS)] == ["/dev/ttyACM0", "/dev/ttyACM1"]
    assert [found.device for found in find_devices(lambda: _PORTS, product="")] == ["/dev/ttyACM0"]
    assert [found.device for found in find_devices(lambda: _PORTS, usb_ids={(0x0403, 0x6001)}, product="")] == [
        "/dev/ttyUSB0"
    ]
    assert find_single_device(lambda: _PORTS, serial_number="B7").port == "/dev/ttyACM1"
    with pytest.raises(LinkOpenError, match=r"2 serial stethoscopes found; name one: .*ttyACM0, .*ttyACM1"):
        find_single_device(lambda: _PORTS)
    with pytest.raises(LinkOpenError, match="no serial stethoscope found; plug it in"):
        find_single_device(lambda: _PORTS[2:])
