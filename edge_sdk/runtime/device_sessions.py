"""One session per device: when another stethoscope takes the place of the first, its audio is another session."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_sdk.errors import DeviceChangedError
from edge_sdk.protocols import Replaceable

if TYPE_CHECKING:
    from edge_sdk.events import StreamStats
    from edge_sdk.protocols import Source
    from edge_sdk.runtime.session import Session


def run_device_sessions(source: Source, new_session: Callable[[DeviceChangedError | None], Session]) -> StreamStats:
    """Run a session, and one more for each device that takes the place of the one before; return the last counters.

    Parameters
    ----------
    source
        Stays open between two sessions; its name is another one in each.
    new_session
        Makes the session of a device, with sinks of its own. Called with the change that ended the one before; None
        for the first.

    Raises
    ------
    StethoError
        As :meth:`Session.run`.
    """
    change: DeviceChangedError | None = None
    while True:
        session = new_session(change)
        try:
            return session.run()
        except DeviceChangedError as found:
            if not isinstance(source, Replaceable):
                raise
            change = found
            source.new_session()
