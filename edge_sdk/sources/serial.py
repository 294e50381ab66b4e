"""A serial stethoscope with the link protocol of ``firmware_bridge``; its own sample counter makes gaps exact."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_sdk.errors import AudioError, DeviceChangedError, SourceError, SourceLostError
from edge_sdk.events import AudioBlock
from edge_sdk.sources.identity import DeviceIdentity
from edge_sdk.sources.serial_port import PortFinder, parse_port

if TYPE_CHECKING:
    from firmware_bridge.link import DeviceLink, LinkBlock, LinkStats
    from firmware_bridge.sample_account import ResumePoint

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_LOWEST_HZ, _HIGHEST_HZ = 100, 1_000_000  # sample rates that a converter can have
_SILENT_S = 5.0  # without audio: the port is opened again


class SerialSource:
    """Plays what a device captures, until END. When the device disappears the iterator raises ``SourceLostError``.

    After a successful :meth:`reopen` it can be iterated again. The samples dropped in between are counted exactly, or
    estimated by the host's clock if the device was restarted. With the first audio of another device (serial number,
    model, site or rate differ) the iterator raises ``DeviceChangedError``, after an empty block that counts the
    samples dropped until then.

    Parameters
    ----------
    port
        Serial port, ``socket://HOST:PORT``, ``tcp:[HOST:]PORT`` or ``SN=NUMBER`` for the device with this serial
        number; ``@BAUD`` may follow. None is the only stethoscope that is plugged in.
    sample_rate
        Hz to request from the device; None keeps its rate.
    channel
        Number from 0 of an interleaved channel.
    baud
        Baud rate of a UART; USB, sockets and pseudo-terminals ignore it.

    Raises
    ------
    SourceError
        If the port does not exist, may not be used or is in use, or the device does not reply or uses another major
        version.
    """

    live = True

    def __init__(
        self,
        port: str | None = None,
        *,
        sample_rate: int | None = None,
        channel: int | Literal["mix"] = 0,
        baud: int | None = None,
    ) -> None:
        if channel == "mix":
            raise SourceError("a serial stethoscope cannot mix its channels; choose one by its number")
        self._spec = parse_port(port, baud)
        self._finder = PortFinder(self._spec)
        self._wanted_rate, self._channel = sample_rate, channel
        self._resume: ResumePoint | None = None
        self._closed = threading.Event()
        self._next = 0
        self._sessions = 1
        self._known_serial: str | None = None  # for the hint where its port is; None: nothing was open so far
        self._link: DeviceLink | None = self._open()
        self._identity = DeviceIdentity.of(self._link)  # of the device whose audio is delivered
        self._newcomer: tuple[DeviceIdentity, str] | None = None  # another device without audio so far; the difference
        self._first_of_newcomer: LinkBlock | None = None
        self._accepted = True  # False from the arrival of a newcomer until it is listened to
        self._metadata: Mapping[str, Any] = {}
        self._rate = self._identity.rate_hz

    @property
    def name(self) -> str:
        """``serial``, ``serial:PORT`` or ``serial:SN=NUMBER`` as requested; ``#2`` follows in the second session."""
        return self._spec.name if self._sessions == 1 else f"{self._spec.name}#{self._sessions}"

    @property
    def sample_rate(self) -> int:
        """Nominal rate of the device's converter in Hz."""
        return self._rate

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata that the device reports: ``site`` and ``device``, where it knows them."""
        from firmware_bridge.constants import UNKNOWN_BYTE

        link = self._link
        if link is not None and self._accepted:
            code = link.format.site_code
            other = f"of code {code}" if link.format.site is None and code not in (0, UNKNOWN_BYTE) else None
            reported = {"site": link.format.site or other, "device": link.info.model}
            self._metadata = {key: value for key, value in reported.items() if value}
        return self._metadata

    @property
    def device(self) -> Mapping[str, str | None]:
        """``serial_number``, ``model``, ``site`` and ``firmware`` of the device; None where unknown."""
        return self._identity.record()

    @property
    def gain_db(self) -> float | None:
        """Gain of the device in dB; None while it is away."""
        return None if self._link is None else self._link.format.gain_db

    @property
    def stats(self) -> LinkStats | None:
        """Counters of the current link; None while the device is away."""
        return None if self._link is None else self._link.stats

    def __iter__(self) -> Iterator[AudioBlock]:
        if self._link is None:
            raise SourceError(f"{self.name} is not open; call reopen() or make a new source")
        if self._identity.rate_hz != self._rate:
            raise AudioError(
                f"{self.name} has {self._identity.rate_hz} Hz now instead of {self._rate} Hz; call new_session()"
            )
        self._accepted = self._newcomer is None
        first, self._first_of_newcomer = self._first_of_newcomer, None
        if first is not None:
            yield self._placed(first)
        for block in self._received(self._link):
            if self._newcomer is not None:
                yield from self._give_way(block, *self._newcomer)
            yield self._placed(block)
            if self._closed.is_set():
                return

    def new_session(self) -> None:
        """Begin a new time line, after ``DeviceChangedError``: samples count from 0, at the rate of the new device."""
        self._sessions += 1
        self._next = 0
        self._rate = self._identity.rate_hz
        self._accepted = True

    def reopen(self) -> None:
        """Find the device again and open it, or another one in its place.

        Raises
        ------
        SourceError
            If it is not back yet.
        """
        if self._closed.is_set():
            raise SourceError(f"{self.name} was closed; make a new source")
        self._release()
        link = self._open()
        found = DeviceIdentity.of(link)
        difference = self._identity.change_to(found)
        if difference is not None:
            link.forget_resume()
            self._newcomer = found, difference
        self._accepted = difference is None
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

    def _received(self, link: DeviceLink) -> Iterator[LinkBlock]:
        from firmware_bridge.errors import LinkError, LinkStalled, LinkVersionError

        silent_s = 0.0
        while not self._closed.is_set():
            try:
                for block in link.blocks(_POLL_S):
                    silent_s = 0.0
                    yield block
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

    def _placed(self, block: LinkBlock) -> AudioBlock:
        first = self._next + block.lost_before
        self._next = first + block.samples.size
        samples = np.ascontiguousarray(block.samples, np.float32)
        return AudioBlock(samples, self._rate, first, block.host_ns, block.lost_before)

    def _give_way(self, block: LinkBlock, newcomer: DeviceIdentity, difference: str) -> Iterator[AudioBlock]:
        """Count what was dropped until the first block of another device, then raise; the block is kept."""
        lost = 0
        if self._resume is not None:
            away_s = (block.host_ns - self._resume.host_ns) * 1e-9 - block.samples.size / newcomer.rate_hz
            lost = max(0, round(away_s * self._rate))
        self._next += lost
        if lost:
            yield AudioBlock(np.zeros(0, np.float32), self._rate, self._next, block.host_ns, lost)
        previous, self._identity = self._identity, newcomer
        self._newcomer, self._first_of_newcomer = None, block
        raise DeviceChangedError(
            f"{self.name}: another device is connected ({difference})",
            reason=difference,
            previous=previous.record(),
            device=newcomer.record(),
            at=self._next,
            sample_rate=newcomer.rate_hz,
        )

    def _open(self) -> DeviceLink:
        from firmware_bridge.errors import LinkError, LinkOpenError
        from firmware_bridge.link import DeviceLink
        from firmware_bridge.messages import SetFormat

        request = None if self._wanted_rate is None else SetFormat(rate_hz=self._wanted_rate)
        try:
            port = self._finder.find()
            link = DeviceLink(port, resume=self._resume, request=request, channel=self._channel, baud=self._spec.baud)
            link.open()
        except LinkOpenError as error:
            hint = "" if self._known_serial is None else self._finder.hint(self._known_serial)
            raise SourceError(f"{error}{hint}") from error
        except LinkError as error:
            raise SourceError(str(error)) from error
        if not _LOWEST_HZ <= link.format.rate_hz <= _HIGHEST_HZ:
            link.close()
            raise SourceError(f"{port}: reports {link.format.rate_hz:g} samples a second; its firmware may be faulty")
        _log.debug("%s: %s, %s", port, link.info, link.format)
        self._known_serial = link.info.serial.strip()
        return link

    def _source_lost(self, what: str, error: Exception) -> SourceLostError:
        self._release()
        return SourceLostError(f"{self.name} {what} ({error}); check its cable and power")

    def _release(self) -> None:
        link = self._link
        if link is None:
            return
        self._metadata = self.metadata
        self._link = None
        if self._newcomer is None:
            self._identity = replace(self._identity, site=link.format.site or self._identity.site)
            self._resume = link.resume_point or self._resume
        self._newcomer = None  # gone before its first audio: it was no part of anything
        link.close()
