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


def find_serial_ports() -> list[dict[str, Any]]:
    """Find serial ports with a device behind them, and mark those that are stethoscopes."""
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
