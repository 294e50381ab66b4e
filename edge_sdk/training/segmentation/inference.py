"""What a segmenter would emit on whole recordings: its outputs in one pass, then the device's decoder step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.metrics.events import Announcement, ScoredRecording
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.segmenter import STRIDE, SegmenterNetwork
from edge_sdk.runtime.segmentation.decoder import DecodedCycle, TempoDecoder
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.signal.breathing_rate import RateMeter
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.data import AnnotatedRecording
from edge_sdk.training.segmentation.excerpts import Annotation

Floats = npt.NDArray[np.float64]
STEP_FRAMES = 4
"""Feature frames of one step on the device."""

_AT_ONCE = 16  # recordings in one pass


@dataclass(frozen=True)
class NetworkOutputs:
    """Outputs of the network for one recording; column ``t`` describes output frame ``t``: the delay is taken off."""

    name: str
    patient: str
    samples: int
    spec: FrontEndSpec
    delay: int  # output frames
    kind: Annotation
    truth_s: Floats  # [k, 2]
    activity: Floats  # [T] probabilities
    onset: Floats  # [T]
    phase: Floats  # [3, T]
    cycle: Floats  # [2, T]
    group: str = ""  # device


@torch.no_grad()
def run_network(model: SegmenterNetwork, recordings: Sequence[AnnotatedRecording]) -> list[NetworkOutputs]:
    """Run whole recordings, each from a fresh state; those shorter than an output frame are left out."""
    spec, delay = model.front_end, model.delay
    outputs: dict[str, NetworkOutputs] = {}
    order = sorted(recordings, key=lambda recording: len(recording.excerpt.frames))
    training = model.training
    model.eval()
    for begin in range(0, len(order), _AT_ONCE):
        some = [r for r in order[begin : begin + _AT_ONCE] if len(r.excerpt.frames) >= STRIDE]
        if not some:
            continue
        longest = max(len(r.excerpt.frames) for r in some) // STRIDE * STRIDE + STRIDE * (delay + 1)
        rows = [r.excerpt.frames for r in some]
        padded = np.stack([np.pad(row, ((0, longest - len(row)), (0, 0)), mode="edge").T for row in rows])
        logits, _ = model(torch.from_numpy(np.ascontiguousarray(padded)))
        activity, onset = torch.sigmoid(logits.activity).numpy(), torch.sigmoid(logits.onset).numpy()
        phase, cycle = torch.softmax(logits.phase, dim=1).numpy(), logits.cycle.numpy()
        for k, (recording, row) in enumerate(zip(some, rows, strict=True)):
            part = slice(delay, delay + len(row) // STRIDE)
            outputs[recording.name] = NetworkOutputs(
                recording.name,
                recording.patient,
                recording.samples,
                spec,
                delay,
                recording.excerpt.truth.kind,
                recording.excerpt.truth.cycles,
                activity[k, part].astype(np.float64),
                onset[k, part].astype(np.float64),
                phase[k, :, part].astype(np.float64),
                cycle[k, :, part].astype(np.float64),
                recording.group,
            )
    model.train(training)
    return [outputs[r.name] for r in recordings if r.name in outputs]


def emit(outputs: NetworkOutputs, params: DecoderParams) -> ScoredRecording:
    """Decode in steps of the device's size; the cycles and emission times are those of the stream.

    Parameters
    ----------
    outputs
        Of the network, for one recording.
    params
        Settings of the decoder.
    """
    spec = outputs.spec
    hop = STRIDE * spec.hop_samples
    decoder = TempoDecoder(hop / spec.rate_hz, params)
    shift = (spec.frame_samples - spec.hop_samples) // 2
    found: list[tuple[float, float]] = []
    audible: list[tuple[float, float]] = []
    rate = RateMeter()
    announcements: list[Announcement] = []
    open_since: tuple[float, float] | None = None

    def second(frame: int) -> float:
        return min(frame * hop + (shift if frame else 0), outputs.samples) / spec.rate_hz

    def take(cycles: Sequence[DecodedCycle], emitted_s: float) -> None:
        nonlocal open_since
        for cycle in cycles:
            start, end = second(cycle.start), second(cycle.end)
            if cycle.final:
                found.append((start, end))
                rate.add(start, end - start, cycle.confidence)
                sounding = cycle.audible
                audible.append(found[-1] if sounding is None else (second(sounding[0]), second(sounding[1])))
                announced = open_since or (start, emitted_s)
                announcements.append(Announcement(announced[0], announced[1], start))
                open_since = None
            else:
                if open_since is not None:
                    announcements.append(Announcement(*open_since, None))
                open_since = (start, emitted_s)

    frames, each = len(outputs.activity), STEP_FRAMES // STRIDE
    duration_s = outputs.samples / spec.rate_hz
    ahead = -outputs.delay % each  # steps begin at multiples of ``each`` of the undelayed frames
    for begin in range(ahead - each, frames, each):
        part = slice(max(0, begin), min(begin + each, frames))
        if part.start >= part.stop:
            continue
        received = ((begin + outputs.delay + each) * STRIDE - 1) * spec.hop_samples + spec.frame_samples
        step = (outputs.activity[part], outputs.onset[part], outputs.phase[:, part], outputs.cycle[:, part])
        take(decoder.accept(*step), min(received, outputs.samples) / spec.rate_hz)
    take(decoder.finish(), duration_s)
    if open_since is not None:
        announcements.append(Announcement(*open_since, None))
    return ScoredRecording(
        outputs.name,
        outputs.patient,
        duration_s,
        outputs.truth_s,
        np.array(found).reshape(-1, 2),
        announcements=announcements,
        found_rate_bpm=rate.breaths_per_minute,
        rate_confident=rate.confident,
        found_audible=np.array(audible).reshape(-1, 2),
    )


@torch.no_grad()
def clip_phase_odds(model: SegmenterNetwork, clips: PhaseClips) -> Floats:
    """Log odds of an expiration ``[n, T]``, output frame by output frame, of each clip alone from a fresh state.

    Column ``t`` is the output after frame ``t`` and the look-ahead; at the end of a clip its last frame is repeated.
    """
    spec = model.front_end
    waves = np.stack([np.resize(wave, spec.rate_hz) for wave in clips.waves])
    mel = FoldedFrontEnd(spec).log_mel(torch.from_numpy(waves))  # [n, M, t]
    mel = mel[:, :, : mel.shape[2] // STRIDE * STRIDE]
    ahead = model.delay
    training = model.training
    logits, _ = model.eval()(torch.cat((mel, mel[:, :, -1:].expand(-1, -1, STRIDE * ahead)), dim=2))
    model.train(training)
    odds = logits.phase[:, 1] - logits.phase[:, 0]
    return np.asarray(odds[:, ahead:].numpy().astype(np.float64))
