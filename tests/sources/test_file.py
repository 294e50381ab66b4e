"""Recordings as a source: every sample once, and one clear error line for every faulty file."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from edge_sdk.errors import AudioError, SourceError
from edge_sdk.events import AudioBlock
from edge_sdk.protocols import Source
from edge_sdk.sources.file import FileSource
from tests.sources.conftest import PacedTime

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0.0, 0.1, 20_000).astype(np.float32)


def _write(path: Path, samples: npt.NDArray[np.float32] = NOISE, rate: int = 4000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def _play(source: FileSource) -> npt.NDArray[np.float32]:
    return np.concatenate([block.samples for block in source])


def _flac_claiming(path: Path, frames: int) -> Path:
    """A valid flac whose header claims another length."""
    content = bytearray(_write(path).read_bytes())
    info = int.from_bytes(content[18:26], "big")  # STREAMINFO: 28 bits of format, 36 bits of length
    content[18:26] = (info >> 36 << 36 | frames).to_bytes(8, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_every_sample_comes_once_and_in_order(tmp_path: Path, rate: int, suffix: str) -> None:
    path = _write(tmp_path / f"a.{suffix}", rate=rate)
    source = FileSource(path)
    position = 0
    for block in source:
        assert block.first_sample == position
        assert block.sample_rate == rate == source.sample_rate
        assert block.samples.dtype == np.float32
        assert (block.host_ns, block.lost_before) == (0, 0)
        position += block.samples.size
    assert position == source.frames == NOISE.size
    np.testing.assert_array_equal(_play(FileSource(path)), soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("block_s", [0.0001, 0.013, 0.05, 100.0])
def test_block_length_changes_no_sample(tmp_path: Path, block_s: float) -> None:
    path = _write(tmp_path / "a.wav", NOISE[:3001])
    np.testing.assert_array_equal(_play(FileSource(path, block_s=block_s)), soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_U8"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "DOUBLE"), ("flac", "PCM_24"), ("aiff", "PCM_16")],
)
def test_sample_formats_are_scaled_to_one(tmp_path: Path, suffix: str, subtype: str) -> None:
    played = _play(FileSource(_write(tmp_path / f"a.{suffix}", subtype=subtype)))
    np.testing.assert_allclose(played, NOISE, atol=1 / 120)


def test_real_recordings_play(sprsound_file: Path, kauh_file: Path) -> None:
    for path, rate in ((sprsound_file, 8000), (kauh_file, 4000)):
        source = FileSource(path)
        assert isinstance(source, Source)
        assert (source.name, source.sample_rate) == (str(path), rate)
        duration_s = source.duration_s
        assert duration_s is not None
        assert _play(source).size == source.frames == round(duration_s * rate) > 0


def test_eight_channels_at_96_khz_give_the_one_asked_for_or_their_mean(tmp_path: Path) -> None:
    channels = RNG.normal(0.0, 0.1, (96_000, 8)).astype(np.float32)
    path = _write(tmp_path / "a.wav", channels, 96_000, "FLOAT")
    np.testing.assert_array_equal(_play(FileSource(path)), channels[:, 0])
    np.testing.assert_array_equal(_play(FileSource(path, channel=7)), channels[:, 7])
    np.testing.assert_allclose(_play(FileSource(path, channel="mix")), channels.mean(axis=1), atol=1e-7)
    assert FileSource(path).channels == 8


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 96_000, 8, "PCM_16") as file:
        for _ in range(20):
            file.write(np.zeros((48_000, 8), dtype=np.int16))
    source, count = FileSource(path), 0
    tracemalloc.start()
    try:
        for block in source:
            count += block.samples.size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 960_000
    assert peak < 4_000_000  # the decoded recording is 31 MB


def test_a_tenth_of_a_second_is_no_error(tmp_path: Path) -> None:
    assert _play(FileSource(_write(tmp_path / "a.wav", NOISE[:400]))).size == 400


def _missing(folder: Path) -> Path:
    return folder / "missing.wav"


def _folder(folder: Path) -> Path:
    path = folder / "folder.wav"
    path.mkdir()
    return path


def _empty(folder: Path) -> Path:
    path = folder / "empty.wav"
    path.touch()
    return path


def _text(folder: Path) -> Path:
    path = folder / "text.wav"
    path.write_text("this is no audio\n" * 99)
    return path


def _other_format(folder: Path) -> Path:
    path = folder / "phone.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(999))
    return path


def _headerless(folder: Path) -> Path:
    path = folder / "samples.raw"
    path.write_bytes(bytes(999))
    return path


def _no_samples(folder: Path) -> Path:
    return _write(folder / "none.wav", NOISE[:0])


def _not_finite(value: float, at: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        samples = NOISE.copy()
        samples[at] = value
        return _write(folder / "float.wav", samples, subtype="FLOAT")

    return make


def _cut(share: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = _write(folder / "cut.flac")
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return make


def _damaged(folder: Path) -> Path:
    path = _write(folder / "damaged.flac")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    path.write_bytes(content)
    return path


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (_missing, "no such file"),
    "folder": (_folder, "is a folder"),
    "empty": (_empty, "empty (0 bytes)"),
    "text": (_text, "not a readable recording"),
    "m4a": (_other_format, "not a readable recording"),
    "raw": (_headerless, "not a readable recording"),
    "no-samples": (_no_samples, "holds no samples"),
    "nan": (_not_finite(np.nan, 4321), "sample 4321"),
    "infinite": (_not_finite(-np.inf, 19_999), "sample 19999"),
    "cut-header": (_cut(0.001), "not a readable recording"),
    "cut-early": (_cut(0.1), "truncated or damaged"),
    "cut-late": (_cut(0.999), "truncated or damaged"),
    "damaged": (_damaged, "truncated or damaged"),
    "fewer-than-promised": (lambda folder: _flac_claiming(folder / "a.flac", 20_001), "truncated or damaged"),
    "half-of-promised": (lambda folder: _flac_claiming(folder / "a.flac", 40_000), "truncated or damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_one_clear_line_with_a_fix(tmp_path: Path, fault: str) -> None:
    make, expected = FAULTS[fault]
    path = make(tmp_path)
    with pytest.raises(AudioError) as caught:
        _play(FileSource(path))
    message = str(caught.value)
    assert str(path) in message
    assert expected in message
    assert "\n" not in message
    assert ";" in message  # what is wrong; what to do


def test_a_short_read_without_an_exception_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FileSource(_write(tmp_path / "a.flac"))
    real = soundfile.SoundFile.read
    calls = iter(range(1000))

    def read(self: soundfile.SoundFile, frames: int, **options: object) -> object:
        return real(self, frames if next(calls) < 2 else 0, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    with pytest.raises(AudioError, match=r"readable up to 2\.05 s of 5\.00 s"):
        _play(source)


@pytest.mark.parametrize("channel", [-1, 2, 8])
def test_a_channel_that_is_not_there_is_refused(tmp_path: Path, channel: int) -> None:
    path = _write(tmp_path / "a.wav", np.zeros((100, 2), dtype=np.float32))
    with pytest.raises(AudioError, match=rf"no channel {channel}; choose 0 to 1, or mix"):
        FileSource(path, channel=channel)
    with pytest.raises(AudioError, match=r"choose 0$"):
        FileSource(_write(tmp_path / "b.wav"), channel=1)


def test_only_the_delivered_channel_must_be_finite(tmp_path: Path) -> None:
    samples = np.zeros((1000, 2), dtype=np.float32)
    samples[500, 1] = np.nan
    path = _write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert _play(FileSource(path)).size == 1000
    for channel in (1, "mix"):
        with pytest.raises(AudioError, match="sample 500"):
            _play(FileSource(path, channel=channel))  # type: ignore[arg-type]


def test_an_interrupted_wav_plays_its_existing_samples_with_a_note(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:20_044])
    source = FileSource(path)
    assert _play(source).size == 10_000
    (note,) = source.notes
    assert "shorter than its header says" in note and "2.50 s are missing" in note


def test_no_file_stays_open_after_an_error_or_the_end(tmp_path: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    path = _write(tmp_path / "a.wav", np.zeros((9999, 2), dtype=np.float32))
    _play(FileSource(path))
    with pytest.raises(AudioError):
        FileSource(path, channel=5)
    source = FileSource(path)
    next(iter(source))
    source.close()
    source.close()
    assert open_files() == before


def test_a_source_plays_once(tmp_path: Path) -> None:
    source = FileSource(_write(tmp_path / "a.wav"))
    _play(source)
    with pytest.raises(SourceError, match="already played"):
        next(iter(source))


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    with FileSource(_write(tmp_path / "a.wav")) as source:
        blocks = iter(source)
        next(blocks)
        source.close()
        assert list(blocks) == []


def test_paced_playback_lasts_as_long_as_the_recording_however_slow_the_consumer(
    tmp_path: Path, paced_time: PacedTime
) -> None:
    path = _write(tmp_path / "a.wav", NOISE[:4000])  # 1 s
    begin_ns = paced_time.now_ns
    arrivals, stamps = [], []
    for block in FileSource(path, paced=True, block_s=0.02, speed=2.0):
        arrivals.append(paced_time.now_ns)
        stamps.append(block.host_ns)
        paced_time.advance(0.008)  # a consumer's work must not add to the pace
    assert stamps[-1] - begin_ns == 500_000_000  # 0.9 s if both added up
    assert arrivals == pytest.approx(stamps, abs=2)  # ns: no block early or late
    assert np.ptp(np.diff(stamps)) <= 2


def test_paced_playback_really_waits(tmp_path: Path) -> None:
    begin = time.monotonic()
    _play(FileSource(_write(tmp_path / "a.wav", NOISE[:4000]), paced=True, block_s=0.02, speed=2.0))
    assert time.monotonic() - begin >= 0.5


def test_an_overdue_block_keeps_its_time_of_capture(tmp_path: Path) -> None:
    blocks = iter(FileSource(_write(tmp_path / "a.wav"), paced=True, block_s=0.01, speed=5.0))
    next(blocks)
    time.sleep(0.05)
    late_ns = time.monotonic_ns() - next(blocks).host_ns
    assert late_ns >= 40_000_000


def test_paced_and_fast_playback_give_the_same_samples(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav", NOISE[:4000])
    np.testing.assert_array_equal(_play(FileSource(path, paced=True, speed=20.0)), _play(FileSource(path)))


def test_another_thread_can_interrupt_a_paced_wait(tmp_path: Path) -> None:
    source = FileSource(_write(tmp_path / "a.wav"), paced=True, block_s=5.0, speed=0.001)  # first block due in 5000 s
    blocks: list[AudioBlock] = []
    reader = threading.Thread(target=lambda: blocks.extend(source), daemon=True)
    reader.start()
    time.sleep(0.1)
    source.close()
    reader.join(60.0)
    assert not reader.is_alive() and blocks == []


def test_closing_while_another_thread_reads_is_safe(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.flac", np.tile(NOISE, 20))
    for delay in (0.0, 0.001, 0.003, 0.01):
        source = FileSource(path, block_s=0.001)
        failures: list[Exception] = []

        def consume(source: FileSource = source, failures: list[Exception] = failures) -> None:
            try:
                for _ in source:
                    pass
            except Exception as error:
                failures.append(error)

        reader = threading.Thread(target=consume)
        reader.start()
        time.sleep(delay)
        source.close()
        reader.join(5.0)
        assert not reader.is_alive()
        assert failures == []


@pytest.mark.parametrize("options", [{"block_s": 0.0}, {"block_s": -1.0}, {"speed": 0.0}])
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        FileSource(_write(tmp_path / "a.wav"), **options)  # type: ignore[arg-type]
