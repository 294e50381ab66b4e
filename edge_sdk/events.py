"""Audio blocks and events, the data of the runtime: all frozen, times as sample indices of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # numpy alone is most of the time of ``import edge_sdk``
    import numpy as np
    import numpy.typing as npt

QualityState: TypeAlias = Literal[
    "ok", "silence", "no-contact", "clipping", "noisy", "not-breathing", "too-short", "gap", "overload"
]
"""Why a stretch of audio can (``ok``) or cannot be classified; ``overload``: this machine was too slow at the time;
``not-breathing``: audio without a respiratory cycle for long (speech, handling, a held breath)."""


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """A run of consecutive samples from one channel of one source."""

    samples: npt.NDArray[np.float32]  # [n], full scale is ±1
    sample_rate: int  # Hz
    first_sample: int = 0  # index of samples[0] on the source's own sample clock
    host_ns: int = 0  # monotonic host clock at arrival; 0 where no clock applies (files)
    lost_before: int = 0  # samples dropped right before this block, counted exactly


@dataclass(frozen=True, slots=True)
class BreathCycle:
    """One respiratory cycle (inspiration + expiration) from the segmenter."""

    index: int  # counts from 0 in a stream; a provisional cycle and its final one share it
    onset: int  # first sample of the inspiration, source rate
    end: int  # one past the last sample; of a provisional cycle, its end so far
    sample_rate: int  # Hz, of the source
    final: bool  # a final cycle is never revised
    emitted_at: int  # samples of the source consumed when this event became determined
    confidence: float  # 0..1
    phase_change: int | None = None  # first sample of the expiration, None where unknown
    audible: tuple[int, int] | None = None  # first audible sample, and one past the last; None: nothing was audible

    @property
    def start_s(self) -> float:
        """Onset in seconds."""
        return self.onset / self.sample_rate

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return self.end / self.sample_rate

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end - self.onset) / self.sample_rate

    @property
    def detection_delay_s(self) -> float:
        """Seconds of audio from the end of the cycle to its event."""
        return (self.emitted_at - self.end) / self.sample_rate


@dataclass(frozen=True, slots=True)
class CycleResult:
    """A final cycle with the classifier's result."""

    cycle: BreathCycle
    label: str | None  # None where quality forbids one
    probabilities: Mapping[str, float] = field(default_factory=dict)  # calibrated; empty: the classifier did not run
    quality: QualityState = "ok"


@dataclass(frozen=True, slots=True)
class QualityEvent:
    """The quality of the audio changed at a sample."""

    at: int  # source sample index from which the new state holds
    sample_rate: int
    state: QualityState
    level_dbfs: float  # RMS of the window that decided

    @property
    def at_s(self) -> float:
        """Time of the change in seconds."""
        return self.at / self.sample_rate


@dataclass(frozen=True, slots=True)
class Gap:
    """Dropped samples; segmenter and classifier state restart after them."""

    first_sample: int  # index of the first dropped sample, source rate
    count: int  # dropped samples
    sample_rate: int

    @property
    def at_s(self) -> float:
        """Begin in seconds."""
        return self.first_sample / self.sample_rate

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.count / self.sample_rate


@dataclass(frozen=True, slots=True)
class Adventitious:
    """An adventitious sound, found in continuous audio and independent of the respiratory cycles."""

    kind: str  # crackle or wheeze
    onset: int  # first sample, source rate
    end: int  # one past the last sample
    sample_rate: int  # Hz, of the source
    confidence: float  # largest probability of its frames
    emitted_at: int  # samples of the source consumed when this event became determined

    @property
    def start_s(self) -> float:
        """Onset in seconds."""
        return self.onset / self.sample_rate

    @property
    def end_s(self) -> float:
        """End in seconds."""
        return self.end / self.sample_rate


VerdictName: TypeAlias = Literal["normal", "abnormal", "uncertain"]

VerdictReason: TypeAlias = Literal["too-little-audio", "poor-quality", "unfamiliar"]
"""Why a verdict is ``uncertain``: less usable audio than it needs; audio that the quality gate refuses, or without a
respiratory cycle; audio unlike that of the calibration. Without a reason the probability lies between both thresholds.
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a recording by its audio so far; of a gapless or interrupted stream alike."""

    at: int  # samples of the source consumed when it became determined
    sample_rate: int  # Hz, of the source
    verdict: VerdictName
    p_abnormal: float | None  # calibrated; None without any evidence
    reason: VerdictReason | None  # of ``uncertain``
    usable_s: float  # audio that the quality gate accepts, in seconds
    cycles: int  # labelled ones
    final: bool  # the last one of a stream; those before it are running ones
    respiratory_rate_bpm: float | None = None  # median of the last 500 cycles; None before the first
    respiratory_rate_confident: bool | None = None  # whether the rate can be relied on; None without one

    @property
    def at_s(self) -> float:
        """Seconds of audio consumed."""
        return self.at / self.sample_rate


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """Another device took the place of the one before it; emitted by the session, not by the stream."""

    at: int  # source sample at which the new device begins
    sample_rate: int  # Hz, of the source so far
    reason: str  # in what the devices differ
    previous: Mapping[str, str | None]  # serial_number, model, site, firmware; None where unknown
    device: Mapping[str, str | None]
    same_session: bool  # False: the session ends here, a new one begins

    @property
    def at_s(self) -> float:
        """Time of the change in seconds."""
        return self.at / self.sample_rate


Event: TypeAlias = BreathCycle | CycleResult | QualityEvent | Gap | Adventitious | Verdict | DeviceChange
"""Everything that sinks may receive."""


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Counters of one stream, and notes on its source; a snapshot."""

    samples_in: int = 0  # samples accepted
    samples_lost: int = 0  # sum of all gaps
    gaps: int = 0
    cycles: int = 0  # final cycles
    classified: int = 0  # of these, with a label
    inference_ns: int = 0  # time spent in the classifier engine
    skipped: int = 0  # final cycles not classified because the machine was too slow
    notes: tuple[str, ...] = ()  # what is wrong with the source although it was processed; lines for people


HealthState: TypeAlias = Literal["healthy", "stalled", "recovering", "replaced", "failed"]
"""``stalled``: open, but without new samples; ``recovering``: lost, to be reopened; ``replaced``: another device is in
its place, which ends the session; ``failed``: not to be recovered."""


@dataclass(frozen=True, slots=True)
class Health:
    """State of a session's source on the host's clock; not determined by the samples and therefore no event."""

    state: HealthState
    detail: str  # one line for people
    at_ns: int  # monotonic host clock
    overloaded: bool = False  # the machine is too slow for the audio
    engine: str | None = None  # the engine that took over from one that failed; None: nothing of the engine changed
