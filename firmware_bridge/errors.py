"""Errors of the link; every message names the problem and what to do."""

from __future__ import annotations


class LinkError(Exception):
    """Base of every error of the link."""


class ProtocolError(LinkError):
    """A frame or payload cannot be built or read."""


class LinkOpenError(LinkError):
    """The port does not exist, may not be used, or is in use by another program."""


class LinkVersionError(LinkError):
    """The device uses another major version of the protocol."""


class LinkLost(LinkError):
    """The device is gone: unplugged, switched off, or the connection was closed."""


class LinkStalled(LinkError):
    """The port is open but no audio has arrived within the timeout."""


class CommandError(LinkError):
    """A command was refused (``code`` gives the reason) or never acknowledged (``code`` is None)."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
