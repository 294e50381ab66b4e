"""A serial stethoscope with the link protocol of ``firmware_bridge``; its own sample counter makes gaps exact."""

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

_POLL_S = 0.5
_SILENT_S = 5.0  # without audio: the port is opened again


class SerialSource:
    """Plays what a device captures, until END. When the device disappears the iterator raises ``SourceLostError``.

    After a successful :meth:`reopen` it can be iterated again. The samples dropped in between are counted exactly, or
    estimated by the host's clock if the device was restarted.

    Parameters
    ----------
    port
        Serial port, ``socket://HOST:PORT`` or ``tcp:[HOST:]PORT``; None is the only stethoscope that is plugged in.
    sample_rate
        Hz to request from the device; None keeps its rate.
    channel
        Number from 0 of an interleaved channel.

    Raises
    ------
    SourceError
        If the port does not exist, may not be used or is in use, or the device does not reply or uses another major
        version.
    """

    live = True

    def __init__(
        self, port: str | None = None, *, sample_rate: int | None = None, channel: int | Literal["mix"] = 0
    ) -> None:
        if channel == "mix":
            raise SourceError("a serial stethoscope cannot mix its channels; choose one by its number")
        self._port, self._wanted_rate, self._channel = port, sample_rate, channel
        self._serial_number: str | None = None  # of the device found first; no other device replaces it
        self._resume: ResumePoint | None = None
        self._closed = threading.Event()
        self._next = 0
        self._metadata: Mapping[str, Any] = {}
        self._link: DeviceLink | None = self._open()
        self._rate = round(self._link.format.rate_hz)

    @property
    def name(self) -> str:
        """``serial``, or ``serial:PORT`` as requested."""
        return "serial" if self._port is None else f"serial:{self._port}"

    @property
    def sample_rate(self) -> int:
        """Nominal rate of the device's converter in Hz."""
        return self._rate

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata that the device reports: ``site`` and ``device``, where it knows them."""
        link = self._link
        if link is not None:
            reported = {"site": link.format.site, "device": link.info.model}
            self._metadata = {key: value for key, value in reported.items() if value}
        return self._metadata

    @property
    def device_info(self) -> Mapping[str, str]:
        """Model, serial number and firmware of the device; empty while it is away."""
        link = self._link
        if link is None:
            return {}
        info = link.info
        return {"model": info.model, "serial": info.serial, "firmware": ".".join(map(str, info.firmware))}

    @property
    def gain_db(self) -> float | None:
        """Gain of the device in dB; None while it is away."""
        return None if self._link is None else self._link.format.gain_db

    @property
    def stats(self) -> LinkStats | None:
        """Counters of the current link; None while the device is away."""
        return None if self._link is None else self._link.stats

    def __iter__(self) -> Iterator[AudioBlock]:
        from firmware_bridge.errors import LinkError, LinkStalled, LinkVersionError

        link = self._link
        if link is None:
            raise SourceError(f"{self.name} is not open; call reopen() or make a new source")
        silent_s = 0.0
        while not self._closed.is_set():
            try:
                for block in link.blocks(_POLL_S):
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
                silent_s += _POLL_S
                if silent_s >= _SILENT_S:
                    raise self._source_lost(f"has sent no audio for {silent_s:g} s", error) from error
            except LinkError as error:
                if self._closed.is_set():
                    return
                raise self._source_lost("was lost", error) from error

    def reopen(self) -> None:
        """Find the device again and open it.

        Raises
        ------
        SourceError
            If it is not back yet.
        AudioError
            If it came back with another rate.
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
        """Stop the device's audio and release the port; iterating ends. May be called from another thread."""
        self._closed.set()
        self._release()

    def __enter__(self) -> SerialSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> DeviceLink:
        from firmware_bridge.discovery import find_single_device
        from firmware_bridge.errors import LinkError
        from firmware_bridge.link import DeviceLink
        from firmware_bridge.messages import SetFormat

        request = None if self._wanted_rate is None else SetFormat(rate_hz=self._wanted_rate)
        try:
            port = self._port
            if port is None:
                found = find_single_device(serial_number=self._serial_number)
                port, self._serial_number = found.port, found.serial_number
            link = DeviceLink(port, resume=self._resume, request=request, channel=self._channel)
            link.open()
        except LinkError as error:
            raise SourceError(str(error)) from error
        _log.debug("%s: %s, %s", port, link.info, link.format)
        return link

    def _source_lost(self, what: str, error: Exception) -> SourceLostError:
        self._release()
        return SourceLostError(f"{self.name} {what} ({error}); check its cable and power")

    def _release(self) -> None:
        link = self._link
        if link is not None:
            self._metadata = self.metadata
            self._link = None
            self._resume = link.resume_point or self._resume
            link.close()
