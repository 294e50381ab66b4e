// The live page: the server's source as it plays.

import { webSocket } from "./api.js";
import { Player } from "./player.js";
import { byId, element, number, percent, reason, seconds, verdictDetail } from "./show.js";
import { SampleStore } from "./signal.js";
import { Timeline } from "./timeline.js";

const LOOK_BACK_S = 60;
const ROWS = 12;

export class LivePage {
  constructor() {
    this.timeline = new Timeline(byId("live-canvas"));
    this.samples = null;
    this.paused = false;
    this.pausedAt = 0;
    this.delays = []; // ms from an event's emission to its drawing
    this.undrawn = [];
    this.offsetMs = 0; // this device's clock minus the server's
    this.bestRtt = Infinity;
    this.player = new Player(byId("live-player"), () => this.playable(), (s) => this.moveCursor(s));
    byId("live-pause").addEventListener("click", () => this.pause(!this.paused));
    byId("live-back").addEventListener("input", () => this.lookBack());
    byId("live-window").addEventListener("change", () => {
      this.timeline.spanS = Number(byId("live-window").value);
      this.timeline.draw();
    });
    byId("live-canvas").addEventListener("keydown", (event) => this.key(event));
    this.timeline.onDrawn = () => this.drawn();
  }

  show() {
    if (!this.socket) {
      this.connect();
    }
    this.timeline.draw();
  }

  connect() {
    this.socket = webSocket("/api/live");
    this.socket.addEventListener("message", (event) => this.take(event.data));
    this.socket.addEventListener("close", (event) => {
      this.socket = null;
      clearInterval(this.pinging);
      if (event.code !== 4004 && !this.ended) {
        this.health({ state: "failed", detail: "connection lost; trying again" });
        setTimeout(() => this.connect(), 1500);
      }
    });
    this.socket.addEventListener("open", () => {
      this.ping();
      this.pinging = setInterval(() => this.ping(), 5000);
    });
  }

  ping() {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) {
      this.pingedMs = Date.now();
      this.socket.send("ping");
    }
  }

  take(data) {
    if (data instanceof ArrayBuffer) {
      this.audio(data);
      return;
    }
    const line = JSON.parse(data);
    const handler = {
      live: () => this.hello(line),
      open: () => this.openCycle(line),
      cycle: () => this.cycle(line),
      quality: () => this.quality(line),
      gap: () => this.timeline.gaps.push(line),
      adventitious: () => this.timeline.sounds.push(line),
      verdict: () => this.verdict(line),
      state: () => this.state(line),
      health: () => this.health(line),
      engine: () => this.health({ state: "engine", detail: line.detail }),
      device: () => this.health({ state: "device", detail: line.reason }),
      summary: () => this.summary(line),
      pong: () => this.pong(line),
      error: () => this.health({ state: "failed", detail: line.message }),
    }[line.type];
    if (handler) {
      handler();
      this.timeline.draw();
    }
  }

  hello(line) {
    this.ended = !line.running;
    this.samples = new SampleStore(line.sample_rate, LOOK_BACK_S + 5);
    this.timeline.setSamples(this.samples);
    byId("live-cycles").replaceChildren();
    byId("live-source").textContent = `${line.source} · ${line.sample_rate / 1000} kHz`;
    this.health(line.health);
    if (line.quality) {
      this.quality(line.quality);
    }
    if (line.summary) {
      this.summary(line.summary);
    }
  }

  audio(buffer) {
    if (!this.samples) {
      return;
    }
    const first = Number(new DataView(buffer).getBigUint64(0, true));
    const pcm = new Int16Array(buffer, 8);
    this.samples.append(first, pcm);
    let power = 0;
    for (let i = 0; i < pcm.length; i += 4) {
      power += pcm[i] * pcm[i];
    }
    const db = 10 * Math.log10((4 * power) / Math.max(1, pcm.length) / 32768 ** 2 + 1e-12);
    this.level = this.level === undefined ? db : this.level + 0.2 * (db - this.level);
    if (!this.paused) {
      this.timeline.endS = this.samples.end / this.samples.rate;
    } else {
      this.lookBack(false);
    }
    this.timeline.drawSoon();
  }

  openCycle(line) {
    this.timeline.open = line;
  }

  cycle(line) {
    this.timeline.cycles.push(line);
    if (this.timeline.open && this.timeline.open.start_s < line.end_s - 0.05) {
      this.timeline.open = null;
    }
    const oldest = line.end_s - LOOK_BACK_S - 10;
    for (const list of ["cycles", "gaps", "sounds"]) {
      this.timeline[list] = this.timeline[list].filter((row) => row.end_s > oldest);
    }
    if (!line.past) {
      this.undrawn.push(line.emitted_ms);
    }
    const p = line.label === null ? null : line.probabilities[line.label];
    const row = element("tr", {}, ...[seconds(line.start_s), seconds(line.end_s), line.label || "–", percent(p), reason(line.quality),
      line.latency_ms === null ? "–" : `${Math.round(line.latency_ms)} ms`].map((text) => element("td", {}, text)));
    const body = byId("live-cycles");
    body.prepend(row);
    while (body.rows.length > ROWS) {
      body.deleteRow(-1);
    }
  }

  // After each drawing: how long the events on it took from the session to the screen.
  drawn() {
    if (!this.undrawn.length || this.paused) {
      this.undrawn = [];
      return;
    }
    const now = Date.now();
    for (const emitted of this.undrawn) {
      this.delays.push(Math.max(0, now - this.offsetMs - emitted));
    }
    this.undrawn = [];
    this.delays = this.delays.slice(-500);
    const sorted = [...this.delays].sort((a, b) => a - b);
    const p99 = sorted[Math.min(sorted.length - 1, Math.ceil(0.99 * sorted.length) - 1)];
    byId("live-canvas").dataset.delayP99 = p99.toFixed(1);
    byId("live-canvas").dataset.allDelays = JSON.stringify(sorted);
    byId("live-delay").textContent = `+ ${Math.round(p99)} ms to the screen`;
  }

  quality(line) {
    this.timeline.quality.push(line);
    if (this.timeline.quality.length > 200) {
      this.timeline.quality.shift();
    }
    const shown = byId("live-quality");
    shown.textContent = line.quality === "ok" ? "good" : reason(line.quality);
    shown.className = `big ${line.quality === "ok" ? "normal" : "uncertain"}`;
  }

  verdict(line) {
    const shown = byId("live-verdict");
    if (shown.textContent !== line.verdict) {
      shown.textContent = line.verdict;
      shown.className = `big ${line.verdict}`;
    }
    byId("live-verdict-detail").textContent = [verdictDetail(line), `${Math.round(line.usable_s)} s usable`, `${line.cycles} cycles`].filter(Boolean).join(" · ");
  }

  state(line) {
    byId("live-rate").textContent = number(line.rate_bpm);
    byId("live-rate-detail").textContent = line.rate_bpm === null ? "no cycle yet" : line.rate_confident ? "steady" : "not yet steady";
    byId("live-lost").textContent = String(line.lost_samples);
    byId("live-lost").className = `big ${line.lost_samples ? "abnormal" : ""}`;
    byId("live-gaps").textContent = line.gaps ? `${line.gaps} gaps` : "no gap";
    byId("live-latency").textContent = line.latency_ms === null ? "–" : String(Math.round(line.latency_ms));
    byId("live-level").textContent = this.level === undefined ? "" : `level ${Math.round(this.level)} dBFS`;
    if (line.overloaded) {
      this.health({ state: "stalled", detail: "this machine was too slow: cycles without a label" });
    }
  }

  health(line) {
    const tag = byId("live-health");
    tag.hidden = line.state === "healthy";
    tag.textContent = line.detail || line.state;
  }

  summary(line) {
    this.ended = true;
    this.timeline.open = null;
    this.verdict({ ...line, usable_s: line.usable_s || 0, cycles: line.classified });
    this.health({ state: "ended", detail: `ended after ${seconds(line.duration_s)}` });
  }

  pong(line) {
    const now = Date.now();
    const trip = now - this.pingedMs;
    if (trip <= this.bestRtt) {
      this.bestRtt = trip;
      this.offsetMs = now - trip / 2 - line.at_ms;
    }
  }

  pause(paused) {
    this.paused = paused;
    const button = byId("live-pause");
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    const slider = byId("live-back");
    slider.disabled = !paused;
    slider.value = 0;
    if (this.samples) {
      this.pausedAt = this.samples.end / this.samples.rate;
      this.timeline.endS = this.pausedAt;
    }
    this.player.stop();
    this.timeline.cursorS = null;
    this.lookBack();
  }

  lookBack(redraw = true) {
    const back = Number(byId("live-back").value);
    byId("live-back-text").textContent = back === 0 ? (this.paused ? "paused" : "now") : `−${back.toFixed(1)} s`;
    if (this.paused && this.samples) {
      const oldest = this.samples.oldest / this.samples.rate;
      this.timeline.endS = Math.max(this.pausedAt - back, Math.min(oldest + this.timeline.spanS, this.pausedAt));
    }
    if (redraw) {
      this.timeline.draw();
    }
  }

  key(event) {
    const slider = byId("live-back");
    if (event.key === " ") {
      event.preventDefault();
      this.pause(!this.paused);
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      if (!this.paused) {
        this.pause(true);
      }
      slider.value = Number(slider.value) + (event.key === "ArrowLeft" ? 1 : -1);
      this.lookBack();
    } else if (event.key.toLowerCase() === "p") {
      this.player.toggle();
    }
  }

  playable() {
    if (!this.samples) {
      return null;
    }
    if (!this.paused && !this.ended) {
      return { samples: this.samples, live: true };
    }
    return { samples: this.samples, live: false, startS: Math.max(0, this.timeline.startS), endS: this.timeline.endS };
  }

  moveCursor(s) {
    this.timeline.cursorS = s;
    this.timeline.drawSoon();
  }
}
