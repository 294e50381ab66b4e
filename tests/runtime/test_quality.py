"""The quality gate: refuses audio that cannot be labelled, and accepts real recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.events import CycleResult, Event, QualityEvent
from edge_sdk.runtime.bundle.load import Bundle
from edge_sdk.runtime.quality import QualityGate, QualityParams, measure
from tests.runtime.conftest import Samples, phantom

RATE = 4000


def run(bundle: Bundle, samples: Samples, rate: int = RATE) -> list[Event]:
    stream = bundle.stream(rate)
    return stream.accept(samples) + stream.finish()


def states(events: list[Event]) -> list[str]:
    return [e.state for e in events if isinstance(e, QualityEvent)]


def results(events: list[Event]) -> list[CycleResult]:
    return [e for e in events if isinstance(e, CycleResult)]


def noise(seconds: float, level: float, seed: int = 0) -> Samples:
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * level).astype(np.float32)


def hum(seconds: float, level: float) -> Samples:
    time_s = np.arange(round(seconds * RATE)) / RATE
    harmonics = np.stack([np.sin(2 * np.pi * f * time_s) / n for n, f in enumerate((50, 150, 250), 1)])
    return (level * harmonics.sum(axis=0)).astype(np.float32)


@pytest.mark.parametrize(
    ("audio", "state"),
    [
        (np.zeros(12 * RATE, np.float32), "silence"),
        (noise(12.0, 1e-5), "silence"),
        (noise(12.0, 1e-3), "no-contact"),
        (hum(12.0, 0.05), "no-contact"),
        (noise(12.0, 0.1), "noisy"),
    ],
    ids=["zeros", "dither", "faint noise", "mains hum", "loud noise"],
)
@pytest.mark.requirement("RES-2")
def test_audio_without_breathing_is_detected_and_gets_no_label(bundle: Bundle, audio: Samples, state: str) -> None:
    events = run(bundle, audio)
    assert states(events) == [state]
    for result in results(events):
        assert result.label is None and result.probabilities == {} and result.quality == state


@pytest.mark.parametrize("rate", [4000, 44100])
@pytest.mark.requirement("RES-2")
def test_heavy_clipping_is_detected_and_gets_no_label(bundle: Bundle, rate: int) -> None:
    audio = phantom("pneumonia", 15.0, rate)
    driven = np.clip(audio / np.abs(audio).max() * 60, -1, 1).astype(np.float32)
    events = run(bundle, driven, rate)
    assert states(events) == ["clipping"]
    assert len(results(events)) >= 3
    assert {r.quality for r in results(events)} == {"clipping"}


def test_a_full_scale_recording_is_not_clipping(bundle: Bundle) -> None:
    audio = phantom("asthma", 15.0)
    events = run(bundle, (audio / np.abs(audio).max()).astype(np.float32))
    assert states(events) == ["ok"]
    assert all(r.label for r in results(events))


@pytest.mark.parametrize("scenario", ["healthy", "asthma", "pneumonia", "copd", "noisy-ward"])
@pytest.mark.parametrize("gain_db", [-20.0, 0.0])
def test_every_cycle_of_a_patient_is_labelled(bundle: Bundle, scenario: str, gain_db: float) -> None:
    events = run(bundle, (phantom(scenario, 30.0) * 10 ** (gain_db / 20)).astype(np.float32))
    assert len(results(events)) >= 5
    assert all(r.label is not None and r.quality == "ok" for r in results(events))


def test_the_state_changes_once_with_the_audio(bundle: Bundle) -> None:
    breathing = phantom("healthy", 10.0)
    audio = np.concatenate((breathing, np.zeros(8 * RATE, np.float32), breathing))
    events = [e for e in run(bundle, audio) if isinstance(e, QualityEvent)]
    assert [e.state for e in events] == ["ok", "silence", "ok"]
    assert abs(events[1].at - breathing.size) <= RATE
    assert abs(events[2].at - breathing.size - 8 * RATE) <= RATE
    assert events[1].level_dbfs < -85 < events[0].level_dbfs


def test_a_pause_with_heart_beats_is_not_no_contact(bundle: Bundle) -> None:
    audio = phantom("apnoea", 60.0, seed=1_000_051)
    assert states(run(bundle, audio)) == ["ok"]


def test_a_click_does_not_change_the_state(bundle: Bundle) -> None:
    audio = phantom("healthy", 12.0).copy()
    audio[20_000:20_040] = 0.9
    assert states(run(bundle, audio)) == ["ok"]


def test_short_audio_still_has_a_state(bundle: Bundle) -> None:
    assert states(run(bundle, phantom("healthy", 12.0)[4000:6000])) == ["ok"]


@pytest.mark.parametrize("folder", ["kauh", "hls_cmds/LS", "sprsound"])
def test_real_recordings_keep_their_labels(bundle: Bundle, data_root: Path, folder: str) -> None:
    paths = sorted((data_root / folder).rglob("*.flac"))
    cycles = refused = 0
    for path in paths[:: max(1, len(paths) // 12)]:
        samples, rate = soundfile.read(path, dtype="float32")
        found = results(run(bundle, samples, rate))
        assert any(r.label for r in found), path.name
        cycles += len(found)
        refused += sum(r.label is None for r in found)
    assert cycles >= 30
    assert refused <= 0.02 * cycles


def test_short_stretches_are_never_called_noise() -> None:
    assert measure(noise(0.1, 0.1), RATE).swing_db == float("inf")


def test_settings_reject_what_makes_no_sense() -> None:
    wrong_values = (
        {"step_s": 0}, {"step_s": 3.0}, {"window_s": 99}, {"confirm": 0}, {"silence_dbfs": True}, {"magic": 1}
    )  # fmt: skip
    for wrong in wrong_values:
        with pytest.raises(ValueError, match=f"quality: .*{next(iter(wrong))}"):
            QualityParams.from_dict(wrong)
    assert QualityParams.from_dict({"silence_dbfs": -70}).silence_dbfs == -70.0


def test_the_gate_is_the_same_after_a_reset() -> None:
    gate, audio = QualityGate(RATE, RATE), phantom("healthy", 12.0)

    def states_at(first: int) -> list[tuple[int, str]]:
        gate.reset(first)
        events: list[QualityEvent] = []
        for i in range(0, audio.size, 80):
            events += gate.accept(audio[i : i + 80], first + i, audio[i : i + 80])
        return [(e.at - first, e.state) for e in events + gate.finish()]

    assert states_at(0) == states_at(1 << 40) == [(0, "ok")]
