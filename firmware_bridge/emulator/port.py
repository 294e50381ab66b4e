"""The device's end of a link: a pseudo-terminal with a stable name, or a TCP server."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Protocol

from firmware_bridge.errors import LinkOpenError
from firmware_bridge.transport import socket_address

_CHUNK = 65536


class DevicePort(Protocol):
    """A device's end of a link; only :meth:`wait` blocks."""

    @property
    def name(self) -> str:
        """What the host opens."""

    @property
    def plugged(self) -> bool:
        """Whether the host can see the port."""

    def plug(self) -> None:
        """Appear to the host. No effect if plugged."""

    def unplug(self) -> None:
        """Disappear, like a cable that is pulled."""

    def wait(self, timeout_s: float, *, to_write: bool) -> None:
        """Wait until bytes can be read (or written), at most ``timeout_s``."""

    def read(self) -> bytes:
        """Return the received bytes; empty if there are none."""

    def write(self, data: bytes) -> int:
        """Return how many bytes were accepted."""

    @property
    def host_present(self) -> bool | None:
        """Whether a host is connected; None where that is unknown (a pseudo-terminal)."""


class PtyPort:
    """A pseudo-terminal behind a symbolic link that keeps its name when the terminal changes."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._master = self._slave = -1
        if link.exists() and not link.is_symlink():
            raise LinkOpenError(f"{link} exists and is no link of an emulated device; choose another --link")
        if not link.parent.is_dir():
            raise LinkOpenError(f"{link.parent} is no folder; make it, or choose another --link")

    @property
    def name(self) -> str:
        """What the host opens."""
        return str(self._link)

    @property
    def plugged(self) -> bool:
        """Whether the host can see the port."""
        return self._master >= 0

    @property
    def host_present(self) -> bool | None:
        """None: a pseudo-terminal does not know."""
        return None

    def plug(self) -> None:
        """Appear to the host. No effect if plugged."""
        import tty

        if self.plugged:
            return
        # The slave end stays open here, so that hosts may open and close the port.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        # Created beside and renamed: the name always points to a terminal.
        fresh = self._link.with_name(f"{self._link.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._link)

    def unplug(self) -> None:
        """Disappear, like a cable that is pulled."""
        if not self.plugged:
            return
        if self._link.is_symlink() and str(self._link.readlink()) == os.ttyname(self._slave):
            self._link.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def wait(self, timeout_s: float, *, to_write: bool) -> None:
        """Wait until bytes can be read (or written), at most ``timeout_s``."""
        fds = [self._master] if self.plugged else []
        select.select(fds, fds if to_write else [], [], max(0.0, timeout_s))

    def read(self) -> bytes:
        """Return the received bytes; empty if there are none."""
        try:
            return os.read(self._master, _CHUNK) if self.plugged else b""
        except OSError:  # nothing to read
            return b""

    def write(self, data: bytes) -> int:
        """Return how many bytes were accepted."""
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0


class TcpPort:
    """A TCP server for one host at a time; a second one waits until the first is gone. Port 0 takes any free one."""

    def __init__(self, address: str) -> None:
        host, number = socket_address(address)
        self._server: socket.socket | None = None
        self._client: socket.socket | None = None
        self._host, self._number = host, number
        self.plug()

    @property
    def name(self) -> str:
        """What the host opens."""
        return f"socket://{self._host}:{self._number}"

    @property
    def plugged(self) -> bool:
        """Whether the host can see the port."""
        return self._server is not None

    @property
    def host_present(self) -> bool | None:
        """Whether a host is connected."""
        return self._client is not None

    def plug(self) -> None:
        """Appear to the host. No effect if plugged."""
        if self.plugged:
            return
        try:
            self._server = socket.create_server((self._host, self._number), backlog=1)
        except OSError as error:
            raise LinkOpenError(f"cannot listen on {self._host}:{self._number}: {error.strerror}") from error
        self._server.setblocking(False)
        self._number = self._server.getsockname()[1]

    def unplug(self) -> None:
        """Disappear, like a cable that is pulled."""
        self._disconnect()
        if self._server is not None:
            self._server.close()
            self._server = None

    def wait(self, timeout_s: float, *, to_write: bool) -> None:
        """Wait until bytes can be read (or written), at most ``timeout_s``."""
        ends = [end for end in (self._client or self._server,) if end is not None]
        select.select(ends, [self._client] if to_write and self._client else [], [], max(0.0, timeout_s))

    def read(self) -> bytes:
        """Return the received bytes; empty if there are none."""
        if self._client is None and self._server is not None:
            with contextlib.suppress(BlockingIOError):
                self._client, _ = self._server.accept()
                self._client.setblocking(False)
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._client is None:
            return b""
        try:
            data = self._client.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._disconnect()
        return data

    def write(self, data: bytes) -> int:
        """Return how many bytes were accepted."""
        if self._client is None:
            return len(data)  # no host is connected
        try:
            return self._client.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._disconnect()
            return len(data)

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def open_device_port(link: str) -> DevicePort:
    """Open ``tcp:[HOST:]PORT`` or a pseudo-terminal behind the symbolic link ``link``.

    Raises
    ------
    LinkOpenError
        If the path is in use by something else or its folder is missing, or the TCP port is in use.
    """
    if link.startswith(("tcp:", "socket://")):
        return TcpPort(link)
    return PtyPort(Path(link))
