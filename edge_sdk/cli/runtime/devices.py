"""``stetho devices``: microphones and serial ports that this machine has."""

from __future__ import annotations

from typing import Any

import typer

from edge_sdk.cli.options import JsonOption, emit_json


def devices(json: JsonOption = False) -> None:
    """List microphones and serial stethoscopes."""
    microphones, why_none = find_microphones()
    ports = find_serial_ports()
    if json:
        for record in [*microphones, *ports]:
            emit_json(record)
        return
    typer.echo("microphones")
    for found in microphones:
        mark = "*" if found["default"] else " "
        typer.echo(f" {mark} {found['index']:>2}  {found['name']} ({found['channels']} ch)")
    if not microphones:
        typer.echo(f"   none{f': {why_none}' if why_none else ''}")
    typer.echo("serial ports")
    for found in ports:
        mark = "*" if found["stethoscope"] else " "
        typer.echo(f" {mark} {found['port']}  {found['description']}")
    if not ports:
        typer.echo("   none")
    typer.echo("listen to one with 'stetho listen mic:NAME' (a number or part of the name) or 'serial:PORT';")
    typer.echo("* is what 'stetho listen mic' and 'stetho listen serial' take")


def find_microphones() -> tuple[list[dict[str, Any]], str | None]:
    """Input devices, and why there is none where the library is missing."""
    try:
        import sounddevice

        default = sounddevice.default.device[0]
        found = sounddevice.query_devices()
    except (OSError, ImportError) as error:  # the wheel is there, the system's PortAudio is not
        return [], f"{error}; install libportaudio2 (Debian, Ubuntu), portaudio (Fedora, Homebrew)"
    except Exception as error:  # PortAudio's own errors: no audio system at all
        return [], str(error)
    return [
        {
            "type": "microphone",
            "index": index,
            "name": device["name"],
            "channels": device["max_input_channels"],
            "sample_rate": device["default_samplerate"],
            "default": index == default,
        }
        for index, device in enumerate(found)
        if device["max_input_channels"] > 0
    ], None


def find_serial_ports() -> list[dict[str, Any]]:
    """Serial ports that have a device behind them, and which of them are stethoscopes."""
    from serial.tools import list_ports

    from firmware_bridge.discovery import find_devices

    ports = sorted(list_ports.comports())
    stethoscopes = {found.device: found for found in find_devices(lambda: ports)}
    return [
        {
            "type": "serial",
            "port": stethoscopes[port.device].port if port.device in stethoscopes else port.device,
            "description": port.description,
            "hardware_id": port.hwid,
            "stethoscope": port.device in stethoscopes,
            "serial_number": port.serial_number,
        }
        for port in ports
    ]
