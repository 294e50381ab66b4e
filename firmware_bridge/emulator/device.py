"""An emulated stethoscope: plays audio over a link as the reference firmware does, with faults on demand."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from firmware_bridge.audio import BITS, encode_audio, to_integers
from firmware_bridge.constants import (
    MAJOR,
    SITES,
    UNKNOWN_BYTE,
    AckCode,
    Capability,
    Codec,
    DeviceState,
    EventCode,
    Flags,
    MessageType,
)
from firmware_bridge.decoder import FrameDecoder
from firmware_bridge.emulator.faults import Faults, FaultyWire, Unplug
from firmware_bridge.emulator.model import Blocks, DeviceMemory, DeviceOptions, EmulatorReport, reblocked
from firmware_bridge.emulator.outbox import Outbox
from firmware_bridge.emulator.port import DevicePort
from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import Frame, encode_message, parse
from firmware_bridge.messages import (
    DeviceEvent,
    End,
    Hello,
    Info,
    Log,
    Message,
    Reply,
    SetFormat,
    SetGain,
    Status,
    StreamFormat,
    Time,
    TimeRequest,
)

__all__ = ["DeviceOptions", "EmulatedDevice", "EmulatorReport"]

_END_EVERY_S = 0.5
_END_TIMES = 10
_BATTERY_LOW = 15
_MAX_WAIT_S = 0.05
_BLOCKS_A_STEP = 64
_GAIN_RANGE_CDB = 6000
_BYTES_A_SAMPLE = 4
_MIN_BUFFER_BYTES = 65536


class EmulatedDevice:
    """An emulated device; :meth:`run` is its main loop.

    Parameters
    ----------
    source
        Called for each pass; returns blocks ``[n]`` of float32 at ``options.rate_hz``, full scale ±1.
    port
        The device's end of the link.
    options
        Kind of device.
    faults
        Faults to emulate; None: none.
    """

    def __init__(
        self, source: Callable[[], Blocks], port: DevicePort, options: DeviceOptions, faults: Faults | None = None
    ) -> None:
        self._faults = faults or Faults()
        self._options = replace(options, block=options.block or max(1, round(options.rate_hz * 0.01)))
        self._port = port
        self._captured = reblocked(source, self._options.block, repeat=not options.once)
        self._codec = options.codec
        self._site = options.site_code
        self._wire = FaultyWire(flip=self._faults.flip, drop_every=self._faults.drop_every, seed=options.seed)
        self._rng = np.random.default_rng(options.seed)
        self._decoder = FrameDecoder()
        buffer_bytes = round(options.buffer_s * options.speed * options.rate_hz * _BYTES_A_SAMPLE)
        self._outbox = Outbox(self._wire, max(_MIN_BUFFER_BYTES, buffer_bytes))
        self._first_start_ns: int | None = None
        self._unplugs = deque(sorted(self._faults.unplugs))
        self._replug_ns: int | None = None
        self._battery_low_sent = False
        self._source_ended = False
        self._leaving = False
        self.report = EmulatorReport()
        now = time.monotonic_ns()
        self._state = DeviceMemory(booted_ns=now)

    def run(self, stop: threading.Event | None = None) -> EmulatorReport:
        """Serve the host until ``stop`` is set or, with ``once``, until the source has ended; return what was done."""
        self._port.plug()
        try:
            while not self._leaving and not (stop and stop.is_set()):
                self._step()
        finally:
            self._port.unplug()
        return self.final_report()

    def final_report(self) -> EmulatorReport:
        """What was done so far, also after :meth:`run` was interrupted."""
        dropped = sum(hit.dropped for hit in self._wire.hits)
        self.report.flips, self.report.drops = len(self._wire.hits) - dropped, dropped
        self.report.samples = self._state.index
        return self.report

    def _step(self) -> None:
        now = time.monotonic_ns()
        self._update_port(now)
        stalled = self._stalled(now)
        if not stalled:
            for item in self._decoder.feed(self._port.read()):
                if isinstance(item, Frame):
                    self._handle(item)
        self._capture(now)
        self._send_status(now)
        self._send_end(now)
        if not stalled:
            self._outbox.flush(self._port, now)
        self._port.wait(self._idle_s(), to_write=self._outbox.waiting(now) and not stalled)

    def _idle_s(self) -> float:
        wake = time.monotonic_ns() + round(_MAX_WAIT_S * 1e9)
        if self._state.started_ns is not None and not self._source_ended:
            wake = min(wake, self._due_ns(self._state.index + self._options.block))
        return (min(wake, self._outbox.next_ns) - time.monotonic_ns()) * 1e-9

    # -- audio -------------------------------------------------------------------------------------------------------

    def _due_ns(self, index: int) -> int:
        """Time in ns at which the converter has captured the sample before ``index``."""
        assert self._state.started_ns is not None
        true_rate = self._options.rate_hz * (1.0 + self._faults.rate_ppm * 1e-6) * self._options.speed
        return self._state.started_ns + round((index - self._state.origin) * 1e9 / true_rate)

    def _capture(self, now: int) -> None:
        if self._state.started_ns is None or self._source_ended:
            return
        for _ in range(_BLOCKS_A_STEP):
            if now < self._due_ns(self._state.index + self._options.block):
                return
            samples = next(self._captured, None)
            if samples is None:
                self._source_ended = True
                return
            first = self._state.index
            self._state.index += samples.size
            if self._state.streaming:
                self._send_audio(samples, first, now)

    def _send_audio(self, samples: npt.NDArray[np.float32], first: int, now: int) -> None:
        integers = to_integers(samples, self._codec)
        full = 1 << BITS[self._codec] - 1
        if self._outbox.full:
            self.report.dropped_blocks += 1
            self._state.discontinuity = True
            return
        clipped = bool((integers >= full - 1).any() or (integers <= -full).any())
        flags = (Flags.CLIPPED if clipped else 0) | (Flags.DISCONTINUITY if self._state.discontinuity else 0)
        self._state.discontinuity = False
        message = encode_audio(integers, self._codec, self._state.adpcm)
        not_before_ns = now + round(self._rng.uniform(0.0, self._faults.jitter_s) * 1e9) if self._faults.jitter_s else 0
        self._send(message, first, int(flags), not_before_ns=not_before_ns)

    # -- messages ----------------------------------------------------------------------------------------------------

    def _send(self, message: Message, index: int | None = None, flags: int = 0, *, not_before_ns: int = 0) -> None:
        seq = self._state.seq
        self._state.seq = (seq + 1) & 0xFFFF
        self.report.frames += 1
        sample_index = self._state.index if index is None else index
        self._outbox.post(encode_message(message, seq=seq, sample_index=sample_index, flags=flags), not_before_ns)

    def _send_status(self, now: int) -> None:
        if not self._port.plugged or now < self._state.next_second_ns:
            return
        self._state.next_second_ns = now + 1_000_000_000
        if not self._state.streaming:
            return
        self._send(self._format())
        battery = self._battery(now)
        self._send(
            Status(
                uptime_us=(now - self._state.booted_ns) // 1000,
                dropped_blocks=self.report.dropped_blocks,
                battery_mv=0 if battery is None else 3300 + 9 * battery,
                battery_percent=battery,
                contact=True,
                temperature_c=31.5,
                state=DeviceState.STREAMING,
            )
        )
        if battery is not None and battery < _BATTERY_LOW and not self._battery_low_sent:
            self._battery_low_sent = True
            self._send(DeviceEvent(EventCode.BATTERY_LOW, battery))

    def _battery(self, now: int) -> int | None:
        if self._options.battery_percent is None:
            return None
        minutes = 0.0 if self._first_start_ns is None else (now - self._first_start_ns) / 60e9
        return round(min(100.0, max(0.0, self._options.battery_percent + minutes * self._options.battery_per_min)))

    def _send_end(self, now: int) -> None:
        state = self._state
        if not self._source_ended or self._outbox.held_back or now < state.next_end_ns:
            return
        unplugged = self._replug_ns is not None
        if state.streaming and not unplugged:
            self._send(End(state.index))
        if not unplugged:
            state.end_sent += 1
        state.next_end_ns = now + round(_END_EVERY_S * 1e9)
        if state.end_sent > _END_TIMES:
            self._leave()

    def _leave(self) -> None:
        self.report.ended = True
        self._leaving = True
        self._outbox.flush(self._port, 1 << 63)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _format(self) -> StreamFormat:
        return StreamFormat(
            rate_num=self._options.rate_hz,
            bits=BITS[self._codec],
            codec=self._codec,
            site_code=self._site,
            gain_cdb=self._state.gain_cdb,
            block=self._options.block,
            clock_id=self._state.clock_id,
        )

    def _info(self) -> Info:
        capabilities = Capability.S16 | Capability.S24 | Capability.ADPCM | Capability.GAIN | Capability.SET_FORMAT
        capabilities |= Capability.CONTACT | Capability.TEMPERATURE
        if self._options.battery_percent is not None:
            capabilities |= Capability.BATTERY
        return Info(
            self._options.serial,
            self._options.model,
            capabilities=capabilities,
            boot_id=self._state.boot_id,
            rates_hz=(self._options.rate_hz,),
        )

    def _handle(self, frame: Frame) -> None:
        received_ns = time.monotonic_ns()
        self.report.commands += 1
        try:
            command = parse(frame)
        except ProtocolError:
            self._reply(frame, AckCode.MALFORMED)
            return
        if isinstance(command, TimeRequest):
            self._send(Time(command.t1, self._device_ns(received_ns), self._device_ns(time.monotonic_ns())))
            return
        code, messages = self._execute(frame, command)
        self._reply(frame, code)
        if code == AckCode.DONE:
            for message in messages:
                self._send(message)

    def _execute(self, frame: Frame, command: Message | None) -> tuple[AckCode, list[Message]]:
        """Outcome, and the messages to send after the acknowledgement."""
        if isinstance(command, Hello):
            supported = command.low <= MAJOR <= command.high
            return (AckCode.DONE, [self._info(), self._format()]) if supported else (AckCode.VERSION, [])
        if isinstance(command, SetGain):
            if abs(command.gain_cdb) > _GAIN_RANGE_CDB:
                return AckCode.NOT_SUPPORTED, []
            self._state.gain_cdb = command.gain_cdb
            return AckCode.DONE, [self._format()]
        if isinstance(command, SetFormat):
            return self._set_format(command)
        if frame.type == MessageType.START:
            self._start()
            return AckCode.DONE, [self._format(), Log(20, f"{self._options.model}: audio on")]
        if frame.type == MessageType.STOP:
            self._stop()
            return AckCode.DONE, []
        if frame.type == MessageType.GET_INFO:
            return AckCode.DONE, [self._info(), self._format()]
        return (AckCode.DONE if frame.type == MessageType.PING else AckCode.UNKNOWN_COMMAND), []

    def _reply(self, frame: Frame, code: AckCode) -> None:
        self._send(Reply(frame.type, code, frame.seq))

    def _start(self) -> None:
        now = time.monotonic_ns()
        state = self._state
        if state.started_ns is None:
            state.started_ns, state.origin = now, state.index
            state.clock_id = secrets.randbelow(0xFFFFFFFF) + 1
        if self._first_start_ns is None:
            self._first_start_ns = now
        state.streaming = True
        state.next_second_ns = now + 1_000_000_000
        state.end_sent, state.next_end_ns = 0, 0

    def _stop(self) -> None:
        started = self._state.started_ns is not None
        self._state.streaming = False
        self._outbox.clear_delayed()
        if self._options.once and started:
            self._source_ended = True
            self._state.end_sent = _END_TIMES
            self._state.next_end_ns = 0

    def _set_format(self, requested: SetFormat) -> tuple[AckCode, list[Message]]:
        codec = self._codec if requested.codec == 0 else requested.codec
        rate = requested.rate_hz or self._options.rate_hz
        if codec not in Codec.__members__.values() or rate != self._options.rate_hz:
            return AckCode.NOT_SUPPORTED, []
        if requested.bits and requested.bits != BITS[Codec(codec)]:
            return AckCode.NOT_SUPPORTED, []
        if requested.site_code != UNKNOWN_BYTE and requested.site_code >= len(SITES):
            return AckCode.NOT_SUPPORTED, []
        if self._state.streaming and codec != self._codec:
            return AckCode.NOT_NOW, []
        self._codec = Codec(codec)
        if requested.site_code != UNKNOWN_BYTE:
            self._site = requested.site_code
        return AckCode.DONE, [self._format()]

    def _device_ns(self, host_ns: int) -> int:
        return round((host_ns - self._state.booted_ns) * (1.0 + self._faults.rate_ppm * 1e-6))

    # -- faults ------------------------------------------------------------------------------------------------------

    def _stalled(self, now: int) -> bool:
        if self._first_start_ns is None:
            return False
        since_s = (now - self._first_start_ns) * 1e-9
        return any(stall.at_s <= since_s < stall.at_s + stall.for_s for stall in self._faults.stalls)

    def _update_port(self, now: int) -> None:
        if self._port.host_present is False and self._state.streaming:
            self._state.streaming = False  # the host is gone
            self._outbox.clear()
        if self._replug_ns is not None and now >= self._replug_ns:
            self._replug_ns = None
            self._port.plug()
        if not self._unplugs or self._first_start_ns is None:
            return
        fault = self._unplugs[0]
        if now - self._first_start_ns >= fault.at_s * 1e9 and self._port.plugged:
            self._unplugs.popleft()
            self._unplug(fault, now)

    def _unplug(self, fault: Unplug, now: int) -> None:
        self._port.unplug()
        self._outbox.clear()
        self._decoder.reset()
        self.report.unplugs += 1
        self._replug_ns = now + round(fault.for_s * 1e9)
        self._state.streaming = False
        if fault.reboot:
            self._state = DeviceMemory(booted_ns=now)
