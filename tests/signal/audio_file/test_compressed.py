"""MP3, FLAC and Ogg: decoded as in one piece, whatever the blocks; what is missing is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edge_sdk.errors import AudioError
from edge_sdk.signal.audio_file.opening import open_audio
from tests.support.audio.odd import breathing, encoded, wav
from tests.support.audio.reading import read_all

DECODER_DELAY = 529  # samples, of every MP3 decoder; libmpg123 leaves them out

Capture = pytest.CaptureFixture[str]


def mp3(rate: int, channels: int = 1, *, variable: bool = True, seconds: float = 3.0) -> bytes:
    """An MP3 of breathing; with a Xing header where its bit rate varies."""
    file = Path("a.mp3")
    audio = breathing(rate, seconds, channels)
    mode = "VARIABLE" if variable else "CONSTANT"
    soundfile.write(file, audio, rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.5)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def frames_of(content: bytes) -> list[tuple[int, int]]:
    """First byte and size of every MPEG frame: an independent walk for layer III."""
    kbps = {
        3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }
    found, at = [], 0
    while at + 4 <= len(content) and content[at] == 0xFF and 0 < content[at + 2] >> 4 < 15:
        version = content[at + 1] >> 3 & 3
        rate = (44100, 48000, 32000)[content[at + 2] >> 2 & 3] >> (3 - version if version else 2)
        bits = 1000 * kbps[3 if version == 3 else 2][content[at + 2] >> 4]
        size = (144 if version == 3 else 72) * bits // rate + (content[at + 2] >> 1 & 1)
        found.append((at, size))
        at += size
    return found


@pytest.mark.parametrize(
    ("rate", "channels", "variable"),
    [(8000, 1, True), (11_025, 2, False), (16_000, 1, False), (22_050, 1, True), (44_100, 2, True), (48_000, 1, False)],
)
def test_mp3_is_decoded_as_in_one_piece(rate: int, variable: bool, channels: int, capfd: Capture) -> None:
    content = mp3(rate, channels, variable=variable)
    path = Path("a.wav")  # the name does not matter
    path.write_bytes(b"ID3\x04\0\0\0\0\x02\x05" + bytes(261) + content + b"TAG" + bytes(125))
    expected, _ = soundfile.read("a.mp3", dtype="float32", always_2d=True)
    capfd.readouterr()
    for block in (777, 1 << 20):
        found = read_all(path, block)
        np.testing.assert_allclose(found.samples, np.clip(expected, -1, 1), atol=1e-6)
        assert (found.rate, found.notes) == (rate, ())
    assert capfd.readouterr() == ("", "")


def test_variable_mp3_without_a_header_is_read_to_its_end(capfd: Capture) -> None:
    content = mp3(16_000)
    frames = frames_of(content)
    bare = content[frames[1][0] :]
    Path("b.mp3").write_bytes(bare)
    found = read_all("b.mp3")
    assert len(found.samples) == 576 * (len(frames) - 1) - DECODER_DELAY
    assert found.notes == () and not found.cut
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_cut_mp3_says_how_much_is_missing(share: float, capfd: Capture) -> None:
    content = mp3(22_050)
    Path("b.mp3").write_bytes(content[: int(share * len(content))])
    found = read_all("b.mp3")
    seconds = len(found.samples) / found.rate
    assert found.cut and "s are missing" in found.notes[0]
    assert abs(seconds - float(found.notes[0].split("cut: ")[1].split(" s")[0])) < 0.1
    assert abs(seconds - share * 3.0) < 0.6
    whole, _ = soundfile.read("a.mp3", dtype="float32", always_2d=True)
    np.testing.assert_allclose(
        found.samples[: len(found.samples) - 2400], whole[: len(found.samples) - 2400], atol=1e-6
    )
    assert capfd.readouterr().err == ""


def test_mp3_cut_at_both_ends_damaged_within_or_followed_by_another_is_never_short_in_silence(capfd: Capture) -> None:
    content = mp3(16_000, variable=False)
    frames = frames_of(content)
    middle = frames[len(frames) // 2]
    cases = {
        "from within a frame": content[middle[0] + 10 :],
        "to within a frame": content[frames[1][0] : middle[0] + 10],
        "junk between frames": content[: middle[0]] + b"\x55" * 3000 + content[middle[0] :],
        "payload overwritten": content[: middle[0] + 20] + b"\xa5" * 80 + content[middle[0] + 100 :],
        "header of fewer frames": content[: middle[0]] + content[frames[1][0] :],
        "another rate behind it": content + mp3(22_050),
    }
    for name, damaged in cases.items():
        Path("b.mp3").write_bytes(damaged)
        found = read_all("b.mp3")
        promised = sum(1 for _ in frames_of(damaged)) * 576
        assert found.notes or abs(len(found.samples) - promised) <= 4 * 576, name
        if name != "payload overwritten":  # MP3 has no checksum
            assert found.notes, name
    assert capfd.readouterr().err == ""


def test_mp3_within_a_wav_is_read_too() -> None:
    content = mp3(44_100, variable=False)
    expected, _ = soundfile.read("a.mp3", dtype="float32", always_2d=True)
    Path("b.wav").write_bytes(wav(content, 44_100, tag=0x55, bits=16))
    np.testing.assert_allclose(read_all("b.wav").samples, np.clip(expected, -1, 1), atol=1e-6)


def flac_claiming(content: bytes, samples: int) -> bytes:
    info = int.from_bytes(content[18:26], "big")
    return content[:18] + (info >> 36 << 36 | samples).to_bytes(8, "big") + content[26:]


@pytest.mark.parametrize(("stated", "words"), [(0, "gives no length"), (4000, "says 0.25 s"), (40_000, "says 2.50 s")])
@pytest.mark.parametrize("tag", [b"", b"ID3\x04\0\0\0\0\0\x05hello"])
def test_flac_is_read_to_its_real_end(stated: int, words: str, tag: bytes) -> None:
    content = encoded("FLAC", "PCM_16", 16_000)
    Path("a.flac").write_bytes(content)
    expected, _ = soundfile.read("a.flac", dtype="float32", always_2d=True)
    Path("b.flac").write_bytes(tag + flac_claiming(content, stated))
    found = read_all("b.flac")
    np.testing.assert_array_equal(found.samples, expected)
    assert words in found.notes[0] and len(found.notes) == 1
    Path("b.flac").write_bytes(tag + content + b"TAG" + bytes(125))
    found = read_all("b.flac")
    np.testing.assert_array_equal(found.samples, expected)
    assert found.notes == ()


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_cut_flac_gives_what_it_holds_and_then_an_error(share: float) -> None:
    content = encoded("FLAC", "PCM_16", 16_000)
    Path("b.flac").write_bytes(content[: int(share * len(content))])
    read, caught = 0, AudioError()
    with open_audio("b.flac") as reader:
        for _ in range(100):
            try:
                block = reader.read(1000)
            except AudioError as error:
                caught = error
                break
            read += len(block)
    assert 0.8 * share * 64_000 < read < share * 64_000 + 4096
    assert "truncated or damaged" in str(caught) and "s are missing" in str(caught)
    assert f"readable up to {read / 16_000:.2f} s of 4.00 s" in str(caught)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_says_when_pages_are_missing(subtype: str) -> None:
    content = encoded("OGG", subtype, 16_000)
    Path("a.ogg").write_bytes(content)
    whole = read_all("a.ogg")
    assert whole.notes == () and len(whole.samples) == 64_000
    pages = [at for at in range(len(content)) if content.startswith(b"OggS", at)]
    cases = {
        "ends within a page": content[: pages[-1] + 100],
        "its last page is missing": content[: pages[-1]],
        "pages are missing": content[: pages[-2]] + content[pages[-1] :],
        "several streams": content + content,
        "bytes between its pages": content[: pages[-1]] + b"abc" + content[pages[-1] :],
    }
    for words, damaged in cases.items():
        Path("b.ogg").write_bytes(damaged)
        found = read_all("b.ogg")
        assert words in found.notes[0] and found.cut, words


@pytest.mark.parametrize("stated", [0, 1, 12_000])
def test_a_flac_without_a_rate_is_refused(stated: int) -> None:
    soundfile.write("a.flac", breathing(8000, 2.0, 1), 8000, format="FLAC")
    content = bytearray(Path("a.flac").read_bytes())
    fields = int.from_bytes(content[18:26], "big")
    kept = fields & ((1 << 44) - 1) & ~((1 << 36) - 1)  # channels and bits
    content[18:26] = (kept | stated).to_bytes(8, "big")
    Path("a.flac").write_bytes(content)
    with pytest.raises(AudioError, match="sample rate of 0 Hz is none of audio"):
        open_audio(Path("a.flac"))
