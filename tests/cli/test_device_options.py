"""How ``listen`` and ``devices`` show devices, and how trouble looks on a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import typer
from rich.console import Console

from edge_sdk.cli.options import latency_of
from edge_sdk.events import Health
from edge_sdk.sinks.live import LiveSink
from edge_sdk.sinks.summary import Labels
from edge_sdk.sources.devices import find_serial_ports
from tests.cli.conftest import Stetho


def port(device: str, vid: int | None, pid: int | None, product: str | None) -> SimpleNamespace:
    return SimpleNamespace(
        device=device, vid=vid, pid=pid, product=product, serial_number="S7", description=product or "n/a", hwid="x"
    )


def test_stethoscopes_are_marked_among_the_serial_ports(stetho: Stetho, monkeypatch: pytest.MonkeyPatch) -> None:
    class Port(SimpleNamespace):
        def __lt__(self, other: SimpleNamespace) -> bool:
            return str(self.device) < str(other.device)

    ports = [
        Port(**vars(port("/dev/ttyUSB9", 0x0403, 0x6001, "some adapter"))),
        Port(**vars(port("/dev/ttyACM9", 0x1209, 0x0001, "Stethoscope"))),
        Port(**vars(port("/dev/ttyS9", None, None, None))),
    ]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: ports)
    found = {record["port"]: record["stethoscope"] for record in find_serial_ports()}
    assert found == {"/dev/ttyACM9": True, "/dev/ttyS9": False, "/dev/ttyUSB9": False}
    lines = [line.split() for line in stetho("devices").out.splitlines()]
    assert ["*", "/dev/ttyACM9", "Stethoscope"] in lines and ["/dev/ttyUSB9", "some", "adapter"] in lines


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("low", "low"), ("high", "high"), ("40", 0.04)])
def test_latency_is_a_word_or_milliseconds(text: str | None, seconds: object) -> None:
    assert latency_of(text) == seconds


@pytest.mark.parametrize("text", ["", "fast", "0", "-3", "nan", "1e9"])
def test_any_other_latency_is_a_usage_error(stetho: Stetho, text: str) -> None:
    with pytest.raises(typer.BadParameter):
        latency_of(text)
    assert stetho("listen", "mic", "--latency", text).status == 2


def test_the_live_view_shows_trouble_until_it_is_over() -> None:
    out = io.StringIO()
    sink = LiveSink(
        Console(width=100, height=24, file=out, force_terminal=True), Labels(("normal", "wheeze"), "normal")
    )
    sink.open("mic", 4000)
    for change, shown in (
        (Health("stalled", "mic has delivered no sound", 0), "stalled: mic has delivered no sound"),
        (Health("recovering", "mic was lost", 0), "recovering: mic was lost"),
        (Health("healthy", "this machine is too slow", 0, overloaded=True), "overload: this machine is too slow"),
        (Health("healthy", "caught up", 0), "waiting for a breath"),
    ):
        out.truncate(0)
        sink.health(change)
        assert shown in out.getvalue()
    sink._live.stop()
