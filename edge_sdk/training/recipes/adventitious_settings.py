"""Settings of the training of the network that finds crackles and wheezes; defaults are those of the shipped recipe."""

from __future__ import annotations

import msgspec


class LogMelAugmentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Simulation of other devices and rooms on log-mel frames; decibels, hertz, probabilities."""

    p: float = 0.75  # windows that are changed at all
    gain_db: float = 20.0  # uniform ±
    tilt_db: float = 4.3  # uniform ±, for each factor e of frequency, around 300 Hz
    peaks: int = 3  # most resonances and notches
    peak_db: float = 10.0  # of each, uniform ±
    low_pass_p: float = 0.3
    low_pass_hz: tuple[float, float] = (500.0, 1900.0)
    high_pass_p: float = 0.3
    high_pass_hz: tuple[float, float] = (60.0, 250.0)
    floor_p: float = 0.6  # coloured noise of the electronics
    heart_p: float = 0.3
    poor_p: float = 0.2  # recordings labelled Poor Quality
    noise_p: float = 0.2  # the noise corpus, under the window's audio
    noise_db: tuple[float, float] = (-20.0, 0.0)  # of what is added against the window's breath sounds


class AdventitiousSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Windows, shares and losses."""

    window_s: float = 9.2  # of one training example
    windows_per_epoch: int = 2400
    extra: tuple[str, ...] = ()  # more corpora with labelled cycles, NAME=FOLDER or NAME (beside the corpus root)
    extra_share: float = 0.33  # windows from them
    noise_corpus: str | None = "noise"  # folder beside the corpus root; None: no noise recordings
    noise_share: float = 0.12  # windows of noise alone, without crackle and wheeze
    abnormal_share: float = 0.5  # windows from abnormal recordings, of every device
    patient_power: float = 0.5  # a patient with n recordings is drawn with weight n ** this
    speed: float = 0.16  # natural log of the fastest and slowest playback
    shift_bins: int = 2  # most mel bins by which a window is shifted
    frame_weight: float = 1.0  # of frames without the sound
    strong_weight: float = 0.7  # of annotated sounds, frame by frame
    weak_weight: float = 0.5  # of cycles that contain the sound somewhere
    breath_weight: float = 0.5  # of the auxiliary output
    clip_weight: float = 0.7
    error: float = 0.1  # of the verdict: nominal share of wrong answers
    cycles: tuple[str, ...] = ()  # of --cv: a classifier's cycles, CORPUS=FILE, see ``adventitious.cycle_evidence``
    breaths: str | None = None  # of --cv: folder of the classifier's cross-validation, whose breaths the network joins
    breath_own: float = 0.5  # weight of the network's logits over a breath
    breath_running: float = 0.5  # weight of those over the recording up to the breath's end
    calibration: str | None = None  # cv.json of a cross-validation, whose verdict calibration goes into the checkpoint
    augment: LogMelAugmentSection = LogMelAugmentSection()
