"""What a segmenter would emit on whole recordings: its outputs in one pass, then the device's decoder step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edge_sdk.metrics.events import Announcement, ScoredRecording
from edge_sdk.models.layers.front_end import FoldedFrontEnd
from edge_sdk.models.segmenter import SegmenterNetwork
from edge_sdk.runtime.segmentation.decoder import DecoderParams, PhaseDecoder
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.data import AnnotatedRecording

Floats = npt.NDArray[np.float64]
STEP_FRAMES = 4
_AT_ONCE = 16  # recordings in one pass


@dataclass(frozen=True)
class NetworkOutputs:
    """Outputs of the network for one recording; column ``t`` is of frame ``t - delay``."""

    name: str
    patient: str
    samples: int
    truth_s: Floats  # [k, 2]
    activity: Floats  # [T] probabilities
    onset: Floats  # [T]
    phase: Floats  # [3, T]
    frames: int  # of the recording; the columns beyond come from its last frame, repeated


@torch.no_grad()
def run_network(model: SegmenterNetwork, recordings: Sequence[AnnotatedRecording]) -> list[NetworkOutputs]:
    """Run whole recordings, each from a fresh state; those shorter than a frame are left out."""
    spec = model.front_end
    front_end = FoldedFrontEnd(spec)
    outputs: dict[str, NetworkOutputs] = {}
    order = sorted(recordings, key=lambda recording: recording.excerpt.wave.size)
    training = model.training
    model.eval()
    for begin in range(0, len(order), _AT_ONCE):
        some = [r for r in order[begin : begin + _AT_ONCE] if spec.frames_of(r.excerpt.wave.size)]
        mels = [front_end.log_mel(torch.from_numpy(r.excerpt.wave)[None])[0] for r in some]
        longest = max((mel.shape[1] for mel in mels), default=0) + max(0, model.delay)
        padded = [torch.cat((mel, mel[:, -1:].expand(-1, longest - mel.shape[1])), dim=1) for mel in mels]
        if not padded:
            continue
        logits, _ = model(torch.stack(padded))
        activity, onset = torch.sigmoid(logits.activity).numpy(), torch.sigmoid(logits.onset).numpy()
        phase = torch.softmax(logits.phase, dim=1).numpy()
        for row, (recording, mel) in enumerate(zip(some, mels, strict=True)):
            frames = mel.shape[1]
            end = frames + max(0, model.delay)
            outputs[recording.name] = NetworkOutputs(
                recording.name,
                recording.patient,
                recording.excerpt.wave.size,
                recording.excerpt.truth.cycles / spec.rate_hz,
                activity[row, :end].astype(np.float64),
                onset[row, :end].astype(np.float64),
                phase[row, :, :end].astype(np.float64),
                frames,
            )
    model.train(training)
    return [outputs[r.name] for r in recordings if r.name in outputs]


def emit(outputs: NetworkOutputs, delay: int, spec: FrontEndSpec, params: DecoderParams) -> ScoredRecording:
    """Decode in steps of the device's size; the cycles and emission times are those of the stream.

    Parameters
    ----------
    outputs
        Of the network, for one recording.
    delay
        Frames by which the outputs lag behind the audio.
    spec
        Front end of the network.
    params
        Settings of the decoder.
    """
    decoder = PhaseDecoder(spec.hop_samples / spec.rate_hz, params, most_frames=STEP_FRAMES)
    shift = (spec.frame_samples - spec.hop_samples) // 2
    found: list[tuple[float, float]] = []
    announcements: list[Announcement] = []
    open_since: tuple[float, float] | None = None

    def second(frame: int) -> float:
        return min(frame * spec.hop_samples + (shift if frame else 0), outputs.samples) / spec.rate_hz

    def take(cycles: Sequence[object], emitted_s: float) -> None:
        nonlocal open_since
        for cycle in cycles:
            start, end = second(cycle.start), second(cycle.end)  # type: ignore[attr-defined]
            if cycle.final:  # type: ignore[attr-defined]
                found.append((start, end))
                announced = open_since or (start, emitted_s)
                announcements.append(Announcement(announced[0], announced[1], start))
                open_since = None
            else:
                if open_since is not None:
                    announcements.append(Announcement(*open_since, None))
                open_since = (start, emitted_s)

    columns = len(outputs.activity)
    duration_s = outputs.samples / spec.rate_hz
    for begin in range(0, columns, STEP_FRAMES):
        first, last = max(begin, delay), min(begin + STEP_FRAMES, outputs.frames + delay, columns)
        received = (begin + STEP_FRAMES - 1) * spec.hop_samples + spec.frame_samples
        if first < last:
            take(
                decoder.accept(outputs.activity[first:last], outputs.onset[first:last], outputs.phase[:, first:last]),
                min(received, outputs.samples) / spec.rate_hz,
            )
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
    )


@torch.no_grad()
def clip_phase_odds(model: SegmenterNetwork, clips: PhaseClips) -> Floats:
    """Log odds of an expiration ``[n, T]``, frame by frame, of each clip alone from a fresh state.

    Column ``t`` is the output after frame ``t`` and the look-ahead; at the end of a clip its last frame is repeated.
    """
    spec = model.front_end
    waves = np.stack([np.resize(wave, spec.rate_hz) for wave in clips.waves])
    mel = FoldedFrontEnd(spec).log_mel(torch.from_numpy(waves))  # [n, M, t]
    ahead = max(0, model.delay)
    training = model.training
    logits, _ = model.eval()(torch.cat((mel, mel[:, :, -1:].expand(-1, -1, ahead)), dim=2))
    model.train(training)
    odds = logits.phase[:, 1] - logits.phase[:, 0]
    return np.asarray(odds[:, ahead:].numpy().astype(np.float64))
