"""Settings of the segmenter's training; defaults are those of the shipped recipe."""

from __future__ import annotations

import msgspec


class MixSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shares of the kinds of excerpts in the training windows; they need not add up to one."""

    recordings: float = 0.65  # of the corpus with annotated cycles, and its poor recordings
    phantoms: float = 0.15  # simulated patients
    clips: float = 0.12  # one-second phase clips put together to cycles
    negatives: float = 0.08  # audio without a respiratory cycle


class SegmentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Windows, targets and losses of the segmenter."""

    window_s: float = 12.0  # of one training sequence
    windows_per_epoch: int = 2048
    mix: MixSection = MixSection()
    exact_share: float = 0.5  # windows without device simulation
    start_share: float = 0.75  # recordings that begin at their first sample, as a file does
    slow_down: float = 0.25  # natural log of the slowest playback
    speed_up: float = 0.15
    gap_cycles: float = 0.8  # longer stretches without annotation may hold an unlabelled cycle
    gap_weight: float = 1.0  # of their frames in the loss
    poor_weight: float = 0.3  # of recordings without any annotated cycle, taken as without cycles
    onset_width_s: float = 0.08  # half the base of the triangle around an onset
    onset_weight: float = 1.0  # of the onset's loss against the activity's
    offset_width_s: float = 0.12  # the same around the end of a cycle, an auxiliary output
    offset_weight: float = 0.7
    onset_positive: float = 1.5  # of onset frames, and of offset frames, against others
    phase_weight: float = 0.5
    clip_weight: float = 1.0  # of phase clips that start from a fresh state; 0: none
    clips_per_window: int = 2  # of them in a batch, for each of its windows
    disturb_p: float = 0.3  # windows with added coughs, speech, hum or an offset
    clip_corpus: str | None = "hf_lung_phase_clips"  # folder beside the corpus root; None: no phase clips
    phantoms: int = 240  # patients
    phantom_s: float = 36.0  # of each
    rates_bpm: tuple[float, float] = (8.0, 70.0)  # of the patients, uniform in the logarithm
    decoder: dict[str, float] = {}  # settings of the runtime's decoder, tuned on held-out patients
    search: int = 0  # candidates of a search for better ones, on the held-out patients after the last epoch
    extra: tuple[str, ...] = ()  # more corpora with cycles or phases, as NAME=FOLDER (icbhi=..., hf_lung_v1=...)
