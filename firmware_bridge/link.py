"""Connects to a stethoscope on a serial port or socket: its format, its samples, and a count of dropped samples."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from firmware_bridge.clock import ClockFit
from firmware_bridge.constants import ACK_TIMEOUT_S, RETRIES, AckCode, Flags, MessageType
from firmware_bridge.diagnosis import DEFAULT_BAUD, explain_no_reply
from firmware_bridge.errors import CommandError, LinkError, LinkLost, LinkStalled, LinkVersionError
from firmware_bridge.framing import encode_message
from firmware_bridge.messages import (
    Command,
    DeviceEvent,
    Hello,
    HostMessage,
    Info,
    Log,
    Reply,
    SetFormat,
    Status,
    StreamFormat,
    TimeRequest,
)
from firmware_bridge.receiver import Callbacks, LinkBlock, LinkStats, Receiver, TimeOffset, version_mismatch
from firmware_bridge.sample_account import ResumePoint
from firmware_bridge.transport import Transport, open_transport

__all__ = ["DeviceLink", "LinkBlock", "LinkStats", "ResumePoint", "TimeOffset"]

_TIME_EVERY_NS = 1_000_000_000
_CLOSE_TIMEOUT_S = 0.15
_HELLO_RETRIES = 11


class DeviceLink:
    """Link to one device. As a context manager it opens the port, sends HELLO and waits for the format.

    Parameters
    ----------
    port
        Serial port, ``socket://HOST:PORT``, ``tcp:[HOST:]PORT`` or another URL of pyserial.
    on_status, on_event, on_log
        Called on the reader thread; must be quick and must not call :meth:`send`. ``on_event`` also gets the sample
        index.
    resume
        Where the previous link to the same device ended: samples dropped between the two are counted too.
    request
        Format to request before START.
    channel
        Number from 0 of the interleaved channel to deliver.
    max_queued_s
        Seconds of audio held for a slow consumer; beyond, the oldest is dropped and counted in ``lost_before``.
    baud
        Baud rate of a real UART; USB and pseudo-terminals ignore it.

    Raises
    ------
    LinkOpenError, LinkStalled, LinkVersionError, CommandError
        From ``__enter__``.
    """

    def __init__(
        self,
        port: str,
        *,
        on_status: Callable[[Status], None] | None = None,
        on_event: Callable[[DeviceEvent, int], None] | None = None,
        on_log: Callable[[Log], None] | None = None,
        resume: ResumePoint | None = None,
        request: SetFormat | None = None,
        channel: int = 0,
        max_queued_s: float = 10.0,
        baud: int = DEFAULT_BAUD,
    ) -> None:
        self.port = port
        self._request = request
        self._baud = baud
        self._receiver = Receiver(
            port,
            callbacks=Callbacks(on_status, on_event, on_log),
            resume=resume,
            channel=channel,
            max_queued_s=max_queued_s,
        )
        self._changed = self._receiver.changed
        self._failure: Exception | None = None
        self._closing = False
        self._next_seq = 0
        self._writing = threading.Lock()
        self._transport: Transport | None = None
        self._reader: threading.Thread | None = None

    # -- state of the device -----------------------------------------------------------------------------------------

    @property
    def info(self) -> Info:
        """Identity and capabilities of the device."""
        if self._receiver.info is None:
            raise LinkError(f"{self.port}: not open")
        return self._receiver.info

    @property
    def format(self) -> StreamFormat:
        """``rate_hz``, ``bits``, ``channels``, ``gain_db``, ``site``, as last reported by the device."""
        if self._receiver.format is None:
            raise LinkError(f"{self.port}: not open")
        return self._receiver.format

    @property
    def status(self) -> Status | None:
        """The last STATUS; None before the first."""
        return self._receiver.status

    @property
    def ended(self) -> bool:
        """Whether the device has sent END."""
        return self._receiver.ended

    @property
    def clock(self) -> ClockFit:
        """The device's sample clock on ``time.monotonic_ns``."""
        return self._receiver.clock

    @property
    def time_offset(self) -> TimeOffset | None:
        """The device's nanosecond clock against the host's; None before the first exchange."""
        return self._receiver.offset

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where this link is now, for the next one; None before the first audio."""
        return self._receiver.resume_point

    @property
    def stats(self) -> LinkStats:
        """Counters so far."""
        return self._receiver.stats

    def forget_resume(self) -> None:
        """Note, before the audio starts, that this device is not the one of ``resume``: nothing was dropped between."""
        self._receiver.forget_resume()

    # -- opening and closing -----------------------------------------------------------------------------------------

    def __enter__(self) -> DeviceLink:
        if self._transport is None:
            self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the port and exchange HELLO, INFO and FORMAT. ``with`` calls it.

        Raises
        ------
        LinkOpenError, LinkStalled, LinkVersionError, CommandError
            As ``__enter__``.
        """
        self._transport = open_transport(self.port, self._baud)
        self._reader = threading.Thread(target=self._read, name=f"link {self.port}", daemon=True)
        self._reader.start()
        try:
            self._handshake()
            if self._request is not None:
                self._request_format(self._request)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the audio and release the port. May be called twice and from another thread; takes under 0.5 s."""
        if self._receiver.streaming and not self._gone:
            with contextlib.suppress(LinkError):
                self.send(Command(MessageType.STOP), retries=0, timeout_s=_CLOSE_TIMEOUT_S)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(timeout=2.0)
        if self._transport is not None:
            self._transport.close()

    def blocks(self, timeout_s: float = 2.0) -> Iterator[LinkBlock]:
        """Start the audio and yield it until END or :meth:`close`.

        If samples at the very end were dropped, the last block is empty and counts them in ``lost_before``.

        Raises
        ------
        LinkLost
            If the device disappeared without END, or was restarted.
        LinkStalled
            If no audio arrived for ``timeout_s``; ``blocks`` may be called again.
        """
        receiver = self._receiver
        if not receiver.streaming:
            self._start()
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: receiver.blocks or receiver.ended or self._gone, timeout_s):
                    raise LinkStalled(f"{self.port}: no audio for {timeout_s:g} s")
                if receiver.blocks and not self._closing:
                    block = receiver.next_block()
                elif self._failure is not None and not receiver.ended:
                    raise self._failure
                else:
                    break
            yield block
        if not self._gone:
            receiver.streaming = False
            with contextlib.suppress(LinkError):
                self.send(Command(MessageType.STOP), retries=1)

    def send(self, command: HostMessage, *, retries: int = RETRIES, timeout_s: float = ACK_TIMEOUT_S) -> Reply:
        """Send a command and wait for its acknowledgement. Must not be called from a callback.

        Raises
        ------
        CommandError
            If the device refuses it, or does not reply to ``retries`` + 1 attempts.
        LinkLost
            If the device disappeared.
        """
        receiver = self._receiver
        seq = self._take_seq()
        with self._changed:
            receiver.awaited.add(seq)
            receiver.count(commands=1)
        try:
            for attempt in range(retries + 1):
                flags = Flags.RETRY if attempt else Flags.NONE
                receiver.count(retries=int(attempt > 0))
                self._write(encode_message(command, seq=seq, flags=flags))
                with self._changed:
                    self._changed.wait_for(lambda: seq in receiver.replies or self._gone, timeout_s)
                    reply = receiver.replies.pop(seq, None)
                    if reply is None and self._gone:
                        raise self._failure or LinkLost(f"{self.port}: closed")
                if reply is not None:
                    return self._check(command, reply)
        finally:
            with self._changed:
                receiver.awaited.discard(seq)
                receiver.replies.pop(seq, None)
        raise CommandError(f"{self.port}: {command.TYPE.name} was not acknowledged after {retries + 1} attempts")

    # -- internals ---------------------------------------------------------------------------------------------------

    @property
    def _gone(self) -> bool:
        return self._failure is not None or self._closing

    def _handshake(self) -> None:
        try:
            # A device may be starting; QEMU checks only once a second whether its terminal was opened.
            self.send(Hello(), retries=_HELLO_RETRIES)
        except CommandError as error:
            if error.code == AckCode.VERSION:
                raise LinkVersionError(version_mismatch(self.port, "another major version")) from error
            if error.code is None:
                stats, head = self._receiver.stats, self._receiver.head
                reason = explain_no_reply(self.port, self._baud, stats.bytes, stats.frames, head)
                raise LinkStalled(reason) from error
            raise
        receiver = self._receiver
        self._wait_for(lambda: receiver.info is not None and receiver.format is not None, "INFO and FORMAT")

    def _request_format(self, requested: SetFormat) -> None:
        self.send(requested)
        self._wait_for(
            lambda: requested.rate_hz in (0, round(self.format.rate_hz)) and requested.codec in (0, self.format.codec),
            "the FORMAT that it accepted",
        )

    def _start(self) -> None:
        self._receiver.streaming = True
        try:
            self.send(Command(MessageType.START))
            self._wait_for(lambda: bool(self.format.clock_id), "FORMAT")
            self._check_identity()
        except BaseException:
            self._receiver.streaming = False
            raise

    def _check_identity(self) -> None:
        """Ask who replied to START: behind an adapter the device may have been exchanged since the handshake.

        The reader raises ``LinkLost`` for another one. INFO may be damaged on the way; then the check is left out.
        """
        receiver = self._receiver
        before = receiver.infos
        with contextlib.suppress(CommandError):
            self.send(Command(MessageType.GET_INFO))
        with self._changed:
            self._changed.wait_for(lambda: receiver.infos > before or self._gone, ACK_TIMEOUT_S)
            if self._failure is not None:
                raise self._failure

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for messages that are not acknowledged; request them again, because they may be damaged on the way."""
        for _ in range(RETRIES + 1):
            with self._changed:
                self._changed.wait_for(lambda: condition() or self._gone, ACK_TIMEOUT_S)
                if self._gone:
                    raise self._failure or LinkLost(f"{self.port}: closed")
                if condition():
                    return
            self.send(Command(MessageType.GET_INFO))
        raise LinkStalled(f"{self.port}: the device does not send {what}; its firmware may be faulty")

    def _check(self, command: HostMessage, reply: Reply) -> Reply:
        if reply.code == AckCode.DONE:
            return reply
        defined = reply.code in AckCode.__members__.values()
        reason = AckCode(reply.code).name.lower().replace("_", " ") if defined else f"code {reply.code}"
        raise CommandError(f"{self.port}: the device refused {command.TYPE.name}: {reason}", reply.code)

    def _take_seq(self) -> int:
        with self._changed:
            seq = self._next_seq
            self._next_seq = (seq + 1) & 0xFFFF
            return seq

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            raise LinkError(f"{self.port}: not open")
        with self._writing:  # two threads send: their frames must not be mixed
            self._transport.write(data)

    def _read(self) -> None:
        """The reader thread."""
        assert self._transport is not None
        next_exchange_ns = 0
        try:
            while not self._closing:
                data = self._transport.read()
                now_ns = time.monotonic_ns()
                if data:
                    self._receiver.take(data, now_ns)
                if self._receiver.format is not None and now_ns >= next_exchange_ns:
                    next_exchange_ns = now_ns + _TIME_EVERY_NS
                    self._write(encode_message(TimeRequest(time.monotonic_ns()), seq=self._take_seq()))
        except Exception as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
