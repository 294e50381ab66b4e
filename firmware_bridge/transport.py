"""Opens a serial port or socket; every way in which it can disappear becomes ``LinkLost``."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from typing import Protocol

import serial

from firmware_bridge.errors import LinkLost, LinkOpenError, LinkStalled

try:
    import termios

    _GONE: tuple[type[Exception], ...] = (
        OSError,
        termios.error,
    )  # flush and ioctl raise the latter, which is no OSError
except ImportError:  # not on Windows
    _GONE = (OSError,)

_GONE_OR_UNKNOWN: tuple[type[Exception], ...] = (*_GONE, ValueError)  # ValueError: a URL that pyserial does not know

READ_TIMEOUT_S = 0.1
WRITE_TIMEOUT_S = 1.0
_CONNECT_TIMEOUT_S = 2.0
_CHUNK = 65536
_SOCKET_PREFIXES = ("socket://", "tcp:")


class Transport(Protocol):
    """A byte stream to a device. Reads and writes may come from two threads."""

    def read(self) -> bytes:
        """Return the received bytes, waiting up to 0.1 s; empty if there are none.

        Raises
        ------
        LinkLost
            If the device or the connection is gone.
        """

    def write(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises
        ------
        LinkStalled
            If the device accepts no bytes.
        LinkLost
            If the device or the connection is gone.
        """

    def close(self) -> None:
        """Release the port. Never raises."""


def open_transport(port: str, baud: int) -> Transport:
    """Open a serial port, ``socket://HOST:PORT``, ``tcp:[HOST:]PORT`` or any other URL that pyserial knows.

    Raises
    ------
    LinkOpenError
        If it does not exist, may not be used, or is in use by another program.
    """
    if is_socket(port):
        return _SocketTransport(port)
    return _SerialTransport(port, baud)


def is_socket(port: str) -> bool:
    """Whether ``port`` is a TCP connection, which has no baud rate."""
    return port.startswith(_SOCKET_PREFIXES)


def socket_address(port: str) -> tuple[str, int]:
    """Return (host, port number) of ``socket://HOST:PORT`` or ``tcp:[HOST:]PORT``.

    Raises
    ------
    LinkOpenError
        If it names no TCP port.
    """
    text = port
    for prefix in _SOCKET_PREFIXES:
        text = text.removeprefix(prefix)
    host, _, number = text.rpartition(":")
    if not number.isascii() or not number.isdigit() or int(number) > 65535:
        raise LinkOpenError(f"{port} names no TCP port; write tcp:PORT, tcp:HOST:PORT or socket://HOST:PORT")
    return host or "127.0.0.1", int(number)


class _SerialTransport:
    def __init__(self, port: str, baud: int) -> None:
        self._name = port
        try:
            # Exclusive: two readers of one port would steal bytes from each other.
            self._port = serial.serial_for_url(
                port, baudrate=baud, timeout=READ_TIMEOUT_S, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
        except _GONE_OR_UNKNOWN as error:
            raise _not_opened(port, error) from error

    def read(self) -> bytes:
        try:
            # A larger request would wait for its last byte and delay every block.
            return bytes(self._port.read(max(1, self._port.in_waiting)))
        except _GONE as error:
            raise LinkLost(f"{self._name}: device disconnected ({error})") from error

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except serial.SerialTimeoutException as error:
            raise LinkStalled(f"{self._name}: the device takes no bytes") from error
        except _GONE as error:
            raise LinkLost(f"{self._name}: device disconnected ({error})") from error

    def close(self) -> None:
        with contextlib.suppress(*_GONE):
            self._port.close()


class _SocketTransport:
    """pyserial has sockets too, but reports at most one waiting byte: a system call for every byte."""

    def __init__(self, port: str) -> None:
        self._name = port
        try:
            self._socket = socket.create_connection(socket_address(port), timeout=_CONNECT_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.settimeout(READ_TIMEOUT_S)
        except OSError as error:
            raise _not_opened(port, error) from error
        self._writing = threading.Lock()

    def read(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK)
        except TimeoutError:
            return b""
        except OSError as error:
            raise LinkLost(f"{self._name}: connection lost ({error})") from error
        if not data:
            raise LinkLost(f"{self._name}: the device closed the connection")
        return data

    def write(self, data: bytes) -> None:
        try:
            with self._writing:
                self._socket.sendall(data)
        except TimeoutError as error:
            raise LinkStalled(f"{self._name}: the device takes no bytes") from error
        except OSError as error:
            raise LinkLost(f"{self._name}: connection lost ({error})") from error

    def close(self) -> None:
        self._socket.close()


_REMEDIES = {
    errno.ENOENT: "no such port; plug the device in, or name another port",
    errno.EACCES: "no permission; add the user to the port's group (dialout on Debian) and log in again",
    errno.EAGAIN: "another program uses it; close that one",
    errno.EBUSY: "another program uses it; close that one",
    errno.ECONNREFUSED: "no program listens there; start the device first",
}


def _not_opened(port: str, error: Exception) -> LinkOpenError:
    number = getattr(error, "errno", None)
    if number is None and error.args and isinstance(error.args[0], int):
        number = error.args[0]
    remedy = _REMEDIES.get(number or 0)
    if remedy is None and "exclusively lock" in str(error):
        remedy = _REMEDIES[errno.EBUSY]
    return LinkOpenError(f"{port}: {remedy or error}")
