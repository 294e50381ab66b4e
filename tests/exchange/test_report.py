"""Promises of the report: it states what the summary states, loads nothing from elsewhere, and shows any result."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
import soundfile

from edge_sdk.digests import sha256_file
from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.examination import BundleIdentity, Examination, ExaminedRecording
from edge_sdk.exchange.report.chest_map import MappedSite, chest_map, place_of
from edge_sdk.exchange.report.drawing import Words
from edge_sdk.exchange.report.spectrogram import spectrogram
from edge_sdk.exchange.report.write import write_report
from edge_sdk.exchange.spans import CycleSpan, GapSpan, QualitySpan, SoundSpan

REPO = Path(__file__).resolve().parents[2]
MADE = datetime(2026, 3, 4, 5, 6, tzinfo=timezone.utc)
XHTML = "{http://www.w3.org/1999/xhtml}"
MANIFEST = json.loads((REPO / "edge_sdk/bundles/default/bundle.json").read_text("utf-8"))
FIGURES = MANIFEST["training"]["cross_validation"]["figures"]["all cycles"]


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "duration_s": 12.0, "sample_rate": 4000, "cycles": 3, "classified": 2, "verdict": "abnormal",
        "p_abnormal": 0.91, "verdict_reason": None, "respiratory_rate_bpm": 17.25, "respiratory_rate_confident": True,
        "counts": {"normal": 1, "crackle": 0, "wheeze": 1, "both": 0}, "unclassified": {"noisy": 1}, "usable_s": 9.5,
        "adventitious": {"wheeze": 2}, "quality_s": {"ok": 9.5, "noisy": 2.5}, "lost_samples": 400, "gaps": 1,
        "abnormal_fraction": 0.5, **changes,
    }  # fmt: skip


def examined(audio: Path | None = None, **changes: Any) -> ExaminedRecording:
    made = ExaminedRecording(
        source="phantom:asthma",
        sample_rate=4000,
        duration_s=12.0,
        audio=audio,
        cycles=(
            CycleSpan(0.5, 3.25, "normal", {"normal": 0.83, "wheeze": 0.17}),
            CycleSpan(3.25, 6.0, "wheeze", {"wheeze": 0.77}),
            CycleSpan(8.0, 11.0, None, {}, "noisy"),
        ),
        sounds=(SoundSpan(4.0, 4.5, "wheeze", 0.9),),
        gaps=(GapSpan(6.0, 6.1, 400),),
        quality=(QualitySpan(0, 7.5, "ok", -30.0), QualitySpan(7.5, 12.0, "noisy", None)),
        summary=summary(),
        metadata={"site": "left posterior", "age_years": 54.0},
        bundle=BundleIdentity("compact", "0.5.0", "onnx-int8-cpu", "ab" * 32),
        sdk_version="0.1.0",
        started=datetime(2026, 3, 3, 9, 30, tzinfo=timezone.utc),
    )
    return replace(made, **changes)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "visit.flac"
    t = np.arange(48_000) / 4000
    soundfile.write(path, (0.1 * np.sin(2 * np.pi * 400 * t)).astype(np.float32), 4000, subtype="PCM_16")
    return path


def page_of(examination: Examination, tmp_path: Path, **options: Any) -> tuple[str, ET.Element]:
    """Write the page; its text and its tree, parsed without tolerance."""
    out = tmp_path / "deep" / "report.html"
    write_report(examination, out, made=MADE, **options)
    html = out.read_text("utf-8")
    return html, html5lib.HTMLParser(strict=True).parse(html)


def words(tree: ET.Element) -> str:
    return " ".join(" ".join(tree.itertext()).split())


def pdf_text(path: Path) -> str:
    done = subprocess.run(["pdftotext", "-layout", str(path), "-"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.requirement("OUT-4")
def test_the_page_states_what_the_summary_states(audio: Path, tmp_path: Path) -> None:
    html, tree = page_of(Examination((examined(audio),)), tmp_path, manifest=MANIFEST, reference="Visit 7 <b>")
    text = words(tree)
    for stated in (
        "abnormal", "probability of abnormal 0.91", "17.2 /min", "1 normal, 1 wheeze, 1 without a label",
        "adventitious sounds: 2 wheeze", "9.5 of 12.0 s", "noisy 2.5 s", "400 samples lost", "Visit 7 <b>",
        "2026-03-03", "compact 0.5.0, onnx-int8-cpu", "ab" * 32, sha256_file(audio), "54 years", "left posterior",
        f"AUROC of abnormal {FIGURES['auroc']:.2f}", "For research use only", "digital silence",
    ):  # fmt: skip
        assert stated in text, stated
    table = next(t for t in tree.iter(f"{XHTML}table") if t.get("class") == "cycles")
    cells = [[words(cell).removeprefix("▶ ") for cell in row] for row in table.iter(f"{XHTML}tr")]
    assert cells[1:] == [
        ["1", "0.50", "3.25", "2.75", "normal", "0.83", "ok"],
        ["2", "3.25", "6.00", "2.75", "wheeze", "0.77", "ok"],
        ["3", "8.00", "11.00", "3.00", "no label", "–", "noisy"],
    ]
    assert "<b>" not in html.replace("&lt;b&gt;", "")


@pytest.mark.requirement("OUT-4")
def test_nothing_is_loaded_from_elsewhere_and_the_audio_is_that_of_the_recording(audio: Path, tmp_path: Path) -> None:
    html, tree = page_of(Examination((examined(audio),)), tmp_path)
    sources = [v for e in tree.iter() for k, v in e.attrib.items() if k.rpartition("}")[2] in ("src", "href")]
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\(|@import|https?://", re.sub(r"data:[^\"']+", "", html).replace(XHTML[1:-1], ""))
    (player,) = tree.iter(f"{XHTML}audio")
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(player.get("src", "").partition(",")[2])), dtype="int16")
    original, _ = soundfile.read(audio, dtype="int16")
    assert rate == 4000
    assert np.array_equal(played, original)
    html, tree = page_of(Examination((examined(audio),)), tmp_path, audio=False)
    assert list(tree.iter(f"{XHTML}audio")) == []


def test_a_minute_at_44100_hz_is_less_than_3_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, 60 * 44_100).astype(np.float32)  # what a flac cannot make smaller
    soundfile.write(tmp_path / "noise.wav", noise, 44_100)
    recording = examined(tmp_path / "noise.wav", sample_rate=44_100, duration_s=60.0)
    out = tmp_path / "report.html"
    write_report(Examination((recording,)), out)
    assert out.stat().st_size < 3_000_000
    assert "made from 44100 Hz" in out.read_text("utf-8")


@pytest.mark.parametrize("paper", ["a4", "letter"])
@pytest.mark.requirement("OUT-4")
def test_the_pdf_has_the_same_words_and_its_fonts(audio: Path, tmp_path: Path, paper: str) -> None:
    out = tmp_path / "report.pdf"
    both = (examined(audio), examined(audio, metadata={"site": "trachea"}, summary=summary(verdict="uncertain")))
    write_report(Examination(both), out, made=MADE, manifest=MANIFEST, reference="Besuch 7 – Süd", paper=paper)
    text = " ".join(pdf_text(out).split())
    for stated in (
        "Besuch 7 – Süd", "probability of abnormal 0.91", "between both thresholds", "17.2 /min", "400 samples lost",
        "compact 0.5.0, onnx-int8-cpu", "ab" * 32, "For research use only",
        f"sensitivity {FIGURES['sensitivity']:.2f}, specificity {FIGURES['specificity']:.2f}",
        "no label", "Left posterior", "Trachea",
    ):  # fmt: skip
        assert stated in text, stated
    fonts = subprocess.run(["pdffonts", str(out)], capture_output=True, text=True, check=True).stdout.splitlines()[2:]
    assert len(fonts) == 2
    assert all(line.split()[-5:-2] == ["yes", "yes", "yes"] for line in fonts)  # embedded, subset, text can be copied
    size = re.search(
        r"Page size:\s+([\d.]+) x", subprocess.run(["pdfinfo", out], capture_output=True, text=True).stdout
    )
    assert size and float(size[1]) == pytest.approx({"a4": 595.28, "letter": 612.0}[paper], abs=0.1)


ODD: dict[str, dict[str, Any]] = {
    "nothing found": {"cycles": (), "sounds": (), "gaps": (), "quality": (), "summary": {}},
    "no verdict": {"summary": summary(verdict=None, p_abnormal=None, usable_s=None, adventitious=None)},
    "unfamiliar": {"summary": summary(verdict="uncertain", verdict_reason="unfamiliar", p_abnormal=0.34)},
    "no rate": {"summary": summary(respiratory_rate_bpm=None, respiratory_rate_confident=None)},
    "unsure rate": {"summary": summary(respiratory_rate_confident=False)},
    "no bundle": {"bundle": None, "sdk_version": None, "started": None, "metadata": {}},
    "own labels": {"cycles": (CycleSpan(0, 2, "COPD & <asthma>", {"COPD & <asthma>": 1.0}),)},
    "ends early": {"duration_s": 15.0, "cycles": (CycleSpan(11.5, 15.0, "normal"),)},
    "one long gap": {"gaps": (GapSpan(0.0, 12.0, None),)},
    "name of markup": {"source": "<script>alert(1)</script>.wav", "audio": None},
}


IN_PDF = {"nothing found", "own labels"}
"""Kinds that are also printed; a PDF costs a second."""


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.requirement("RES-4")
def test_any_result_can_be_shown(audio: Path, tmp_path: Path, kind: str) -> None:
    recording = examined(**{"audio": audio, **ODD[kind]})
    html, tree = page_of(Examination((recording,)), tmp_path, manifest=MANIFEST)
    text = words(tree)
    printed = text
    if kind in IN_PDF:
        write_report(Examination((recording,)), tmp_path / "a.pdf", made=MADE)
        printed = " ".join(pdf_text(tmp_path / "a.pdf").split())
    expected = {
        "nothing found": "No cycle was found.",
        "no verdict": "the bundle gives no verdict",
        "unfamiliar": "unlike that which the verdict was calibrated on",
        "no rate": "no cycle was found",
        "unsure rate": "not to be relied on",
        "no bundle": "not recorded with the results",
        "own labels": "COPD & <asthma>",
        "one long gap": "? samples lost",
    }
    assert expected.get(kind, "") in text
    assert expected.get(kind, "") in printed
    assert "0.34" not in text + printed  # a probability that is not calibrated for such audio
    assert "<script>alert" not in html
    assert list(tree.iter(f"{XHTML}audio")) == [] or recording.audio is not None


def test_several_recordings_are_one_examination_on_a_map(tmp_path: Path) -> None:
    places = ["trachea", "Upper right anterior", "left posterior", "left posterior", "elbow"]
    each = tuple(examined(metadata={"site": site}, summary=summary(verdict="normal")) for site in places)
    _, tree = page_of(Examination(each, ("one was left out",)), tmp_path)
    text = words(tree)
    assert "Not on the map: 5 elbow." in text
    assert "one was left out" in text
    assert text.count("the audio is not at hand") == 5
    links = [a.get("href") for a in tree.iter(f"{XHTML}a")]
    ids = {e.get("id") for e in tree.iter()}
    assert links == [f"#recording-{k}" for k in range(1, 6)]
    assert all(str(link)[1:] in ids for link in links)


def test_the_map_knows_left_from_right() -> None:
    front_left, front_right = place_of("left anterior"), place_of("Right upper front")
    back_left, back_right = place_of("left posterior"), place_of("right lower back")
    assert front_left and front_right and back_left and back_right
    assert front_right.x < 100 < front_left.x  # the patient faces the reader
    assert back_left.x < 100 < back_right.x
    assert front_right.y < front_left.y < back_right.y  # upper, middle, lower
    assert place_of("left") is None and place_of("anterior") is None and place_of("") is None
    assert chest_map([MappedSite(1, "elbow", "soft", "")]) is None
    drawn = chest_map([MappedSite(k, "left posterior", "soft", "") for k in (1, 2, 3, 4)])
    assert drawn is not None
    places = [(s.x, s.y) for s in drawn.shapes if isinstance(s, Words) and s.text.isdecimal()]
    assert len(set(places)) == 4  # recordings of one site lie beside each other


def test_a_tone_is_bright_at_its_time_and_frequency() -> None:
    from PIL import Image

    rate = 4000
    t = np.arange(4 * rate) / rate
    samples = np.where((t >= 1) & (t < 2), np.sin(2 * np.pi * 500 * t), 0.0).astype(np.float32)
    image = np.asarray(Image.open(io.BytesIO(spectrogram(samples, rate, 400, 100).png)).convert("L"))
    bright = image > 200
    columns, rows = np.flatnonzero(bright.any(axis=0)), np.flatnonzero(bright.any(axis=1))
    assert 95 <= columns[0] <= 102 and 198 <= columns[-1] <= 205
    assert rows[0] >= 70 and rows[-1] <= 80  # 500 of 2000 Hz, from the top


@pytest.mark.parametrize(
    ("out", "message"),
    [("report.docx", "neither in .html nor in .pdf"), ("report", "neither"), ("a.html", "is a folder")],
)
def test_what_cannot_be_written_is_one_line(tmp_path: Path, out: str, message: str) -> None:
    (tmp_path / "a.html").mkdir()
    with pytest.raises(ExchangeError, match=message):
        write_report(Examination((examined(),)), tmp_path / out)
    (tmp_path / "file").touch()
    with pytest.raises(ExchangeError, match=r"cannot write .*name a file that can be written"):
        write_report(Examination((examined(),)), tmp_path / "file" / "a.html")


def test_a_character_that_a_pdf_cannot_show_is_named_and_the_page_shows_it(tmp_path: Path) -> None:
    examination = Examination((examined(),))
    with pytest.raises(ExchangeError, match=r"has no 就診; .*\.html"):
        write_report(examination, tmp_path / "a.pdf", reference="就診 7")
    assert not (tmp_path / "a.pdf").exists()
    assert "就診 7" in words(page_of(examination, tmp_path, reference="就診 7")[1])


def test_an_old_report_is_replaced_and_a_long_recording_has_no_player(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    out.parent.mkdir()
    out.write_text("old")
    cycles = tuple(CycleSpan(3.0 * k, 3.0 * k + 2.5, "normal", {"normal": 0.9}) for k in range(50))
    _, tree = page_of(Examination((examined(audio, duration_s=960.0, cycles=cycles),)), tmp_path)
    assert "16 minutes of audio are too much" in words(tree)
    assert list(tree.iter(f"{XHTML}audio")) == []
    assert "50 cycles" in words(next(tree.iter(f"{XHTML}summary")))
    assert hashlib.sha256(out.read_bytes()).hexdigest() == sha256_file(out)
