"""``stetho device-sim``: an emulated stethoscope on a pseudo-terminal or TCP port."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import ChannelOption, JsonOption, SpeedOption, channel_of
from edge_sdk.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from firmware_bridge.constants import Codec
    from firmware_bridge.emulator.device import EmulatedDevice
    from firmware_bridge.emulator.faults import Stall, Unplug
    from firmware_bridge.emulator.port import DevicePort

_PHANTOM_ONCE_S = 30.0


def device_sim_command(
    source: Annotated[
        str, typer.Option("--source", help="Audio to send: phantom[:SCENARIO[:SEED]] or a recording.", metavar="SOURCE")
    ] = "phantom:asthma",
    link: Annotated[
        str, typer.Option("--link", help="Symbolic link to its pseudo-terminal, or tcp:[HOST:]PORT.")
    ] = "stethoscope",
    once: Annotated[bool, typer.Option("--once", help="Wait for START, play once, send END, exit.")] = False,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration", min=0.1, help="Seconds of a phantom; 30 with --once; inf: for ever.", metavar="S|inf"
        ),
    ] = None,
    speed: SpeedOption = 1.0,
    channel: ChannelOption = "0",
    bits: Annotated[int, typer.Option("--bits", help="Bits a sample without --codec: 16 or 24.")] = 16,
    codec: Annotated[str | None, typer.Option("--codec", help="Sample format: s16, s24 or adpcm.")] = None,
    site: Annotated[str | None, typer.Option("--site", help="Body site that it reports.")] = None,
    serial: Annotated[str, typer.Option("--serial", help="Serial number that it reports.")] = "SIM-0001",
    model: Annotated[str, typer.Option("--model", help="Model that it reports.")] = "device-sim",
    battery: Annotated[
        str | None,
        typer.Option("--battery", help="Charge in percent, and its change a minute.", metavar="PCT[:PER_MIN]"),
    ] = None,
    rate_ppm: Annotated[float, typer.Option("--rate-ppm", help="Clock error: how much too fast it runs.")] = 0.0,
    jitter: Annotated[float, typer.Option("--jitter", min=0, help="Delay blocks by up to MS.", metavar="MS")] = 0.0,
    flip: Annotated[float, typer.Option("--flip", min=0, max=1, help="Probability that a byte is changed.")] = 0.0,
    drop: Annotated[
        float, typer.Option("--drop", min=0, help="Mean bytes between two dropouts of 1 to 64 bytes.", metavar="BYTES")
    ] = 0.0,
    stall: Annotated[
        list[str] | None,
        typer.Option("--stall", help="Send nothing from AT for FOR seconds; repeatable.", metavar="AT:FOR"),
    ] = None,
    unplug: Annotated[
        list[str] | None,
        typer.Option(
            "--unplug", help="Remove the port from AT for FOR seconds; repeatable.", metavar="AT:FOR[:reboot]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of the faults.")] = 0,
    json: JsonOption = False,
) -> None:
    """Emulate a stethoscope: play audio to whoever opens the link, as the firmware would, with faults on demand."""
    from edge_sdk.sources import open_source
    from firmware_bridge.emulator.device import DeviceOptions, EmulatedDevice
    from firmware_bridge.emulator.faults import Faults

    kind, which = source.partition(":")[0], channel_of(channel)
    if kind in ("mic", "serial"):
        raise SourceError(f"device-sim plays recordings and phantoms, not {source}")
    faults = Faults(flip, drop, jitter * 1e-3, rate_ppm, _stalls(stall), _unplugs(unplug))
    charge = [None] if battery is None else _numbers(battery, "--battery", 2)
    if once and duration is None and kind == "phantom":
        duration = _PHANTOM_ONCE_S
    if duration is not None and math.isinf(duration):
        duration = None

    def audio() -> Iterator[npt.NDArray[np.float32]]:
        with closing(open_source(source, channel=which, duration_s=duration)) as opened:
            for block in opened:
                yield block.samples

    with closing(open_source(source, channel=which, duration_s=duration)) as opened:
        rate = opened.sample_rate
    options = DeviceOptions(
        rate_hz=rate,
        codec=_codec(bits, codec),
        serial=serial,
        model=model,
        site_code=_site_code(site),
        battery_percent=charge[0],
        battery_per_min=charge[1] if len(charge) > 1 and charge[1] is not None else -0.5,
        once=once,
        speed=speed,
        seed=seed,
    )
    port = _port(link)
    device = EmulatedDevice(audio, port, options, faults)
    _serve(device, port, f"{source}, {rate} Hz, {options.codec.name.lower()}", json=json)


def _serve(device: EmulatedDevice, port: DevicePort, what: str, *, json: bool) -> None:
    try:
        with suppress(KeyboardInterrupt):  # Ctrl-C or SIGTERM
            port.plug()
            if not json:
                typer.echo(f"stethoscope on {port.name} ({what}); waiting for START")
            device.run()
    finally:
        port.unplug()
    report = device.final_report()
    if json:
        emit_json({"type": "device-sim", "link": port.name, **asdict(report)})
    else:
        typer.echo(
            f"{report.samples} samples in {report.frames} frames; {report.dropped_blocks} blocks dropped, "
            f"{report.flips} bytes flipped, {report.drops} dropouts, {report.unplugs} times unplugged"
        )


def _port(link: str) -> DevicePort:
    from firmware_bridge.emulator.port import open_device_port
    from firmware_bridge.errors import LinkError

    try:
        return open_device_port(link)
    except LinkError as error:
        raise SourceError(str(error)) from error


def _codec(bits: int, codec: str | None) -> Codec:
    from firmware_bridge.constants import Codec

    name = codec or f"s{bits}"
    if name.upper() not in Codec.__members__:
        raise typer.BadParameter("bits are 16 or 24, codecs s16, s24 or adpcm", param_hint="--bits / --codec")
    return Codec[name.upper()]


def _site_code(site: str | None) -> int:
    from firmware_bridge.constants import SITES

    if site not in SITES:
        sites = ", ".join(text for text in SITES if text)
        raise typer.BadParameter(f"{site!r} is none of {sites}", param_hint="--site")
    return SITES.index(site)


def _stalls(given: list[str] | None) -> tuple[Stall, ...]:
    from firmware_bridge.emulator.faults import Stall

    return tuple(Stall(*_pair(text, "--stall")) for text in given or ())


def _unplugs(given: list[str] | None) -> tuple[Unplug, ...]:
    from firmware_bridge.emulator.faults import Unplug

    return tuple(
        Unplug(*_pair(text.removesuffix(":reboot"), "--unplug"), text.endswith(":reboot")) for text in given or ()
    )


def _pair(text: str, option: str) -> tuple[float, float]:
    at, *length = _numbers(text, option, 2)
    if not length or at < 0 or length[0] < 0:
        raise typer.BadParameter(f"{text!r} is not AT:FOR in seconds", param_hint=option)
    return at, length[0]


def _numbers(text: str, option: str, most: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= most or not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"{text!r} is not one number, or two with ':' between", param_hint=option)
    return numbers
