"""Interprets the bytes of a device: frames become blocks of samples, dropped samples are counted. Does no I/O."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from firmware_bridge.audio import decode_audio, to_float
from firmware_bridge.clock import ClockFit, ClockFitter
from firmware_bridge.constants import MAJOR, Codec, Flags
from firmware_bridge.decoder import FrameDecoder, FrameFault
from firmware_bridge.diagnosis import HEAD_BYTES
from firmware_bridge.errors import LinkError, LinkLost, LinkVersionError, ProtocolError
from firmware_bridge.framing import Frame, parse
from firmware_bridge.messages import Audio, DeviceEvent, End, Info, Log, Message, Reply, Status, StreamFormat, Time
from firmware_bridge.sample_account import ResumePoint, SampleAccount, SequenceAccount

_log = logging.getLogger(__name__)

_MAX_EARLY = 256  # audio frames held until FORMAT gives their clock_id


@dataclass(frozen=True, slots=True)
class LinkBlock:
    """Consecutive samples of one channel, from one AUDIO frame."""

    samples: npt.NDArray[np.float32]  # [n], full scale ±1; n = 0 only if samples just before END were dropped
    sample_index: int  # of samples[0] on the device's clock
    clock_id: int  # indices with the same clock_id are comparable
    lost_before: int  # samples dropped just before samples[0]
    lost_exact: bool  # False: the device's clock was restarted, lost_before is estimated by the host's clock
    host_ns: int  # monotonic host clock when the frame arrived
    fitted_ns: int  # the same moment by the fitted device clock, without jitter
    clipped: bool = False


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Snapshot of the counters of one link."""

    bytes: int = 0
    frames: int = 0
    bad_frames: int = 0  # byte sequences between delimiters that are no frame
    skipped_bytes: int = 0  # before the first delimiter
    sequence_gaps: int = 0  # missing frames of any type
    bad_payloads: int = 0  # frames with a valid CRC and an invalid payload
    unknown_frames: int = 0  # frames of types that this version does not know
    samples: int = 0  # received
    lost_samples: int = 0  # dropped before the host, those just before END included
    gaps: int = 0
    dropped_samples: int = 0  # received, but dropped because the consumer was slow; in lost_before, not in lost_samples
    commands: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class TimeOffset:
    """Device clock minus host clock, from the exchange with the shortest round trip."""

    offset_ns: int
    round_trip_ns: int
    exchanges: int


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Called on the thread that calls :meth:`Receiver.take`; must be quick."""

    status: Callable[[Status], None] | None = None
    event: Callable[[DeviceEvent, int], None] | None = None  # with the sample index
    log: Callable[[Log], None] | None = None


class Receiver:
    """State of one link. Hold ``changed`` to read its fields from another thread; it is notified of every change.

    Parameters
    ----------
    name
        Name of the port, for messages.
    resume
        Where the previous link to the same device ended.
    channel
        Number from 0 of the interleaved channel to deliver.
    max_queued_s
        Seconds of audio held for a slow consumer; beyond, the oldest is dropped and counted in ``lost_before``.
    """

    def __init__(
        self, name: str, *, callbacks: Callbacks, resume: ResumePoint | None, channel: int, max_queued_s: float
    ) -> None:
        self.changed = threading.Condition()  # re-entrant
        self.info: Info | None = None
        self.infos = 0  # INFO messages so far
        self.head = b""  # the first bytes received
        self.format: StreamFormat | None = None
        self.status: Status | None = None
        self.offset: TimeOffset | None = None
        self.blocks: deque[LinkBlock] = deque()
        self.replies: dict[int, Reply] = {}
        self.awaited: set[int] = set()
        self.streaming = False  # START has been sent
        self.ended = False  # END was received
        self._name = name
        self._callbacks = callbacks
        self._channel = channel
        self._max_queued_s = max_queued_s
        self._decoder = FrameDecoder()
        self._sequence = SequenceAccount()
        self._account = SampleAccount(resume)
        self._fitter: ClockFitter | None = None
        self._early: deque[tuple[Frame, Audio, int]] = deque(maxlen=_MAX_EARLY)
        self._queued = 0
        self._stats = LinkStats()

    @property
    def clock(self) -> ClockFit:
        """The device's sample clock on the host's clock."""
        with self.changed:
            return (self._fitter or ClockFitter(1.0)).fit

    @property
    def resume_point(self) -> ResumePoint | None:
        """Where the link is now; None before the first audio."""
        return self._account.resume_point

    @property
    def stats(self) -> LinkStats:
        """Counters so far."""
        with self.changed:
            return replace(
                self._stats,
                frames=self._decoder.frames,
                bad_frames=self._decoder.faults,
                skipped_bytes=self._decoder.skipped_bytes,
                sequence_gaps=self._sequence.missing,
                samples=self._account.received,
                lost_samples=self._account.missing,
                gaps=self._account.gaps,
            )

    def count(self, **more: int) -> None:
        """Add to the counters of :class:`LinkStats`."""
        with self.changed:
            self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    def forget_resume(self) -> None:
        """The device is not the one of the previous link: its samples continue nothing. Before START only."""
        self._account = SampleAccount()

    def next_block(self) -> LinkBlock:
        """Remove and return the oldest block; there must be one."""
        with self.changed:
            block = self.blocks.popleft()
            self._queued -= block.samples.size
            return block

    def take(self, data: bytes, now_ns: int) -> None:
        """Accept bytes that arrived at ``now_ns``.

        Raises
        ------
        LinkVersionError, LinkLost, LinkError
            If the device uses another major version, was restarted, or changed its rate or channels while audio runs.
        """
        self.count(bytes=len(data))
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        for item in self._decoder.feed(data):
            if isinstance(item, FrameFault):
                if item.reason == "version":
                    raise LinkVersionError(version_mismatch(self._name, f"major version {item.version}"))
                continue
            self._sequence.count(item.seq)
            try:
                message = parse(item)
                if message is None:
                    self.count(unknown_frames=1)
                else:
                    self._dispatch(item, message, now_ns)
            except ProtocolError as error:
                _log.debug("%s: %s", self._name, error)
                self.count(bad_payloads=1)

    def _dispatch(self, frame: Frame, message: Message, now_ns: int) -> None:
        if isinstance(message, Audio):
            self._take_audio(frame, message, now_ns)
        elif isinstance(message, StreamFormat):
            self._take_format(message, now_ns)
        elif isinstance(message, Info):
            self._take_info(message)
        elif isinstance(message, Reply):
            self._take_reply(message)
        elif isinstance(message, Time):
            self._note_offset(message, now_ns)
        elif isinstance(message, End):
            self._take_end(message, now_ns)
        elif isinstance(message, Status):
            self.status = message
            if self._callbacks.status is not None:
                self._callbacks.status(message)
        elif isinstance(message, DeviceEvent) and self._callbacks.event is not None:
            self._callbacks.event(message, frame.sample_index)
        elif isinstance(message, Log):
            _log.log(message.level, "%s: %s", self._name, message.text)
            if self._callbacks.log is not None:
                self._callbacks.log(message)

    def _take_info(self, info: Info) -> None:
        if not info.proto_min <= MAJOR <= info.proto_max:
            raise LinkVersionError(version_mismatch(self._name, f"versions {info.proto_min} to {info.proto_max}"))
        old = self.info
        if self.streaming and old is not None and (info.serial, info.model) != (old.serial, old.model):
            raise LinkLost(f"{self._name}: another device replies")
        if self.streaming and old is not None and info.boot_id != old.boot_id:
            raise LinkLost(f"{self._name}: the device restarted")
        with self.changed:
            self.info = info
            self.infos += 1
            self.changed.notify_all()

    def _take_format(self, new: StreamFormat, now_ns: int) -> None:
        old = self.format
        if not 0 <= self._channel < new.channels:
            raise LinkError(f"{self._name}: no channel {self._channel}; the device has {new.channels}, counted from 0")
        if old is not None and self.streaming and old.rate_hz != new.rate_hz:
            raise LinkError(f"{self._name}: the device changed its rate to {new.rate_hz:g} Hz; open it again")
        if old is not None and self._account.received and old.clock_id and new.clock_id not in (0, old.clock_id):
            # Its indices do not continue ours: it restarted, or another device took over the line.
            raise LinkLost(f"{self._name}: the device's sample clock was restarted")
        with self.changed:
            if self._fitter is None or old is None or old.clock_id != new.clock_id or old.rate_hz != new.rate_hz:
                self._fitter = ClockFitter(new.rate_hz)
            if self.streaming and old is not None and not old.clock_id and new.clock_id:
                self._account.begin(new.clock_id, now_ns)
            self.format = new
            self.changed.notify_all()
        if new.clock_id:
            while self._early:
                self._take_audio(*self._early.popleft())

    def _take_reply(self, reply: Reply) -> None:
        with self.changed:
            if reply.command_seq in self.awaited:
                self.replies[reply.command_seq] = reply
                self.changed.notify_all()

    def _note_offset(self, exchange: Time, t4: int) -> None:
        round_trip = (t4 - exchange.t1) - (exchange.t3 - exchange.t2)
        offset = ((exchange.t2 - exchange.t1) + (exchange.t3 - t4)) // 2
        best = self.offset
        if best is None or round_trip <= best.round_trip_ns:
            self.offset = TimeOffset(offset, round_trip, 1 if best is None else best.exchanges + 1)
        else:
            self.offset = replace(best, exchanges=best.exchanges + 1)

    def _take_audio(self, frame: Frame, message: Audio, now_ns: int) -> None:
        stream_format, fitter = self.format, self._fitter
        if frame.stream or stream_format is None or fitter is None or not self.streaming or self.ended:
            return  # left over from an earlier session
        if not stream_format.clock_id:
            self._early.append((frame, message, now_ns))
            return
        values = decode_audio(message, stream_format.channels)  # [n, channels]
        place = self._account.place(
            frame.sample_index, message.count, stream_format.clock_id, now_ns, stream_format.rate_hz
        )
        end = frame.sample_index + message.count
        samples = to_float(values[place.skip :, self._channel], Codec(message.codec))
        with self.changed:
            fitter.add(end, now_ns)
            fitted_ns = fitter.fit.host_ns(end)
        if samples.size:
            block = LinkBlock(
                samples,
                frame.sample_index + place.skip,
                stream_format.clock_id,
                place.lost_before,
                place.exact,
                now_ns,
                fitted_ns,
                bool(frame.flags & Flags.CLIPPED),
            )
            self._queue(block, stream_format.rate_hz)

    def _take_end(self, message: End, now_ns: int) -> None:
        if not self.streaming or self.ended or self.format is None:
            return
        missing = self._account.end(message.total, self.format.clock_id, now_ns)
        if missing:
            empty = np.zeros(0, np.float32)
            block = LinkBlock(empty, message.total, self.format.clock_id, missing, True, now_ns, now_ns)
            self._queue(block, self.format.rate_hz)
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _queue(self, block: LinkBlock, rate_hz: float) -> None:
        with self.changed:
            self.blocks.append(block)
            self._queued += block.samples.size
            while self._queued > self._max_queued_s * rate_hz and len(self.blocks) > 1:
                oldest = self.blocks.popleft()
                self._queued -= oldest.samples.size
                self.count(dropped_samples=oldest.samples.size)
                following = self.blocks[0]
                self.blocks[0] = replace(
                    following,
                    lost_before=following.lost_before + oldest.lost_before + oldest.samples.size,
                    lost_exact=following.lost_exact and oldest.lost_exact,
                )
            self.changed.notify_all()


def version_mismatch(port: str, version: str) -> str:
    """Return the error message for a device that uses ``version`` of the protocol."""
    return f"{port}: the device uses {version} of the link protocol, this SDK version {MAJOR}; update the older one"
