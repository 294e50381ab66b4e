"""What comes from a device, made sense of: frames to blocks of samples, every loss counted. No input or output here."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from firmware_bridge import audio
from firmware_bridge.clock import ClockFit, ClockFitter
from firmware_bridge.decoder import Fault, FrameDecoder
from firmware_bridge.errors import LinkError, LinkLost, LinkVersionError, ProtocolError
from firmware_bridge.framing import (
    MAJOR,
    Audio,
    Codec,
    DeviceEvent,
    End,
    Flags,
    Format,
    Frame,
    Info,
    Log,
    Message,
    Reply,
    Status,
    Time,
    parse,
)
from firmware_bridge.sample_account import ResumePoint, SampleAccount, SequenceAccount

_log = logging.getLogger(__name__)

_MAX_EARLY = 256  # audio frames held until FORMAT says which clock they count by


@dataclass(frozen=True, slots=True)
class LinkBlock:
    """Consecutive samples of one channel, as they came in one AUDIO frame."""

    samples: npt.NDArray[np.float32]  # [n], full scale ±1; n = 0 only for a loss just before END
    sample_index: int  # of samples[0] on the device's clock
    clock_id: int  # indices are comparable within one clock_id
    lost_before: int  # samples that never came, just before samples[0]
    lost_exact: bool  # False where the device's clock restarted and lost_before is the host's estimate
    host_ns: int  # raw: monotonic host clock when the frame arrived
    fitted_ns: int  # the same moment by the fitted device clock, without the jitter of the way
    clipped: bool = False


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Counters of one link; a snapshot."""

    bytes: int = 0
    frames: int = 0
    bad_frames: int = 0  # stretches between delimiters that are no frame
    skipped_bytes: int = 0  # before the first delimiter
    sequence_gaps: int = 0  # frames of any type that never came
    bad_payloads: int = 0  # frames with a good CRC and a payload that cannot be
    unknown_frames: int = 0  # of types that this version does not know
    samples: int = 0  # that came
    lost_samples: int = 0  # that never came, the tail before END included
    gaps: int = 0
    dropped_samples: int = 0  # came, but nobody took them in time; part of lost_before, not of lost_samples
    commands: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class TimeOffset:
    """Device clock minus host clock, from the exchange with the shortest way."""

    offset_ns: int
    round_trip_ns: int
    exchanges: int


@dataclass(frozen=True, slots=True)
class Listeners:
    """Called on the thread that calls :meth:`Receiver.take`; must be quick."""

    status: Callable[[Status], None] | None = None
    event: Callable[[DeviceEvent, int], None] | None = None  # with the sample index
    log: Callable[[Log], None] | None = None


class Receiver:
    """State of one link. Whoever reads its fields from another thread holds ``changed``, which tells of every change.

    Parameters
    ----------
    name
        Of the port, for messages.
    resume
        Where an earlier link to the same device ended.
    channel
        Which interleaved channel is delivered.
    max_queued_s
        Audio held for a slow consumer; then the oldest is dropped and told in ``lost_before``.
    """

    def __init__(
        self, name: str, *, listeners: Listeners, resume: ResumePoint | None, channel: int, max_queued_s: float
    ) -> None:
        self.changed = threading.Condition()  # re-entrant
        self.info: Info | None = None
        self.format: Format | None = None
        self.status: Status | None = None
        self.offset: TimeOffset | None = None
        self.blocks: deque[LinkBlock] = deque()
        self.replies: dict[int, Reply] = {}
        self.awaited: set[int] = set()
        self.streaming = False  # START has been sent
        self.ended = False  # END has come
        self._name = name
        self._listeners = listeners
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
        with self.changed:
            return (self._fitter or ClockFitter(1.0)).fit

    @property
    def resume_point(self) -> ResumePoint | None:
        return self._account.resume_point

    @property
    def stats(self) -> LinkStats:
        with self.changed:
            return replace(
                self._stats,
                frames=self._decoder.frames,
                bad_frames=self._decoder.faults,
                skipped_bytes=self._decoder.skipped_bytes,
                sequence_gaps=self._sequence.missing,
                samples=self._account.received,
                lost_samples=self._account.lost,
                gaps=self._account.gaps,
            )

    def count(self, **more: int) -> None:
        """Add to the counters of :class:`LinkStats`."""
        with self.changed:
            self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})

    def next_block(self) -> LinkBlock:
        """The oldest that waits; there must be one."""
        with self.changed:
            block = self.blocks.popleft()
            self._queued -= block.samples.size
            return block

    def take(self, data: bytes, now_ns: int) -> None:
        """Accept bytes that arrived at ``now_ns``.

        Raises
        ------
        LinkVersionError, LinkLost, LinkError
            If the device speaks another major version, has restarted, or changes what must not change.
        """
        self.count(bytes=len(data))
        for item in self._decoder.feed(data):
            if isinstance(item, Fault):
                if item.reason == "version":
                    raise LinkVersionError(wrong_version(self._name, f"major version {item.version}"))
                continue
            self._sequence.see(item.seq)
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
        elif isinstance(message, Format):
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
            if self._listeners.status is not None:
                self._listeners.status(message)
        elif isinstance(message, DeviceEvent) and self._listeners.event is not None:
            self._listeners.event(message, frame.sample_index)
        elif isinstance(message, Log):
            _log.log(message.level, "%s: %s", self._name, message.text)
            if self._listeners.log is not None:
                self._listeners.log(message)

    def _take_info(self, info: Info) -> None:
        if not info.proto_min <= MAJOR <= info.proto_max:
            raise LinkVersionError(wrong_version(self._name, f"versions {info.proto_min} to {info.proto_max}"))
        if self.streaming and self.info is not None and info.boot_id != self.info.boot_id:
            raise LinkLost(f"{self._name}: the device restarted")
        with self.changed:
            self.info = info
            self.changed.notify_all()

    def _take_format(self, new: Format, now_ns: int) -> None:
        old = self.format
        if not 0 <= self._channel < new.channels:
            raise LinkError(f"{self._name}: no channel {self._channel}; the device has {new.channels}, counted from 0")
        if old is not None and self.streaming and old.rate_hz != new.rate_hz:
            raise LinkError(f"{self._name}: the device changed its rate to {new.rate_hz:g} Hz; open it again")
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
        way = (t4 - exchange.t1) - (exchange.t3 - exchange.t2)
        offset = ((exchange.t2 - exchange.t1) + (exchange.t3 - t4)) // 2
        best = self.offset
        if best is None or way <= best.round_trip_ns:
            self.offset = TimeOffset(offset, way, 1 if best is None else best.exchanges + 1)
        else:
            self.offset = replace(best, exchanges=best.exchanges + 1)

    def _take_audio(self, frame: Frame, message: Audio, now_ns: int) -> None:
        form, fitter = self.format, self._fitter
        if frame.stream or form is None or fitter is None or not self.streaming or self.ended:
            return  # of a session before ours
        if not form.clock_id:
            self._early.append((frame, message, now_ns))
            return
        values = audio.decode(message, form.channels)  # [n, channels]
        place = self._account.place(frame.sample_index, message.count, form.clock_id, now_ns, form.rate_hz)
        end = frame.sample_index + message.count
        samples = audio.to_float(values[place.skip :, self._channel], Codec(message.codec))
        with self.changed:
            fitter.add(end, now_ns)
            fitted_ns = fitter.fit.host_ns(end)
        if samples.size:
            block = LinkBlock(
                samples,
                frame.sample_index + place.skip,
                form.clock_id,
                place.lost_before,
                place.exact,
                now_ns,
                fitted_ns,
                bool(frame.flags & Flags.CLIPPED),
            )
            self._queue(block, form.rate_hz)

    def _take_end(self, message: End, now_ns: int) -> None:
        if not self.streaming or self.ended or self.format is None:
            return
        lost = self._account.end(message.total, self.format.clock_id)
        if lost:
            empty = np.zeros(0, np.float32)
            block = LinkBlock(empty, message.total, self.format.clock_id, lost, True, now_ns, now_ns)
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


def wrong_version(port: str, theirs: str) -> str:
    return f"{port}: the device speaks {theirs} of the link protocol, this SDK version {MAJOR}; update the older one"
