// One recording: look, listen, correct.

import { get, post } from "./api.js";
import { Player } from "./player.js";
import { byId, element, number, percent, problem, reason, seconds, verdictDetail, when } from "./show.js";
import { FixedSamples, readWav } from "./signal.js";
import { Timeline } from "./timeline.js";

const GRIP_PX = 9; // how near a bound the pointer must be to drag it
const NEW_S = 2; // length of an added cycle

export class ReviewPage {
  constructor(info) {
    this.labels = info.corrected_labels;
    this.timeline = new Timeline(byId("review-canvas"));
    this.player = new Player(byId("review-player"), () => this.playable(), (s) => this.moveCursor(s));
    this.dragging = null;
    const reviewer = byId("reviewer");
    try {
      reviewer.value = localStorage.getItem("stetho-reviewer") || "";
    } catch (error) {
      reviewer.value = "";
    }
    reviewer.addEventListener("change", () => {
      try {
        localStorage.setItem("stetho-reviewer", reviewer.value.trim());
      } catch (error) {
        problem(null); // storage may be forbidden; the initials hold for this page
      }
    });
    byId("zoom-in").addEventListener("click", () => this.zoom(0.5));
    byId("zoom-out").addEventListener("click", () => this.zoom(2));
    byId("review-position").addEventListener("input", () => this.place(Number(byId("review-position").value)));
    byId("add-cycle").addEventListener("click", () => this.add());
    byId("undo").addEventListener("click", () => this.correct({ action: "undo" }));
    byId("lock").addEventListener("click", () => this.correct({ action: this.state.locked ? "unlock" : "lock" }));
    byId("report").addEventListener("click", () => this.report());
    const canvas = byId("review-canvas");
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  async show(id) {
    this.hide();
    byId("review-status").textContent = "loading";
    this.id = id;
    const path = `/api/recordings/${encodeURIComponent(id)}`;
    const found = await get(path);
    if (this.id !== id) {
      return;
    }
    this.durationS = found.audio_s;
    const response = await fetch(`${path}/audio?filter=raw`);
    if (!response.ok) {
      throw new Error((await response.json()).message);
    }
    const wav = readWav(await response.arrayBuffer());
    this.timeline.setSamples(new FixedSamples(wav.rate, wav.samples));
    const of = (type) => found.events.filter((event) => event.type === type);
    this.timeline.quality = of("quality");
    this.timeline.gaps = of("gap");
    this.timeline.sounds = of("adventitious");
    this.timeline.spanS = Math.min(this.durationS, window.innerWidth < 700 ? 8 : 20);
    this.timeline.cursorS = 0;
    this.timeline.selected = null;
    this.cards(found);
    byId("download-flac").href = `${path}/audio?format=flac`;
    byId("download-corpus").href = `/api/corpus?recordings=${encodeURIComponent(id)}`;
    this.take(found);
    this.place(0);
    byId("review-status").textContent = "Choose a cycle and drag its bounds, or edit the table.";
    byId("page-recording").dataset.loaded = id;
  }

  hide() {
    this.player.stop();
    delete byId("page-recording").dataset.loaded;
  }

  cards(found) {
    byId("recording-title").textContent = [found.patient || "no patient code", found.point || found.site].filter(Boolean).join(" · ");
    const card = (title, text, detail, kind = "") => element("div", { class: "card" }, element("h3", {}, title),
      element("p", { class: `big ${kind}` }, text), element("p", { class: "soft" }, detail || "\u00a0"));
    const quality = found.quality === "ok" ? "good" : reason(found.quality) || "–";
    byId("recording-cards").replaceChildren(
      card("Verdict", found.verdict || "–", verdictDetail(found), found.verdict || ""),
      card("Respiratory rate", `${number(found.respiratory_rate_bpm)} /min`, (found.summary || {}).respiratory_rate_confident ? "steady" : "not steady"),
      card("Quality", quality, found.lost_samples ? `${found.lost_samples} samples lost` : "no sample lost"),
      card("Length", seconds(found.duration_s), `${(found.sample_rate || 0) / 1000} kHz`),
      card("Recorded", when(found.started), found.complete ? found.source : "not complete"));
  }

  // Cycles and history as the server has them now.
  take(state) {
    this.state = state;
    this.timeline.cycles = state.cycles;
    if (!state.cycles.some((cycle) => cycle.id === this.timeline.selected)) {
      this.timeline.selected = null;
    }
    byId("undo").disabled = state.undoable === null;
    const lock = byId("lock");
    lock.textContent = state.locked ? "Unlock" : "Lock";
    lock.setAttribute("aria-pressed", String(state.locked));
    byId("add-cycle").disabled = state.locked;
    byId("review-cycles").replaceChildren(...state.cycles.map((cycle) => this.row(cycle)));
    byId("history").replaceChildren(...state.history.map((entry) => element("li", {},
      `${when(entry.at)} ${entry.who}: ${entry.action}${entry.cycle ? ` ${entry.cycle}` : ""}${entry.label ? ` → ${entry.label}` : ""}`
      + `${entry.start_s !== undefined ? ` ${entry.start_s}–${entry.end_s} s` : ""}${entry.of ? ` of number ${entry.of}` : ""}`)));
    byId("page-recording").dataset.history = state.history.length;
    this.timeline.draw();
  }

  row(cycle) {
    const off = cycle.locked || this.state.locked;
    const name = `cycle ${cycle.id}`;
    const bound = (key, text) => element("input", { type: "number", step: "0.01", min: "0", max: String(this.durationS), value: cycle[key].toFixed(2),
      "aria-label": `${text} of ${name}`, "data-key": key, disabled: off, onchange: (event) => this.edit(cycle, key, event.target) });
    const label = element("select", { "aria-label": `Label of ${name}`, disabled: off, onchange: (event) => this.correct({ action: "label", cycle: cycle.id, label: event.target.value }) },
      ...(this.labels.includes(cycle.label) ? [] : [element("option", { value: "", selected: true }, cycle.label || `none (${cycle.quality})`)]),
      ...this.labels.map((text) => element("option", { selected: text === cycle.label }, text)));
    const p = cycle.label ? (cycle.probabilities || {})[cycle.label] : null;
    return element("tr", { "data-id": cycle.id, class: cycle.id === this.timeline.selected ? "selected" : "", onclick: () => this.select(cycle.id, false) },
      element("td", {}, bound("start_s", "Start")), element("td", {}, bound("end_s", "End")), element("td", {}, label),
      element("td", {}, percent(p)), element("td", {}, (cycle.corrected || []).join(", ") || "–"),
      element("td", {},
        element("button", { type: "button", "aria-label": `Show ${name}`, onclick: () => this.select(cycle.id, true) }, "Show"), " ",
        element("button", { type: "button", "aria-label": `${cycle.locked ? "Unlock" : "Lock"} ${name}`, disabled: this.state.locked,
          onclick: () => this.correct({ action: cycle.locked ? "unlock" : "lock", cycle: cycle.id }) }, cycle.locked ? "Unlock" : "Lock"), " ",
        element("button", { type: "button", "aria-label": `Delete ${name}`, disabled: off, onclick: () => this.correct({ action: "delete", cycle: cycle.id }) }, "Delete")));
  }

  select(id, move) {
    this.timeline.selected = id;
    for (const row of byId("review-cycles").rows) {
      row.classList.toggle("selected", row.dataset.id === id);
    }
    const cycle = this.state.cycles.find((found) => found.id === id);
    if (cycle && move) {
      this.timeline.cursorS = cycle.start_s;
      this.place(cycle.start_s - 0.15 * this.timeline.spanS);
    }
    this.timeline.draw();
  }

  edit(cycle, key, input) {
    const value = Number(input.value);
    const bounds = { start_s: cycle.start_s, end_s: cycle.end_s, [key]: value };
    this.correct({ action: "bounds", cycle: cycle.id, ...bounds });
  }

  async correct(change) {
    const who = byId("reviewer").value.trim();
    if (!who) {
      byId("review-status").textContent = "Who corrects? Enter the reviewer's initials first.";
      byId("reviewer").focus();
      this.take(this.state); // the fields show what holds
      return;
    }
    const path = `/api/recordings/${encodeURIComponent(this.id)}/corrections`;
    try {
      const result = await post(path, { ...change, who, expected: this.state.history.length });
      if (change.action === "add") {
        this.timeline.selected = result.correction.cycle;
      }
      this.take(result);
      byId("review-status").textContent = `saved: ${change.action}`;
    } catch (error) {
      byId("review-status").textContent = error.message;
      this.take(await get(path).catch(() => this.state));
    }
  }

  add() {
    const start = Math.max(0, Math.min(this.timeline.cursorS || 0, this.durationS - 0.2));
    const end = Math.min(start + NEW_S, this.durationS);
    this.correct({ action: "add", start_s: start, end_s: end, label: this.labels[0] });
  }

  async report() {
    const path = `/api/recordings/${encodeURIComponent(this.id)}/report`;
    const response = await fetch(path);
    if (!response.ok) {
      byId("review-status").textContent = (await response.json()).message;
      return;
    }
    const url = URL.createObjectURL(await response.blob());
    const link = element("a", { href: url, download: `${this.id}.html` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // -- the picture ----------------------------------------------------------------------------------------------------

  place(startS) {
    const { timeline } = this;
    const start = Math.max(0, Math.min(startS, this.durationS - timeline.spanS));
    timeline.endS = start + timeline.spanS;
    const slider = byId("review-position");
    slider.max = String(Math.max(0.01, this.durationS - timeline.spanS));
    slider.disabled = timeline.spanS >= this.durationS;
    slider.value = String(start);
    timeline.draw();
  }

  zoom(factor, aroundS = null) {
    const { timeline } = this;
    const around = aroundS === null ? timeline.startS + timeline.spanS / 2 : aroundS;
    const share = (around - timeline.startS) / timeline.spanS;
    timeline.spanS = Math.max(0.5, Math.min(this.durationS, timeline.spanS * factor));
    this.place(around - share * timeline.spanS);
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, this.timeline.secondsAt(event.clientX));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.place(this.timeline.startS + (event.deltaX / 600) * this.timeline.spanS);
    }
  }

  grip(event) {
    const box = this.timeline.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const cycle = this.state && !this.state.locked ? this.state.cycles.find((found) => found.id === this.timeline.selected) : null;
    if (!cycle || cycle.locked) {
      return null;
    }
    return ["start_s", "end_s"].find((key) => Math.abs(this.timeline.x(cycle[key]) - x) < GRIP_PX) || null;
  }

  down(event) {
    if (!this.state) {
      return;
    }
    const s = this.timeline.secondsAt(event.clientX);
    const key = this.grip(event);
    if (key) {
      const cycle = this.state.cycles.find((found) => found.id === this.timeline.selected);
      this.dragging = { key, cycle, before: { ...cycle } };
      this.timeline.canvas.setPointerCapture(event.pointerId);
      return;
    }
    this.timeline.cursorS = Math.max(0, Math.min(s, this.durationS));
    const found = this.timeline.cycleAt(s);
    this.select(found ? found.id : null, false);
  }

  move(event) {
    if (!this.dragging) {
      this.timeline.canvas.style.cursor = this.grip(event) ? "ew-resize" : "crosshair";
      return;
    }
    const { key, cycle } = this.dragging;
    const s = Math.max(0, Math.min(this.timeline.secondsAt(event.clientX), this.durationS));
    cycle[key] = key === "start_s" ? Math.min(s, cycle.end_s - 0.1) : Math.max(s, cycle.start_s + 0.1);
    this.timeline.draw();
  }

  up() {
    if (!this.dragging) {
      return;
    }
    const { cycle, before } = this.dragging;
    this.dragging = null;
    const bounds = { start_s: Number(cycle.start_s.toFixed(3)), end_s: Number(cycle.end_s.toFixed(3)) };
    Object.assign(cycle, { start_s: before.start_s, end_s: before.end_s });
    this.correct({ action: "bounds", cycle: cycle.id, ...bounds });
  }

  key(event) {
    const { timeline } = this;
    const steps = { ArrowLeft: -0.1, ArrowRight: 0.1, PageUp: -timeline.spanS, PageDown: timeline.spanS };
    if (event.key in steps) {
      event.preventDefault();
      timeline.cursorS = Math.max(0, Math.min((timeline.cursorS || 0) + steps[event.key], this.durationS));
      if (timeline.cursorS < timeline.startS || timeline.cursorS > timeline.endS) {
        this.place(timeline.cursorS - timeline.spanS / 2);
      }
      timeline.draw();
    } else if (event.key === " ") {
      event.preventDefault();
      this.player.toggle();
    } else if (event.key === "+" || event.key === "=") {
      this.zoom(0.5);
    } else if (event.key === "-") {
      this.zoom(2);
    } else if (event.key === "Delete" && timeline.selected) {
      this.correct({ action: "delete", cycle: timeline.selected });
    } else if (event.key.toLowerCase() === "a" && !event.ctrlKey) {
      this.add();
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.correct({ action: "undo" });
    }
  }

  playable() {
    const from = this.timeline.cursorS !== null && this.timeline.cursorS < this.durationS - 0.05 ? this.timeline.cursorS : 0;
    return this.timeline.samples ? { samples: this.timeline.samples, live: false, startS: from, endS: this.durationS } : null;
  }

  moveCursor(s) {
    const { timeline } = this;
    timeline.cursorS = s;
    if (s !== null && s > timeline.endS - 0.05 * timeline.spanS && timeline.endS < this.durationS) {
      this.place(s - 0.1 * timeline.spanS);
    }
    timeline.drawSoon();
  }
}
