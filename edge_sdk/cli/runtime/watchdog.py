"""Signs of life for a service manager (systemd's ``sd_notify``): ready, alive, stopping; nothing without one."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

_SHARE = 3  # signs of life in the time after which the manager takes the service for dead


class ServiceNotifier:
    """Reports to the socket in ``$NOTIFY_SOCKET``; a socket that cannot be reached is no reason to stop.

    Parameters
    ----------
    environment
        Variables to read instead of the process's.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        address = found.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        interval_us = found.get("WATCHDOG_USEC", "")
        self._interval_s = int(interval_us) / 1e6 / _SHARE if interval_us.isdecimal() else None
        self._next_s = 0.0
        self._ready = False

    def alive(self) -> None:
        """Call it in every turn of the loop that does the work: the first one means ready."""
        if not self._address:
            return
        if not self._ready:
            self._ready = True
            self._send("READY=1")
        now_s = time.monotonic()
        if self._interval_s is not None and now_s >= self._next_s:
            self._next_s = now_s + self._interval_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service ends by itself or was asked to."""
        if self._address:
            self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), self._address)
