"""The page in a real browser: what is drawn, played, corrected, uploaded and recorded; no error, no barrier."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.server.serving import Served, eventually

WAIT_MS = 30_000

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def browser(wav: Path) -> Iterator[Browser]:
    """Debian's Chromium, whose microphone plays a recording."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail("install chromium (.ci/system-packages does), then run again")
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = [*fake, f"--use-file-for-fake-audio-capture={wav}", "--no-sandbox", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A page that logged in by the printed link; fails at the end if anything was written to the console."""
    found = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    found.set_default_timeout(WAIT_MS)
    trouble: list[str] = []
    found.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: trouble.append(str(error)))
    found.goto(f"{served.url}/?token={served.token}#live")
    found.wait_for_selector("body[data-ready]")
    assert "token" not in found.url
    yield found
    assert trouble == []


@pytest.fixture(scope="module")
def recording(served: Served, wav: Path) -> str:
    with served.client() as client:
        answer = client.post("/api/recordings?wait=1&patient=P-21&name=r.wav", content=wav.read_bytes())
        return str(answer.json()["uploads"][0]["recording"])


def shown(page: Page, selector: str, name: str) -> Any:
    """A data attribute as JSON."""
    return json.loads(page.eval_on_selector(selector, f"element => element.dataset.{name} || 'null'"))


def go(page: Page, place: str) -> None:
    page.evaluate("place => { location.hash = place; }", place)


def pause(page: Page) -> None:
    """The live view, paused with some cycles, whatever the tests before left; workers share the tests of a file."""
    go(page, "#live")
    if page.locator("#live-pause").text_content() == "Pause":
        eventually(lambda: len(shown(page, "#live-canvas", "cycles") or []) > 2)
        page.click("#live-pause")
    expect(page.locator("#live-pause")).not_to_have_text("Pause")


def barriers(page: Page, **options: Any) -> list[str]:
    """Serious findings of axe-core on what is shown."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found if v["impact"] in ("serious", "critical")]


def test_labels_on_the_canvas_are_the_events(page: Page, served: Served) -> None:
    go(page, "#live")
    page.evaluate("""() => {
      window.received = [];
      const socket = new WebSocket(`ws://${location.host}/api/live`);
      socket.onmessage = ({ data }) => typeof data === "string" && window.received.push(JSON.parse(data));
    }""")
    eventually(lambda: page.evaluate("received.filter((line) => line.type === 'cycle' && !line.past).length > 2"))
    eventually(lambda: page.evaluate("document.getElementById('live-canvas').dataset.open > 0"))
    page.click("#live-pause")
    expect(page.locator("#live-back-text")).to_have_text("paused")
    page.wait_for_timeout(100)  # one picture
    drawn = shown(page, "#live-canvas", "cycles")
    received = {
        (line["start_s"], line["end_s"]): line
        for line in page.evaluate("window.received")
        if line["type"] == "cycle" and drawn[0]["end_s"] <= line["end_s"] <= drawn[-1]["end_s"]
    }
    assert len(drawn) >= 3 and {(c["start_s"], c["end_s"]) for c in drawn} == set(received)
    for cycle in drawn:
        line = received[cycle["start_s"], cycle["end_s"]]
        p = line["probabilities"].get(line["label"], 0)
        assert cycle["label"] == line["label"]
        assert cycle["text"] == (f"{line['label']} {int(100 * p + 0.5)}%" if line["label"] else line["quality"])
    assert page.locator("#live-verdict").text_content() in ("normal", "abnormal", "uncertain")
    assert page.locator("#live-rate").text_content() != "–"
    assert page.locator("#live-lost").text_content() == "0"


def test_pause_holds_the_picture_and_the_last_minute_can_be_looked_at(page: Page) -> None:
    pause(page)
    page.wait_for_timeout(700)  # the label of a cycle before the pause may still be on its way
    before = shown(page, "#live-canvas", "cycles")
    page.wait_for_timeout(500)
    assert shown(page, "#live-canvas", "cycles") == before
    page.locator("#live-canvas").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#live-back-text")).to_have_text("−4.0 s")
    eventually(lambda: shown(page, "#live-canvas", "cycles") != before)
    earlier = shown(page, "#live-canvas", "cycles")
    fewer = len(earlier) < len(before)  # of a stream that is younger than the window
    assert fewer or earlier[0]["start_s"] < before[0]["start_s"]


def test_a_stretch_plays_at_half_speed_with_its_pitch_and_live_audio_through_filters(page: Page) -> None:
    pause(page)
    player = page.locator("#live-player")
    player.get_by_role("button", name="½ speed").click()
    player.get_by_role("button", name="Play").click()
    expect(player).to_have_attribute("data-playing", "stretch")
    expect(player).to_have_attribute("data-rate", "0.5 with the pitch of 1")
    eventually(lambda: page.evaluate("document.getElementById('live-player').dataset.position > 0.05"))
    player.get_by_role("button", name="Stop").click()
    page.click("#live-pause")
    player.get_by_role("button", name="Play").click()
    expect(player).to_have_attribute("data-playing", "live")
    gains = {}
    for name in ("Bell", "Diaphragm", "Extended", "Raw"):
        player.get_by_role("button", name=name, exact=True).click()
        expect(player).to_have_attribute("data-filter", name.lower())
        gains[name] = shown(page, "#live-player", "response")  # dB at 50, 150, 300, 700, 1500 Hz
    player.get_by_role("button", name="Stop").click()
    assert gains["Raw"] == [0] * 5
    assert gains["Bell"][1] > -3 and gains["Bell"][3] < -30
    assert gains["Diaphragm"][2] > -2 and gains["Diaphragm"][0] < -18 and gains["Diaphragm"][4] < -30
    assert gains["Extended"][3] > -2 and gains["Extended"][4] < -10


def test_files_are_uploaded_with_progress_and_faulty_ones_are_named(page: Page, wav: Path, tmp_path: Path) -> None:
    go(page, "#recordings")
    faulty = tmp_path / "holiday.wav"
    faulty.write_bytes(b"no audio at all")
    page.fill("#upload-patient", "P-77")
    page.set_input_files("#upload-files", [wav, faulty])
    lines = page.locator("#upload-list li")
    expect(lines).to_have_count(2)
    expect(lines.nth(0)).to_have_attribute("data-state", "done")
    expect(lines.nth(1)).to_have_attribute("data-state", "failed")
    expect(lines.nth(1)).to_contain_text("holiday.wav is not a readable recording")
    expect(page.locator("#recordings tr", has_text="P-77")).to_contain_text("15.00 s")
    page.eval_on_selector(
        "#drop",
        """zone => {
          const data = new DataTransfer();
          data.items.add(new File(["x"], "dropped.wav"));
          zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
    )
    expect(lines.nth(2)).to_contain_text("dropped.wav")
    expect(lines.nth(2)).to_have_attribute("data-state", "failed")


def test_cycles_are_corrected_and_every_correction_can_be_undone(page: Page, served: Served, recording: str) -> None:
    go(page, f"#recording/{recording}")
    page.wait_for_selector(f"#page-recording[data-loaded='{recording}']")
    rows = page.locator("#review-cycles tr")
    count = rows.count()
    original = shown(page, "#review-canvas", "cycles")
    assert len(original) == count >= 4
    page.fill("#reviewer", "ab")
    history = page.locator("#page-recording")

    def settled(number: int) -> None:
        expect(history).to_have_attribute("data-history", str(number))

    rows.nth(0).get_by_role("combobox").select_option("both")
    settled(1)
    page.click("#review-canvas", position={"x": 500, "y": 310})  # chooses the cycle there
    chosen = page.locator("#review-cycles tr.selected")
    end = float(chosen.locator("[data-key=end_s]").input_value())
    box = page.locator("#review-canvas").bounding_box()
    assert box is not None
    span = 15.0
    x = box["x"] + 44 + (end / span) * (box["width"] - 52)
    page.mouse.move(x, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(x - 30, box["y"] + 200, steps=3)
    page.mouse.up()
    settled(2)
    moved = float(chosen.locator("[data-key=end_s]").input_value())
    assert 0.2 < end - moved < 0.6
    page.locator("#review-canvas").focus()
    page.keyboard.press("a")
    settled(3)
    assert rows.count() == count + 1
    page.keyboard.press("Delete")
    settled(4)
    assert rows.count() == count
    for number in range(5, 9):
        page.click("#undo")
        settled(number)
    assert shown(page, "#review-canvas", "cycles") == original
    expect(page.locator("#undo")).to_be_disabled()
    page.click("#lock")
    settled(9)
    expect(rows.nth(0).get_by_role("combobox")).to_be_disabled()
    with served.client() as client:
        found = client.get(f"/api/recordings/{recording}/corrections").json()
    assert found["locked"] and [entry["who"] for entry in found["history"]] == ["ab"] * 9


def test_the_guided_map_records_a_point_and_gives_a_verdict(page: Page) -> None:
    go(page, "#examination")
    page.fill("#examination-patient", "P-5")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("#point-title")).to_have_text("Point 1: right upper front")
    expect(page.locator("#chest [role=button]")).to_have_count(12)
    page.locator("#chest [data-point='left upper back']").press("Enter")
    expect(page.locator("#point-title")).to_have_text("Point 7: left upper back")
    page.locator("#point-record").click()
    expect(page.locator("#point-reason")).to_contain_text("usable")
    point = page.locator("#chest [data-point='left upper back']")
    expect(point).to_have_attribute("aria-label", re.compile("left upper back: (normal|abnormal|uncertain)"))
    expect(page.locator("#examination-status")).to_have_text("11 points missing")
    page.get_by_role("button", name="Finish").click()
    expect(page.locator("#examination-verdict")).to_contain_text(re.compile("Examination: (uncertain|abnormal)"))
    expect(page.locator("#examination-verdict")).to_contain_text("not recorded: right upper front")


def places(recording: str) -> tuple[str, ...]:
    return ("#live", "#recordings", f"#recording/{recording}", "#examination")


@pytest.mark.parametrize("part", [slice(2, 4), pytest.param(slice(0, 2), marks=pytest.mark.long)])
def test_nothing_bars_people_who_see_or_point_differently(page: Page, recording: str, part: slice) -> None:
    found = {}
    for place in places(recording)[part]:
        go(page, place)
        page.wait_for_timeout(150)
        found[place] = barriers(page)
    assert {place: names for place, names in found.items() if names} == {}


@pytest.mark.parametrize("place", [0, pytest.param(slice(1, None), marks=pytest.mark.long)])
def test_the_dark_theme_can_be_read_as_well(page: Page, recording: str, place: int | slice) -> None:
    if page.evaluate("document.documentElement.dataset.theme") == "light":
        page.click("#theme")
    chosen = places(recording)[place]
    found = []
    for one in (chosen,) if isinstance(chosen, str) else chosen:
        go(page, one)
        page.wait_for_timeout(150)
        found += barriers(page, runOnly=["color-contrast"])
    assert found == []


def test_a_phone_shows_every_page_without_scrolling_sideways(page: Page, recording: str) -> None:
    page.set_viewport_size({"width": 400, "height": 860})
    try:
        for place in places(recording):
            go(page, place)
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, place
            assert page.locator("main section:visible").count() == 1
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})


def test_a_wrong_token_is_refused_on_the_login_page(browser: Browser, served: Served) -> None:
    fresh = browser.new_context().new_page()
    fresh.goto(served.url)
    assert fresh.url.endswith("/login")
    assert barriers(fresh) == []
    fresh.fill("#token", "guess")
    fresh.get_by_role("button", name="Log in").click()
    expect(fresh.locator("#login-problem")).to_contain_text("wrong token")
    fresh.fill("#token", served.token)
    fresh.get_by_role("button", name="Log in").click()
    fresh.wait_for_selector("body[data-ready]")
    fresh.context.close()


@pytest.mark.long
def test_the_browsers_microphone_records_a_point(page: Page, served: Served) -> None:
    go(page, "#examination")
    page.select_option("#examination-source", "microphone")
    page.get_by_role("button", name="Begin").click()
    page.locator("#point-record").click()
    expect(page.locator("#examination-status")).to_have_text("11 points missing", timeout=90_000)
    with served.client() as client:
        rows = client.get("/api/recordings").json()["recordings"]
        row = next(r for r in rows if r["point"] == "right upper front")
        events = client.get(f"/api/recordings/{row['id']}").json()["events"]
    assert row["sample_rate"] == 8000 and row["cycles"] >= 2
    gaps = [event["lost_samples"] for event in events if event["type"] == "gap"]  # a busy machine starves the browser
    assert row["lost_samples"] == sum(gaps)
