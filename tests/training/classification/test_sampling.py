"""Every training example lies inside its recording and carries the label of what it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch

from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.audio.bank import AudioBank
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.sampling import ExampleSampler
from edge_sdk.training.recipes.recipe import SamplingSection

RATE = 4000


def _draw(data: TrainingData, count: int = 400, **settings: object) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    section = msgspec.structs.replace(SamplingSection(), **settings)
    examples = ExampleSampler(data.events, data.bank, section, RATE).draw(count, np.random.default_rng(0))
    return examples.start.numpy(), examples.length.numpy(), examples.label.numpy(), examples.exact


def test_excerpts_never_leave_their_recording(data: TrainingData) -> None:
    start, length, _, _ = _draw(data, exact_share=0.2, window_s=(0.5, 9.0), jitter=1.0)
    recording = start // data.bank.lengths[0]
    assert (length > 0).all()
    assert ((start + length - 1) // data.bank.lengths[0] == recording).all()


def test_exact_examples_are_the_annotated_breaths(data: TrainingData) -> None:
    start, length, label, exact = _draw(data, exact_share=1.0)
    assert exact == len(start)
    absolute = data.bank.starts[data.events.recording] + data.events.begin
    annotated = set(zip(absolute, data.events.end - data.events.begin, data.events.bits, strict=True))
    assert set(zip(start, length, label, strict=True)) <= annotated


def test_windows_take_the_union_of_the_events_they_hold(data: TrainingData) -> None:
    start, length, label, _ = _draw(data, exact_share=0.0, window_share=1.0, window_s=(0.6, 3.5), overlap=0.5)
    absolute = data.bank.starts[data.events.recording] + data.events.begin
    duration = data.events.end - data.events.begin
    for first, count, given in zip(start, length, label, strict=True):
        shared = np.minimum(absolute + duration, first + count) - np.maximum(absolute, first)
        expected = np.bitwise_or.reduce(data.events.bits[shared > 0.5 * duration], initial=0)
        assert given == expected
    assert len(set(label.tolist())) == 4


def test_rare_classes_are_drawn_more_often_than_they_occur(data: TrainingData) -> None:
    rare = np.flatnonzero(data.events.bits == 3)[:1]
    few = msgspec.structs.replace(SamplingSection(), exact_share=1.0)
    keep = data.events.bits != 3
    keep[rare] = True
    events = data.events.where(keep)
    for power, low, high in ((0.0, 0.0, 0.08), (1.0, 0.17, 0.33)):
        settings = msgspec.structs.replace(few, class_power=power)
        drawn = ExampleSampler(events, data.bank, settings, RATE).draw(1000, np.random.default_rng(1))
        assert low < float((drawn.label == 3).float().mean()) < high


def test_patients_left_out_are_neither_drawn_nor_used_as_noise(data: TrainingData) -> None:
    part = data.of_patients({"p0", "p1"})
    assert set(part.events.patient.tolist()) == {"p0", "p1"}
    assert len(part.noise) == 0
    assert part.draw_noise(2, 1000, Randomness(torch.Generator())) is None
    assert data.draw_noise(2, 1000, Randomness(torch.Generator())).shape == (2, 1000)  # type: ignore[union-attr]


def test_lengths_drawn_at_random_do_not_tell_the_class(data: TrainingData) -> None:
    """Crackles are made short and others long; with ``length_p`` their examples are of one distribution."""
    events = data.events
    short = events.bits == 1
    table = replace(events, end=np.where(short, events.begin + 1400, events.end))
    means = {}
    for share in (0.0, 1.0):
        settings = msgspec.structs.replace(SamplingSection(), exact_share=1.0, length_p=share, length_s=(0.5, 2.0))
        drawn = ExampleSampler(table, data.bank, settings, RATE).draw(2000, np.random.default_rng(0))
        length, start = drawn.length.numpy(), drawn.start.numpy()
        means[share] = length[drawn.label.numpy() == 1].mean() / length[drawn.label.numpy() == 0].mean()
        assert (start // data.bank.lengths[0] == (start + length - 1) // data.bank.lengths[0]).all()
    assert means[0.0] == pytest.approx(0.5)
    assert 0.8 < means[1.0] < 1.25


def test_negatives_take_their_share_of_the_loose_examples(data: TrainingData) -> None:
    settings = msgspec.structs.replace(SamplingSection(), exact_share=0.5)
    only = np.array([4])
    sampler = ExampleSampler(data.events, data.bank, settings, RATE, negatives=only, negative_share=0.25)
    drawn = sampler.draw(200, np.random.default_rng(0))
    assert set(drawn.label[-50:].tolist()) == {0}
    assert set((drawn.start[-50:] // int(data.bank.lengths[0])).tolist()) == {4}
    assert len(set(drawn.label[:-50].tolist())) == 4


def _write(folder: Path, name: str, rate: int, seconds: float) -> Path:
    path = folder / name
    samples = 0.1 * np.random.default_rng(len(name)).normal(size=round(rate * seconds))
    soundfile.write(path, samples.astype(np.float32), rate, subtype="PCM_16")
    return path


def test_cached_audio_equals_freshly_read_audio_and_follows_the_files(tmp_path: Path) -> None:
    spec = FrontEndSpec()
    paths = [_write(tmp_path, "a.wav", 4000, 2.0), _write(tmp_path, "b.wav", 8000, 1.0)]
    fresh = AudioBank.load(paths, spec, cache=tmp_path / "cache")
    cached = AudioBank.load(paths, spec, cache=tmp_path / "cache")
    assert torch.equal(fresh.samples, cached.samples)
    assert cached.lengths.tolist() == [8000, 4000]
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    _write(tmp_path, "a.wav", 4000, 3.0)
    changed = AudioBank.load(paths, spec, cache=tmp_path / "cache")
    assert changed.lengths.tolist() == [12000, 4000]


def test_training_windows_equal_the_devices_windows(data: TrainingData) -> None:
    """``gather`` at the recorded speed is ``fit_window``: shorter, equal and longer than the window."""
    spec = FrontEndSpec(window_s=0.5)
    start, length = torch.tensor([10, 500, 16_000]), torch.tensor([777, 2000, 5001])
    ones, zeros = torch.ones(3), torch.zeros(3)
    ours = data.bank.gather(start, length, spec.window_samples, ones, zeros).numpy()
    for row, (first, count) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
        excerpt = data.bank.samples[first : first + count].numpy()
        np.testing.assert_array_equal(ours[row], fit_window(excerpt, spec))


def test_slower_playback_lowers_the_pitch(data: TrainingData) -> None:
    tone = torch.sin(2 * torch.pi * 400 * torch.arange(8000) / RATE) * 0.6
    bank = AudioBank(tone, np.array([0]), np.array([8000]))
    slow = bank.gather(torch.tensor([0]), torch.tensor([8000]), 4000, torch.tensor([0.8]), torch.zeros(1))
    peak = torch.fft.rfft(slow[0]).abs().argmax() * RATE / 4000
    assert abs(float(peak) - 320) <= 1
