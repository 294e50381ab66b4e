"""``stetho devices``: microphones and serial ports that this machine has."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edge_sdk.cli.messages import emit_json
from edge_sdk.cli.options import BaudOption, JsonOption


def devices_command(
    ask: Annotated[
        bool, typer.Option("--ask", help="Open every USB serial port and ask what is there; up to 3 s a port.")
    ] = False,
    baud: BaudOption = None,
    json: JsonOption = False,
) -> None:
    """List microphones and serial stethoscopes."""
    from edge_sdk.cli.tables import Column, print_table
    from edge_sdk.sources.devices import find_microphones, find_serial_ports

    microphones, problem = find_microphones()
    ports = find_serial_ports(ask=ask or baud is not None, baud=baud)
    if json:
        for record in [*microphones, *ports]:
            emit_json(record)
        return
    mark, detail = Column("", "name"), Column("", "text", keep=True)
    typer.echo("microphones")
    if microphones:
        rows = [
            [" *" if m["default"] else "", str(m["index"]), f"{m['name']} ({m['channels']} ch)"] for m in microphones
        ]
        print_table([mark, Column("", keep=True), detail], rows, header=False)
    else:
        typer.echo(f"   none{f': {problem}' if problem else ''}")
    typer.echo("serial ports")
    if ports:
        rows = [[" *" if p["stethoscope"] else "", p["port"], _serial_text(p)] for p in ports]
        print_table([mark, Column("", "name"), detail], rows, header=False)
    else:
        typer.echo("   none")
    typer.echo("listen to one with 'stetho listen mic:NAME' (a number or part of the name) or 'serial:PORT'")
    typer.echo("('serial:SN=NUMBER' follows a serial number from port to port);")
    typer.echo("* is what 'stetho listen mic' and 'stetho listen serial' take")


def _serial_text(port: dict[str, Any]) -> str:
    device = port.get("device")
    if device is not None:
        number = device["serial_number"] or "no serial number"
        return f"{port['description']}: {device['model']}, {number}, {device['sample_rate']:g} Hz"
    return f"{port['description']}: {port['problem']}" if port.get("problem") else str(port["description"])
