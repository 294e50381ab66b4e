"""Microphones and serial ports of this machine, as JSON-ready records."""

from __future__ import annotations

from typing import Any


def find_microphones() -> tuple[list[dict[str, Any]], str | None]:
    """Find input devices.

    Returns
    -------
    records, problem
        ``index``, ``name``, ``channels``, ``sample_rate`` and ``default`` of each; why none can be found, or None.
    """
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


def find_serial_ports(*, ask: bool = False, baud: int | None = None) -> list[dict[str, Any]]:
    """Find serial ports with a device behind them, and mark those that are stethoscopes.

    Parameters
    ----------
    ask
        Open every USB port and ask what is there: ``device`` has what it reports, or ``problem`` why it does not. It
        takes up to 3 s a port, and boards that restart when their port is opened do so.
    baud
        Baud rate to ask at; None is that of the reference firmware.
    """
    from serial.tools import list_ports

    from firmware_bridge.discovery import find_devices

    ports = sorted(list_ports.comports())
    stethoscopes = {found.device: found for found in find_devices(lambda: ports)}
    records: list[dict[str, Any]] = [
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
    for port, record in zip(ports, records, strict=True):
        if ask and (port.vid is not None or record["stethoscope"]):
            record |= _ask(record["port"], baud)
    return records


def _ask(port: str, baud: int | None) -> dict[str, Any]:
    from firmware_bridge.diagnosis import DEFAULT_BAUD
    from firmware_bridge.discovery import identify
    from firmware_bridge.errors import LinkError

    try:
        info, audio = identify(port, baud=DEFAULT_BAUD if baud is None else baud)
    except LinkError as error:
        return {"device": None, "problem": str(error)}
    return {
        "device": {
            "serial_number": info.serial or None,
            "model": info.model or None,
            "firmware": ".".join(map(str, info.firmware)),
            "site": audio.site,
            "sample_rate": audio.rate_hz,
        },
        "problem": None,
    }
