"""A serial stethoscope that speaks the link protocol of ``firmware_bridge``; gaps are exact, by its own counter."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_sdk.errors import AudioError, SourceError, SourceLostError
from edge_sdk.events import AudioBlock

if TYPE_CHECKING:
    from firmware_bridge.link import DeviceLink, LinkStats
    from firmware_bridge.sample_account import ResumePoint

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_SILENT_S = 5.0  # an open port without audio: then it is opened anew


class SerialSource:
    """Plays what a device captures until it says END. When it vanishes the iterator raises ``SourceLostError``.

    After a successful :meth:`reopen` it can be iterated again; the loss in between is exact as long as the device was
    not restarted, otherwise by the host's clock.

    Parameters
    ----------
    port
        Serial port, ``socket://HOST:PORT`` or ``tcp:[HOST:]PORT``; None is the one stethoscope that is plugged in.
    sample_rate
        Hz to ask the device for; None takes what it has.
    channel
        Number from 0 of an interleaved channel.

    Raises
    ------
    SourceError
        No such port, no permission, taken by another program, nobody answers, or another major version.
    """

    live = True

    def __init__(
        self, port: str | None = None, *, sample_rate: int | None = None, channel: int | Literal["mix"] = 0
    ) -> None:
        if channel == "mix":
            raise SourceError("a serial stethoscope cannot mix its channels; choose one by its number")
        self._port, self._wanted_rate, self._channel = port, sample_rate, channel
        self._serial_number: str | None = None  # of the device found first; another one is not taken for it
        self._resume: ResumePoint | None = None
        self._closed = threading.Event()
        self._next = 0
        self._metadata: Mapping[str, Any] = {}
        self._link: DeviceLink | None = self._open()
        self._rate = round(self._link.format.rate_hz)

    @property
    def name(self) -> str:
        """``serial``, or ``serial:PORT`` as asked for."""
        return "serial" if self._port is None else f"serial:{self._port}"

    @property
    def sample_rate(self) -> int:
        """Hz, nominal, of the device's converter."""
        return self._rate

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the device says of itself: body site and model, where known."""
        link = self._link
        if link is not None:
            known = {"site": link.format.site, "device": link.info.model}
            self._metadata = {key: value for key, value in known.items() if value}
        return self._metadata

    @property
    def gain_db(self) -> float | None:
        """The device's gain; None while it is away."""
        return None if self._link is None else self._link.format.gain_db

    @property
    def stats(self) -> LinkStats | None:
        """Counters of the present link; None while the device is away."""
        return None if self._link is None else self._link.stats

    def __iter__(self) -> Iterator[AudioBlock]:
        from firmware_bridge.errors import LinkError, LinkStalled, LinkVersionError

        link = self._link
        if link is None:
            raise SourceError(f"{self.name} is not open; call reopen() or make a new source")
        silent_s = 0.0
        while not self._closed.is_set():
            try:
                for block in link.blocks(_LOOK_S):
                    silent_s = 0.0
                    first = self._next + block.lost_before
                    self._next = first + block.samples.size
                    samples = np.ascontiguousarray(block.samples, np.float32)
                    yield AudioBlock(samples, self._rate, first, block.host_ns, block.lost_before)
                    if self._closed.is_set():
                        return
                return
            except LinkVersionError as error:
                raise SourceError(str(error)) from error
            except LinkStalled as error:
                silent_s += _LOOK_S
                if silent_s >= _SILENT_S:
                    raise self._lost(f"has sent no sound for {silent_s:g} s", error) from error
            except LinkError as error:
                if self._closed.is_set():
                    return
                raise self._lost("was lost", error) from error

    def reopen(self) -> None:
        """Look for the device again, open it and start the audio.

        Raises
        ------
        SourceError
            It is not back yet.
        AudioError
            It came back with another rate.
        """
        if self._closed.is_set():
            raise SourceError(f"{self.name} was closed; make a new source")
        self._release()
        link = self._open()
        rate = round(link.format.rate_hz)
        if rate != self._rate:
            link.close()
            raise AudioError(f"{self.name} came back with {rate} Hz instead of {self._rate} Hz; start again")
        self._link = link
        if self._closed.is_set():
            self._release()

    def close(self) -> None:
        """Stop the device's audio and let go of the port; iterating ends. May be called from another thread."""
        self._closed.set()
        self._release()

    def __enter__(self) -> SerialSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> DeviceLink:
        from firmware_bridge.discovery import the_device
        from firmware_bridge.errors import LinkError
        from firmware_bridge.framing import SetFormat
        from firmware_bridge.link import DeviceLink

        request = None if self._wanted_rate is None else SetFormat(rate_hz=self._wanted_rate)
        try:
            port = self._port
            if port is None:
                found = the_device(serial_number=self._serial_number)
                port, self._serial_number = found.port, found.serial_number
            link = DeviceLink(port, resume=self._resume, request=request, channel=self._channel)
            link.open()
        except LinkError as error:
            raise SourceError(str(error)) from error
        _log.debug("%s: %s, %s", port, link.info, link.format)
        return link

    def _lost(self, what: str, error: Exception) -> SourceLostError:
        self._release()
        return SourceLostError(f"{self.name} {what} ({error}); check its cable and power")

    def _release(self) -> None:
        link = self._link
        if link is not None:
            self._metadata = self.metadata
            self._link = None
            self._resume = link.resume_point or self._resume
            link.close()
