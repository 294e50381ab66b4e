"""``stetho listen``: a live source and its breaths as they happen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from edge_sdk.cli.options import (
    AgeOption,
    ArtefactOption,
    AuditOption,
    BaudOption,
    BmiOption,
    BundleOption,
    ChannelOption,
    DeviceModelOption,
    JsonOption,
    SexOption,
    SiteOption,
    SpeedOption,
    channel_of,
    given_metadata,
    latency_of,
)
from edge_sdk.cli.runtime.outputs import (
    MetricsOption,
    MqttOption,
    MqttPasswordFileOption,
    NameOption,
    opened_outputs,
)


def listen_command(
    source: Annotated[
        str,
        typer.Argument(
            help="mic[:NAME], serial[:PORT|:SN=NUMBER][@BAUD], phantom[:SCENARIO[:SEED]], a file, or -: stdin.",
            metavar="SOURCE",
        ),
    ],
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Folder to keep the audio and its events in.", metavar="DIR")
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", min=0.001, help="Stop after so many seconds; inf: never.", metavar="S|inf"),
    ] = None,
    speed: SpeedOption = 1.0,
    channel: ChannelOption = "0",
    device_rate: Annotated[
        int | None,
        typer.Option(
            "--device-rate",
            min=1000,
            max=192_000,
            help="Sample rate to request from a microphone or serial device.",
            metavar="HZ",
        ),
    ] = None,
    baud: BaudOption = None,
    block_ms: Annotated[
        float | None,
        typer.Option(
            "--block-ms",
            min=0,
            max=1000,
            help="Block length of a microphone; 0: the audio system chooses.",
            metavar="MS",
        ),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option("--latency", help="Buffer of the audio system for a microphone.", metavar="low|high|MS"),
    ] = None,
    keep_session: Annotated[
        bool,
        typer.Option(
            "--keep-session",
            help="Go on with the same session, recording and summary when another stethoscope takes the place.",
        ),
    ] = False,
    site: SiteOption = None,
    age: AgeOption = None,
    sex: SexOption = None,
    bmi: BmiOption = None,
    device_model: DeviceModelOption = None,
    mqtt: MqttOption = None,
    mqtt_password_file: MqttPasswordFileOption = None,
    metrics: MetricsOption = None,
    name: NameOption = None,
    audit: AuditOption = None,
    json: JsonOption = False,
) -> None:
    """Listen to a source live, until it ends or Ctrl-C; the summary comes last."""
    from edge_sdk.audit import audit_log
    from edge_sdk.cli.runtime.playing import play
    from edge_sdk.runtime.bundle.load import load_bundle
    from edge_sdk.sources import open_source
    from edge_sdk.sources.shortened import ShortenedSource

    which = channel_of(channel)
    metadata = given_metadata(site, age, sex, bmi, device_model)
    loaded = load_bundle(bundle, artefact=artefact)
    opened = open_source(
        source,
        paced=True,
        channel=which,
        speed=speed,
        device_rate=device_rate,
        baud=baud,
        block_ms=block_ms,
        latency=latency_of(latency),
    )
    if duration is not None and math.isfinite(duration):
        opened = ShortenedSource(opened, duration)
    try:
        with opened_outputs(
            opened, loaded, name=name, mqtt=mqtt, mqtt_password_file=mqtt_password_file, metrics=metrics
        ) as outputs:
            play(
                opened,
                loaded,
                json=json,
                metadata=metadata,
                record=record,
                keep_session=keep_session,
                outputs=outputs,
                audit=audit_log(audit),
            )
    finally:
        opened.close()
