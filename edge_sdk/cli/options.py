"""Options that several commands share, and what their values become."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from edge_sdk.numbers import whole_number

BundleOption = Annotated[
    str, typer.Option("--bundle", "-b", help="Bundle directory, or a name: 'default', 'standard'.", metavar="B")
]
ArtefactOption = Annotated[
    str | None, typer.Option("--artefact", help="Format to run instead of the bundle's default.", metavar="FORMAT")
]
SpeedOption = Annotated[
    float, typer.Option("--speed", min=0.1, max=100.0, help="Pace of simulated and recorded audio.", metavar="X")
]
AuditOption = Annotated[
    Path | None, typer.Option("--audit", help="Audit log to append to (else STETHO_AUDIT).", metavar="FILE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout, and nothing else there.")]
SiteOption = Annotated[
    str | None, typer.Option("--site", help="Body site: trachea, or left or right anterior, posterior, lateral.")
]
AgeOption = Annotated[float | None, typer.Option("--age", min=0, max=130, help="Age in years.")]
SexOption = Annotated[str | None, typer.Option("--sex", help="Sex: male or female.")]
BmiOption = Annotated[float | None, typer.Option("--bmi", min=5, max=120, help="Body mass index, kg/m².")]
DeviceModelOption = Annotated[str | None, typer.Option("--device-model", help="Stethoscope model.")]
BaudOption = Annotated[
    int | None,
    typer.Option(
        "--baud", min=300, max=20_000_000, help="Baud rate of a serial device with a UART (921600).", metavar="RATE"
    ),
]
ChannelOption = Annotated[
    str, typer.Option("--channel", help="Channel of a multi-channel source, from 0, or 'mix'.", metavar="N|mix")
]


def given_metadata(
    site: str | None, age: float | None, sex: str | None, bmi: float | None, device_model: str | None
) -> dict[str, str | float]:
    """Metadata of the patient and the device as given on the command line; absent options are left out."""
    given = {"site": site, "age_years": age, "sex": sex, "bmi": bmi, "device": device_model}
    return {name: value for name, value in given.items() if value is not None}


def channel_of(text: str) -> int | Literal["mix"]:
    """``--channel`` as sources take it."""
    if text == "mix":
        return "mix"
    number = whole_number(text)
    if number is not None:
        return number
    raise typer.BadParameter(f"{text!r} is neither a channel number from 0 nor 'mix'", param_hint="--channel")


def latency_of(text: str | None) -> float | Literal["low", "high"] | None:
    """``--latency`` as microphones take it: seconds or a word."""
    if text is None:
        return None
    if text == "low":
        return "low"
    if text == "high":
        return "high"
    with suppress(ValueError):
        if 0 < (milliseconds := float(text)) <= 10_000:
            return milliseconds / 1000
    raise typer.BadParameter(f"{text!r} is neither low, high nor milliseconds", param_hint="--latency")
