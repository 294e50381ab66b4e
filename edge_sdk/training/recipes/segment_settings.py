"""Settings of the segmenter's training; defaults are those of the shipped recipe."""

from __future__ import annotations

import msgspec


class MixSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shares of the kinds of windows; they need not add up to one."""

    cycles: float = 0.40  # recordings whose annotated cycles are true ones (ICBHI)
    events: float = 0.30  # recordings with audible events (SPRSound)
    poor: float = 0.04  # recordings without an annotated cycle
    phantoms: float = 0.14  # simulated patients
    clips: float = 0.06  # one-second phase clips put together to cycles
    negatives: float = 0.06  # audio without a respiratory cycle


class SegmentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Windows, targets and losses of the segmenter."""

    window_s: float = 16.0  # of one training sequence
    event_window_s: float = 9.0  # of those with audible events, whose recordings are short
    windows_per_epoch: int = 1280
    mix: MixSection = MixSection()
    exact_share: float = 0.1  # windows without any disturbance
    start_share: float = 0.4  # recordings that begin at their first frame, as a file does
    cycle_pace: tuple[float, float] = (0.55, 2.6)  # slowest and fastest playback of true cycles, at the same pitch,
    event_pace: tuple[float, float] = (0.6, 1.8)  # of audible events
    other_pace: tuple[float, float] = (0.7, 1.5)  # and of everything else
    poor_weight: float = 0.3  # of recordings without any annotated cycle, taken as without cycles
    onset_width_s: float = 0.14  # half the base of the triangle around an onset
    onset_positive: float = 4.0  # of onset frames against others
    cycle_weight: float = 0.5  # of the cycle's angle against the onset
    activity_weight: float = 0.5
    tempo_weight: float = 0.3
    phase_weight: float = 0.3
    clip_weight: float = 0.3  # of phase clips that start from a fresh state; 0: none
    clips_per_window: int = 1  # of them in a batch, for each of its windows
    cycle_corpus: str | None = "icbhi"  # folder beside the corpus root with true cycles; None: none
    clip_corpus: str | None = "hf_lung_phase_clips"  # folder beside the corpus root; None: no phase clips
    noise_corpus: str | None = "noise"  # folder beside the corpus root; None: no real noise
    phantoms: int = 200  # patients
    phantom_s: float = 32.0  # of each
    rates_bpm: tuple[float, float] = (8.0, 80.0)  # of the patients, uniform in the logarithm
    decoder: dict[str, float] = {}  # settings of the runtime's decoder, tuned on held-out patients
    search: int = 0  # candidates of a search for better ones, on the held-out patients after the last epoch
    extra: tuple[str, ...] = ()  # more corpora with cycles or phases, NAME or NAME=FOLDER (hf_lung_v1=...)
