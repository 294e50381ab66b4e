"""An emulated stethoscope: plays any sound over a link as the reference firmware does, with faults on demand."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from firmware_bridge import audio
from firmware_bridge.decoder import FrameDecoder
from firmware_bridge.emulator.faults import Faults, FaultyWire, Unplug
from firmware_bridge.emulator.model import Blocks, DeviceOptions, EmulatorReport, Memory, frames
from firmware_bridge.emulator.outbox import Outbox
from firmware_bridge.emulator.port import DevicePort
from firmware_bridge.errors import ProtocolError
from firmware_bridge.framing import (
    MAJOR,
    SITES,
    AckCode,
    Capability,
    Codec,
    DeviceEvent,
    DeviceState,
    End,
    EventCode,
    Flags,
    Format,
    Frame,
    Hello,
    Info,
    Log,
    Message,
    MessageType,
    Reply,
    SetFormat,
    SetGain,
    Status,
    Time,
    TimeRequest,
    encode_message,
    parse,
)

__all__ = ["DeviceOptions", "EmulatedDevice", "EmulatorReport"]

_END_EVERY_S = 0.5
_END_TIMES = 10
_BATTERY_LOW = 15
_MAX_WAIT_S = 0.05
_BLOCKS_A_TURN = 64
_GAIN_RANGE_CDB = 6000
_BYTES_A_SAMPLE = 4
_LEAST_ROOM = 65536


class EmulatedDevice:
    """One thread's worth of firmware.

    Parameters
    ----------
    source
        Makes the sound: called for each pass, gives blocks of float32 at ``options.rate_hz``, full scale ±1.
    port
        Where the host listens.
    """

    def __init__(
        self, source: Callable[[], Blocks], port: DevicePort, options: DeviceOptions, faults: Faults | None = None
    ) -> None:
        self._faults = faults or Faults()
        self._options = replace(options, block=options.block or max(1, round(options.rate_hz * 0.01)))
        self._port = port
        self._captured = frames(source, self._options.block, repeat=not options.once)
        self._codec = options.codec
        self._site = options.site_code
        self._wire = FaultyWire(flip=self._faults.flip, drop_every=self._faults.drop_every, seed=options.seed)
        self._dice = np.random.default_rng(options.seed)
        self._decoder = FrameDecoder()
        room = round(options.buffer_s * options.speed * options.rate_hz * _BYTES_A_SAMPLE)
        self._outbox = Outbox(self._wire, max(_LEAST_ROOM, room))
        self._first_start_ns: int | None = None
        self._unplugs = deque(sorted(self._faults.unplugs))
        self._replug_ns: int | None = None
        self._battery_told = False
        self._source_ended = False
        self._leaving = False
        self.report = EmulatorReport()
        now = time.monotonic_ns()
        self._state = Memory(booted_ns=now)

    def run(self, stop: threading.Event | None = None) -> EmulatorReport:
        """Serve the host until ``stop`` is set or, with ``once``, the source has been played."""
        self._port.plug()
        try:
            while not self._leaving and not (stop and stop.is_set()):
                self._turn()
        finally:
            self._port.unplug()
        return self._told()

    def _told(self) -> EmulatorReport:
        dropped = sum(hit.dropped for hit in self._wire.hits)
        self.report.flips, self.report.drops = len(self._wire.hits) - dropped, dropped
        self.report.samples = self._state.index
        return self.report

    def _turn(self) -> None:
        now = time.monotonic_ns()
        self._plug_and_unplug(now)
        stalled = self._stalled(now)
        if not stalled:
            for item in self._decoder.feed(self._port.read()):
                if isinstance(item, Frame):
                    self._obey(item)
        self._capture(now)
        self._each_second(now)
        self._finish(now)
        if not stalled:
            self._outbox.flush(self._port, now)
        self._port.wait(self._idle_s(), to_write=self._outbox.waiting(now) and not stalled)

    def _idle_s(self) -> float:
        wake = time.monotonic_ns() + round(_MAX_WAIT_S * 1e9)
        if self._state.started_ns is not None and not self._source_ended:
            wake = min(wake, self._due_ns(self._state.index + self._options.block))
        return (min(wake, self._outbox.next_ns) - time.monotonic_ns()) * 1e-9

    # Sound

    def _due_ns(self, index: int) -> int:
        """When the converter has taken the sample before ``index``."""
        assert self._state.started_ns is not None
        true_rate = self._options.rate_hz * (1.0 + self._faults.rate_ppm * 1e-6) * self._options.speed
        return self._state.started_ns + round((index - self._state.origin) * 1e9 / true_rate)

    def _capture(self, now: int) -> None:
        if self._state.started_ns is None or self._source_ended:
            return
        for _ in range(_BLOCKS_A_TURN):
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
        integers = audio.to_integers(samples, self._codec)
        full = 1 << audio.BITS[self._codec] - 1
        if self._outbox.full:
            self.report.dropped_blocks += 1
            self._state.discontinuity = True
            return
        clipped = bool((integers >= full - 1).any() or (integers <= -full).any())
        flags = (Flags.CLIPPED if clipped else 0) | (Flags.DISCONTINUITY if self._state.discontinuity else 0)
        self._state.discontinuity = False
        message = audio.encode(integers, self._codec, self._state.adpcm)
        late_ns = now + round(self._dice.uniform(0.0, self._faults.jitter_s) * 1e9) if self._faults.jitter_s else 0
        self._send(message, first, int(flags), late_ns=late_ns)

    # Words

    def _send(self, message: Message, index: int | None = None, flags: int = 0, *, late_ns: int = 0) -> None:
        seq = self._state.seq
        self._state.seq = (seq + 1) & 0xFFFF
        self.report.frames += 1
        at = self._state.index if index is None else index
        self._outbox.post(encode_message(message, seq=seq, sample_index=at, flags=flags), late_ns)

    def _each_second(self, now: int) -> None:
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
        if battery is not None and battery < _BATTERY_LOW and not self._battery_told:
            self._battery_told = True
            self._send(DeviceEvent(EventCode.BATTERY_LOW, battery))

    def _battery(self, now: int) -> int | None:
        if self._options.battery_percent is None:
            return None
        minutes = 0.0 if self._first_start_ns is None else (now - self._first_start_ns) / 60e9
        return round(min(100.0, max(0.0, self._options.battery_percent + minutes * self._options.battery_per_min)))

    def _finish(self, now: int) -> None:
        state = self._state
        if not self._source_ended or self._outbox.held_back or now < state.next_end_ns:
            return
        waiting = self._replug_ns is not None
        if state.streaming and not waiting:
            self._send(End(state.index))
        if not waiting:
            state.end_sent += 1
        state.next_end_ns = now + round(_END_EVERY_S * 1e9)
        if state.end_sent > _END_TIMES:
            self._leave()

    def _leave(self) -> None:
        self.report.ended = True
        self._leaving = True
        self._outbox.flush(self._port, 1 << 63)

    # Commands

    def _format(self) -> Format:
        return Format(
            rate_num=self._options.rate_hz,
            bits=audio.BITS[self._codec],
            codec=self._codec,
            site_code=self._site,
            gain_cdb=self._state.gain_cdb,
            block=self._options.block,
            clock_id=self._state.clock_id,
        )

    def _info(self) -> Info:
        able = Capability.S16 | Capability.S24 | Capability.ADPCM | Capability.GAIN | Capability.SET_FORMAT
        able |= Capability.CONTACT | Capability.TEMPERATURE
        if self._options.battery_percent is not None:
            able |= Capability.BATTERY
        return Info(
            self._options.serial,
            self._options.model,
            capabilities=able,
            boot_id=self._state.boot_id,
            rates_hz=(self._options.rate_hz,),
        )

    def _obey(self, frame: Frame) -> None:
        received_ns = time.monotonic_ns()
        self.report.commands += 1
        try:
            command = parse(frame)
        except ProtocolError:
            self._answer(frame, AckCode.MALFORMED)
            return
        if isinstance(command, TimeRequest):
            self._send(Time(command.t1, self._device_ns(received_ns), self._device_ns(time.monotonic_ns())))
            return
        code, told = self._carry_out(frame, command)
        self._answer(frame, code)
        if code == AckCode.DONE:
            for message in told:
                self._send(message)

    def _carry_out(self, frame: Frame, command: Message | None) -> tuple[AckCode, list[Message]]:
        """Outcome, and what to tell after the acknowledgement."""
        if isinstance(command, Hello):
            fits = command.low <= MAJOR <= command.high
            return (AckCode.DONE, [self._info(), self._format()]) if fits else (AckCode.VERSION, [])
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

    def _answer(self, frame: Frame, code: AckCode) -> None:
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
        self._outbox.forget_delayed()
        if self._options.once and started:
            self._source_ended = True
            self._state.end_sent = _END_TIMES
            self._state.next_end_ns = 0

    def _set_format(self, wanted: SetFormat) -> tuple[AckCode, list[Message]]:
        codec = self._codec if wanted.codec == 0 else wanted.codec
        rate = wanted.rate_hz or self._options.rate_hz
        if codec not in Codec.__members__.values() or rate != self._options.rate_hz:
            return AckCode.NOT_SUPPORTED, []
        if wanted.bits and wanted.bits != audio.BITS[Codec(codec)]:
            return AckCode.NOT_SUPPORTED, []
        if wanted.site_code != 255 and wanted.site_code >= len(SITES):
            return AckCode.NOT_SUPPORTED, []
        if self._state.streaming and codec != self._codec:
            return AckCode.NOT_NOW, []
        self._codec = Codec(codec)
        if wanted.site_code != 255:
            self._site = wanted.site_code
        return AckCode.DONE, [self._format()]

    def _device_ns(self, host_ns: int) -> int:
        return round((host_ns - self._state.booted_ns) * (1.0 + self._faults.rate_ppm * 1e-6))

    # Faults

    def _stalled(self, now: int) -> bool:
        if self._first_start_ns is None:
            return False
        since_s = (now - self._first_start_ns) * 1e-9
        return any(stall.at_s <= since_s < stall.at_s + stall.for_s for stall in self._faults.stalls)

    def _plug_and_unplug(self, now: int) -> None:
        if self._port.host_present is False and self._state.streaming:
            self._state.streaming = False  # the host has gone
            self._outbox.forget()
        if self._replug_ns is not None and now >= self._replug_ns:
            self._replug_ns = None
            self._port.plug()
        if not self._unplugs or self._first_start_ns is None:
            return
        fault = self._unplugs[0]
        if now - self._first_start_ns >= fault.at_s * 1e9 and self._port.plugged:
            self._unplugs.popleft()
            self._pull(fault, now)

    def _pull(self, fault: Unplug, now: int) -> None:
        self._port.unplug()
        self._outbox.forget()
        self._decoder.reset()
        self.report.unplugs += 1
        self._replug_ns = now + round(fault.for_s * 1e9)
        self._state.streaming = False
        if fault.reboot:
            self._state = Memory(booted_ns=now)
