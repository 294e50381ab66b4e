"""A serial stethoscope is found by its port or its serial number, at whatever port it is; trouble is explained."""

from __future__ import annotations

import contextlib
import os
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.errors import SourceError, SourceLostError
from edge_sdk.sources import open_source
from edge_sdk.sources.devices import find_serial_ports
from edge_sdk.sources.serial import SerialSource
from edge_sdk.sources.serial_port import PortSpec, parse_port
from firmware_bridge.diagnosis import DEFAULT_BAUD
from firmware_bridge.errors import LinkOpenError
from tests.support.link import emulated
from tests.support.stethoscope import noise

RATE = 4000


class Port(SimpleNamespace):
    """A port as pyserial lists it."""

    def __init__(self, device: Path, serial_number: str | None, product: str | None = "Stethoscope") -> None:
        super().__init__(
            device=str(device), vid=0x1209, pid=1, serial_number=serial_number, product=product,
            description=product or "n/a", hwid="x",
        )  # fmt: skip

    def __lt__(self, other: Port) -> bool:
        return str(self.device) < str(other.device)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Port]:
    """The ports that the system lists; a test changes them."""
    ports: list[Port] = []
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(ports))
    return ports


@pytest.fixture
def samples() -> np.ndarray:
    return noise(2.0, RATE)


@pytest.mark.parametrize(
    ("text", "baud", "spec"),
    [
        (None, None, PortSpec(None, None, DEFAULT_BAUD)),
        ("/dev/ttyUSB0", 115200, PortSpec("/dev/ttyUSB0", None, 115200)),
        ("/dev/ttyUSB0@9600", None, PortSpec("/dev/ttyUSB0", None, 9600)),
        ("@9600", 9600, PortSpec(None, None, 9600)),
        ("SN=A@7", None, SourceError),
        ("SN=A1@9600", None, PortSpec(None, "A1", 9600)),
        ("sn=A1", None, PortSpec(None, "A1", DEFAULT_BAUD)),
        ("/dev/a@b", None, PortSpec("/dev/a@b", None, DEFAULT_BAUD)),
        ("tcp:host:5000", None, PortSpec("tcp:host:5000", None, DEFAULT_BAUD)),
        ("SN=", None, SourceError),
        ("x@9600", 4800, SourceError),
        ("x", 0, SourceError),
    ],
)
def test_ports_serial_numbers_and_baud_rates_are_read(text: str | None, baud: int | None, spec: Any) -> None:
    if spec is SourceError:
        with pytest.raises(SourceError):
            parse_port(text, baud)
    else:
        assert parse_port(text, baud) == spec


def test_the_baud_rate_reaches_the_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def opened(port: str, baud: int) -> None:
        asked.append(baud)
        raise LinkOpenError(f"{port}: no such port")

    monkeypatch.setattr("firmware_bridge.link.open_transport", opened)
    for spec, options in ((f"serial:{tmp_path}@9600", {}), (f"serial:{tmp_path}", {"baud": 115200}), ("serial:x", {})):
        with pytest.raises(SourceError):
            open_source(spec, **options)  # type: ignore[arg-type]
    assert asked == [9600, 115200, DEFAULT_BAUD]
    with pytest.raises(SourceError, match="a baud rate is for serial"):
        open_source("phantom", baud=9600)


def came_back(source: SerialSource, port: Path, samples: np.ndarray) -> int:
    """Samples received after the device was pulled and is behind ``port`` now."""
    with contextlib.suppress(SourceLostError):
        for _ in source:
            pass
    with emulated(port, samples, RATE, serial="A", speed=8):
        source.reopen()
        return sum(block.samples.size for block in source)


@pytest.mark.parametrize("spec", ["serial", "serial:SN=A", "serial:{port}"])
def test_a_device_is_followed_to_another_port_by_its_usb_serial_number(
    tmp_path: Path, listed: list[Port], samples: np.ndarray, spec: str
) -> None:
    first, second = tmp_path / "ttyACM0", tmp_path / "ttyACM1"
    listed.append(Port(first, "A"))
    with emulated(first, samples, RATE, serial="A"):
        source = open_source(spec.format(port=first))
    assert isinstance(source, SerialSource)
    listed[:] = [Port(tmp_path / "ttyACM7", "C"), Port(second, "A")]
    with source:
        assert came_back(source, second, samples) == samples.size


def test_a_serial_number_that_only_the_device_knows_is_found_by_asking(
    tmp_path: Path, listed: list[Port], samples: np.ndarray
) -> None:
    """USB bridges have a serial number of their own, or none."""
    with emulated(tmp_path / "a", samples, RATE, serial="A"), emulated(tmp_path / "b", samples, RATE, serial="B"):
        listed[:] = [Port(tmp_path / "a", None), Port(tmp_path / "b", "0001")]
        with open_source("serial:SN=B") as source:  # type: ignore[attr-defined]
            assert source.device["serial_number"] == "B"
        with pytest.raises(SourceError, match=r"number C found; plug it in; found: A at .*, B at"):
            open_source("serial:SN=C")
        listed[0].serial_number = "0001"  # cheap adapters share theirs: it names nobody
        with open_source("serial:SN=A") as source:  # type: ignore[attr-defined]
            assert source.device["serial_number"] == "A"


def test_the_only_other_stethoscope_is_taken_after_a_moment_and_a_wanted_one_is_waited_for(
    tmp_path: Path, listed: list[Port], samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec, taken in (("serial", True), ("serial:SN=A", False)):
        listed[:] = [Port(tmp_path / "a", "A")]
        with emulated(tmp_path / "a", samples, RATE, serial="A"):
            source = open_source(spec)
        assert isinstance(source, SerialSource)
        listed[:] = [Port(tmp_path / "b", "B")]
        with source, emulated(tmp_path / "b", samples, RATE, serial="B"):
            with contextlib.suppress(SourceLostError):
                list(source)
            with pytest.raises(SourceError, match="number A"):
                source.reopen()
            monkeypatch.setattr("edge_sdk.sources.serial_port._GRACE_S", 0.0)
            if taken:
                source.reopen()
            else:
                with pytest.raises(SourceError, match=r"number A found; .* B at"):
                    source.reopen()
            monkeypatch.undo()
            monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(listed))


def test_a_port_that_stays_away_comes_with_the_hint_at_the_serial_number(
    tmp_path: Path, listed: list[Port], samples: np.ndarray
) -> None:
    """A pseudo-terminal or an adapter has no USB serial number to follow."""
    with emulated(tmp_path / "a", samples, RATE, serial="A"):
        source = SerialSource(str(tmp_path / "a"))
    with source:
        with contextlib.suppress(SourceLostError):
            list(source)
        listed.append(Port(tmp_path / "b", "X"))
        with pytest.raises(SourceError, match=r"no such port; .*b is there.*'serial:SN=A' finds it"):
            source.reopen()


def test_devices_are_asked_what_they_are(tmp_path: Path, listed: list[Port], samples: np.ndarray) -> None:
    listed[:] = [Port(tmp_path / "a", None), Port(tmp_path / "b", None, "UART")]
    assert all("device" not in record for record in find_serial_ports())
    with emulated(tmp_path / "a", samples, RATE, serial="A", site_code=1):
        there, absent = find_serial_ports(ask=True)
    expected = {
        "serial_number": "A",
        "model": "device-sim",
        "firmware": "1.0.0",
        "site": "trachea",
        "sample_rate": RATE,
    }
    assert (there["device"], there["problem"]) == (expected, None)
    assert absent["device"] is None and "no such port" in absent["problem"]


@pytest.fixture
def babbler() -> Iterator[Any]:
    """A port that sends the bytes of a test over and over, and takes what it gets."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    stop = threading.Event()
    made = SimpleNamespace(port=os.ttyname(slave), content=b"")

    def run() -> None:
        while not stop.wait(0.005):
            with contextlib.suppress(OSError):
                os.write(master, made.content)
            with contextlib.suppress(OSError):
                os.read(master, 4096)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield made
    stop.set()
    thread.join(5)
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ((1000 * np.sin(np.arange(160))).astype("<i2").tobytes(), ["no frames", "--baud 115200", "raw PCM"]),
        (bytes(320), ["no frames", "--baud 115200", "raw PCM"]),
        (b"\x00\x01", ["no frames", "--baud 115200"]),
        (b"adc 1023\r\nadc 1001\r\n", ["sends text ('adc 1023", "link protocol"]),
        (b"", ["nothing replies", "--baud, now 4800"]),
    ],
)
def test_bytes_that_are_no_frames_are_explained(
    babbler: Any, content: bytes, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware_bridge.link._HELLO_RETRIES", 1)
    babbler.content = content
    with pytest.raises(SourceError) as caught:
        SerialSource(babbler.port, baud=4800)
    assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert "\n" not in str(caught.value)
