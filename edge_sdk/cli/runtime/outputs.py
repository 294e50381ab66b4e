"""What ``listen`` feeds beside the view and the recording: an MQTT broker, and a page for Prometheus."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.messages import note_line

if TYPE_CHECKING:
    from edge_sdk.protocols import Sink, Source
    from edge_sdk.runtime.bundle.load import Bundle

MqttOption = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        help="Publish to a broker: mqtt://USER@HOST:PORT/TOPIC, or mqtts:// with TLS; password: STETHO_MQTT_PASSWORD.",
        metavar="URL",
    ),
]
MqttPasswordFileOption = Annotated[
    Path | None,
    typer.Option("--mqtt-password-file", help="File with the password of the broker.", metavar="FILE"),
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics", help="Serve metrics for Prometheus on this port of this machine only.", metavar="[HOST:]PORT"
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of this stethoscope for --mqtt and --metrics; absent: host and source."),
]


@contextmanager
def opened_outputs(
    source: Source,
    bundle: Bundle,
    *,
    name: str | None,
    mqtt: str | None,
    mqtt_password_file: Path | None,
    metrics: str | None,
) -> Iterator[Callable[[], list[Sink]]]:
    """A function that makes the sinks of one session; the metrics are served until the end of ``with``.

    Raises
    ------
    StethoError
        A URL or address that cannot be used, or a port that is taken; a broker that cannot be reached is none.
    """
    if mqtt_password_file is not None and mqtt is None:
        raise typer.BadParameter("goes with --mqtt URL", param_hint="--mqtt-password-file")
    shown = name or _name_of(source)
    makers: list[Callable[[], Sink]] = []
    if mqtt is not None:
        from edge_sdk.screening.recordings import summary_labels
        from edge_sdk.sinks.mqtt import MqttSink
        from edge_sdk.sinks.mqtt_address import read_broker

        broker = read_broker(mqtt, password_file=mqtt_password_file)
        model = f"{bundle.manifest.name} {bundle.manifest.version}"
        makers.append(lambda: MqttSink(broker, summary_labels(bundle), name=shown, model=model, notify=note_line))
    if metrics is None:
        yield lambda: [make() for make in makers]
        return
    from edge_sdk.screening.recordings import metrics_about
    from edge_sdk.sinks.metrics import MetricsServer, StreamMetrics

    page = StreamMetrics(lambda: metrics_about(bundle))
    server = MetricsServer(page, metrics)
    note_line(f"metrics at {server.url}")
    try:
        yield lambda: [*(make() for make in makers), page.sink(shown)]
    finally:
        server.close()


def _name_of(source: Source) -> str:
    """Host and kind of the source, with the device; of a recording no name, which may be that of a patient."""
    named = getattr(source, "live", False) or source.name.startswith("phantom:")
    device = re.sub(r"/\S*/", "", source.name) if named else "file"  # serial:/dev/ttyACM0 → serial:ttyACM0
    return re.sub(r"\s+", " ", f"{socket.gethostname()} {device}").strip()
