"""Errors of the link; every message says what is wrong and what to do."""

from __future__ import annotations


class LinkError(Exception):
    """Base of every error of the link."""


class ProtocolError(LinkError):
    """A frame or payload that cannot be built or read."""


class LinkOpenError(LinkError):
    """No such port, no permission, or another program holds it."""


class LinkVersionError(LinkError):
    """The device speaks another major version of the protocol."""


class LinkLost(LinkError):
    """The device has vanished: unplugged, switched off, connection closed."""


class LinkStalled(LinkError):
    """The port is open but no audio has come for longer than asked."""


class CommandError(LinkError):
    """A command was refused (``code`` says why) or never acknowledged (``code`` is None)."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
