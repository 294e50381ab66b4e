"""Plain audio in chunks: every sample format as libsndfile decodes it, headers of recorders that were stopped."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import AudioError
from edge_sdk.signal.audio_file.opening import open_audio
from tests.support.audio.odd import SUBTYPES, breathing, chunk, encoded, pcm16, wav
from tests.support.audio.reading import read_all

RATE = 8000
SOUND = breathing(RATE, 10.0)
PCM = pcm16(SOUND)
DECODED = np.frombuffer(PCM, "<i2").astype(np.float32)[:, None] / 32768
LIST = chunk(b"LIST", b"INFOICMT\x06\0\0\0hello\0")
PLAIN = [
    (container, subtype)
    for container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF")
    for subtype in SUBTYPES[container]
    if "ADPCM" not in subtype
]


@pytest.mark.parametrize(("container", "subtype"), PLAIN)
def test_plain_samples_are_those_of_libsndfile(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(encoded(container, subtype, 11025, 2))
    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    found = read_all(path)
    np.testing.assert_array_equal(found.samples, expected)
    assert (found.rate, found.notes) == (rate, ())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (0, "never finished"),
        (0xFFFFFFFF, "never finished"),
        (0x7FFFFFFF - 36, "never finished"),
        (0x7FFFF000, "never finished"),
        (2 * RATE * 2, "says 2.00 s, but the file holds 10.00 s"),
        (4, "says 0.00 s, but the file holds 10.00 s"),
        (15 * RATE * 2, "10.00 s of 15.00 s are there and 5.00 s are missing"),
    ],
)
@pytest.mark.parametrize("riff", [None, 0, 0xFFFFFFFF, 36])
def test_a_wav_is_read_to_its_real_end_with_a_note(tmp_path: Path, data: int, words: str, riff: int | None) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(PCM, RATE, data=data, riff=riff))
    found = read_all(path)
    np.testing.assert_array_equal(found.samples, DECODED)
    assert len(found.notes) == 1 and words in found.notes[0]
    assert found.cut == ("missing" in words)


METADATA = {"list": LIST, "two": LIST + chunk(b"bext", bytes(603)), "id3": chunk(b"id3 ", b"ID3abc")}


@pytest.mark.parametrize("after", METADATA)
@pytest.mark.parametrize("data", [None, 0, 0xFFFFFFFF])
def test_metadata_behind_the_audio_is_never_read_as_audio(tmp_path: Path, after: str, data: int | None) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(PCM, RATE, data=data, after=METADATA[after], before=LIST))
    found = read_all(path)
    np.testing.assert_array_equal(found.samples, DECODED)
    assert bool(found.notes) == (data is not None)


def test_an_empty_wav_with_metadata_holds_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(b"", RATE, after=LIST))
    with pytest.raises(AudioError, match="holds no samples"):
        open_audio(path)


def test_a_second_recording_in_the_same_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(PCM, RATE) * 2)
    found = read_all(path)
    assert len(found.samples) == len(DECODED) and "another recording follows" in found.notes[0]


def test_a_header_that_is_wrapped_over_4_gib_reads_all_of_a_sparse_file(tmp_path: Path) -> None:
    path, size = tmp_path / "a.wav", (1 << 32) + 2 * 3 * RATE
    path.write_bytes(wav(b"", RATE, data=size & 0xFFFFFFFF))
    with path.open("r+b") as file:
        file.truncate(44 + size)
    with open_audio(path) as reader:
        assert reader.frames == size // 2
        assert "says 3.00 s, but the file holds" in reader.notes[0]


@pytest.mark.parametrize("container", ["RF64", "W64", "AIFF", "AU", "CAF"])
def test_other_containers_are_read_to_their_real_end_too(tmp_path: Path, container: str) -> None:
    path = tmp_path / "a.bin"
    whole = encoded(container, "PCM_16", RATE, samples=SOUND)
    order, width, at = {
        "RF64": ("<", 8, whole.find(b"ds64") + 16),
        "W64": ("<", 8, whole.find(b"data") + 16),
        "AIFF": (">", 4, whole.find(b"SSND") + 4),
        "AU": (">", 4, 8),
        "CAF": (">", 8, whole.find(b"data") + 4),
    }[container]
    code = {4: "I", 8: "Q"}[width]
    extra = {"W64": 24, "AIFF": 8, "CAF": 4}.get(container, 0)
    path.write_bytes(whole)
    expected = read_all(path)
    assert expected.notes == ()
    for stated, words in ((2 * 2 * RATE + extra, "says 2.00 s"), (2 * 20 * RATE + extra, "10.00 s are missing")):
        path.write_bytes(whole[:at] + struct.pack(order + code, stated) + whole[at + width :])
        found = read_all(path)
        assert len(found.samples) - len(expected.samples) in range(3), container
        assert words in found.notes[0]
        assert found.cut == ("missing" in words)


@pytest.mark.parametrize("rate", [0, 1, 16, 4_000_000_000])
def test_a_rate_that_is_none_is_refused_at_once(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(PCM, RATE, header_rate=rate))
    with pytest.raises(AudioError, match=f"sample rate of {rate} Hz is none of audio"):
        open_audio(path)
    content = bytearray(wav(PCM, RATE))
    content[24:28] = struct.pack("<I", rate)  # the rate alone: the byte rate still shows the true one
    path.write_bytes(content)
    with pytest.raises(AudioError, match="its other fields belong to 8000 Hz"):
        open_audio(path)


def test_a_file_that_ends_within_its_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    whole = wav(PCM, RATE)
    for size in (12, 13, 20, 36, 40):
        path.write_bytes(whole[:size])
        with pytest.raises(AudioError, match="not a readable recording"):
            open_audio(path)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_samples_in_another_byte_order_or_shifted_by_a_byte_are_refused(tmp_path: Path, width: int) -> None:
    path = tmp_path / "a.wav"
    wide = np.rint(SOUND[:, 0] * 2.0**31).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 4 - width :]
    right = wide.tobytes()
    half = len(right) // 2
    swapped = np.ascontiguousarray(wide[:, ::-1]).tobytes()
    for raw in (swapped, right[1:] + b"\0", right[:half] + right[half + 1 :]):
        path.write_bytes(wav(raw, RATE, bits=8 * width))
        with pytest.raises(AudioError, match="loud noise, no audio"):
            open_audio(path)
    path.write_bytes(wav(right, RATE, bits=8 * width))
    assert read_all(path).notes == ()


def test_true_noise_passes_the_check_of_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    noise = np.random.default_rng(1).uniform(-1, 1, (4 * RATE, 2)).astype(np.float32)
    noise[:, 1] = SOUND[: 4 * RATE, 0]  # the smooth channel beside it is not the noise, shifted
    path.write_bytes(wav(pcm16(noise), RATE, channels=2))
    assert read_all(path).notes == ()


@pytest.mark.parametrize("scale", [2.0**15, 2.0**23, 2.0**31])
@pytest.mark.parametrize("container", ["WAV", "AIFF", "W64"])
def test_floats_in_units_of_integers_are_scaled_exactly(tmp_path: Path, scale: float, container: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(encoded(container, "FLOAT", RATE, samples=(DECODED * np.float32(scale)).astype(np.float32)))
    found = read_all(path)
    np.testing.assert_array_equal(found.samples, DECODED)
    assert "are in units of" in found.notes[0]


def test_floats_that_overshoot_are_scaled_by_a_power_of_two_and_damaged_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    loud = DECODED / np.max(np.abs(DECODED)) * np.float32(1.2)
    path.write_bytes(encoded("WAV", "FLOAT", RATE, samples=loud))
    found = read_all(path)
    np.testing.assert_array_equal(found.samples, loud / 2)
    assert "beyond ±1: divided by 2" in found.notes[0]
    path.write_bytes(encoded("WAV", "FLOAT", RATE, samples=loud * np.float32(1e30)))
    with pytest.raises(AudioError, match="no audio"):
        open_audio(path)


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM"])
def test_compressed_wav_is_never_short_in_silence(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    whole = encoded("WAV", subtype, RATE, samples=SOUND)
    at = whole.find(b"data") + 4
    path.write_bytes(whole)
    expected = read_all(path)
    assert expected.notes == () and abs(len(expected.samples) - len(SOUND)) < 4096
    path.write_bytes(whole[: len(whole) // 2])
    assert "missing" in read_all(path).notes[0]
    path.write_bytes(whole[:at] + struct.pack("<I", 4096) + whole[at + 4 :])
    with pytest.raises(AudioError, match="but not of compressed audio"):
        open_audio(path)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypM4A ", "MP4"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc", "AAC"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "wma"),
        (bytes.fromhex("1a45dfa3") + b"webm", "WebM"),
        (b"#!AMR\n", "amr"),
        (b"wvpk", "WavPack"),
    ],
)
def test_formats_that_are_not_decoded_are_named_with_the_way_out(tmp_path: Path, head: bytes, name: str) -> None:
    path = tmp_path / "my phone.wav"
    path.write_bytes(head + bytes(2000))
    out = r"not a readable recording; convert it first.*ffmpeg -i '.*my phone\.wav'"
    with pytest.raises(AudioError, match=out) as caught:
        open_audio(path)
    assert name in str(caught.value)
