// Playback through a listening filter, live two seconds behind or of a stretch of audio, also at half speed.

import { element } from "./show.js";
import { wavBlob } from "./signal.js";

const BEHIND_S = 2;
const AHEAD_S = 0.35; // scheduled beyond what plays
const LEAST_RATE = 8000; // of a browser's buffers everywhere

export const FILTERS = { raw: null, bell: [20, 200], diaphragm: [100, 500], extended: [20, 1000] };
const BUTTERWORTH = [0.5412, 1.3066]; // quality factors of a filter of fourth order

export class Player {
  // source(): {samples, startS, endS, live}: what Play begins with; onCursor(seconds or null).
  constructor(host, source, onCursor) {
    this.source = source;
    this.onCursor = onCursor;
    this.filter = "raw";
    this.host = host;
    this.audio = new Audio();
    this.audio.preservesPitch = true;
    this.audio.addEventListener("ended", () => this.stop());
    this.running = null;
    this.play = element("button", { type: "button", class: "primary", onclick: () => this.toggle() }, "Play");
    this.half = element("button", { type: "button", "aria-pressed": "false", onclick: () => this.setHalf(!this.isHalf) }, "½ speed");
    this.volume = element("input", { type: "range", min: "0", max: "24", step: "0.5", value: "3", "aria-label": "Volume" });
    this.volume.addEventListener("input", () => this.setVolume());
    const names = { raw: "Raw", bell: "Bell", diaphragm: "Diaphragm", extended: "Extended" };
    this.buttons = Object.entries(names).map(([name, text]) => {
      const band = FILTERS[name];
      const title = band ? `${band[0]}–${band[1]} Hz` : "unfiltered";
      return element("button", { type: "button", "data-filter": name, title, "aria-pressed": String(name === "raw"), onclick: () => this.setFilter(name) }, text);
    });
    const group = element("fieldset", {}, element("legend", {}, "Listening filter"), ...this.buttons);
    host.append(this.play, this.half, group, element("label", {}, "Volume ", this.volume));
    host.dataset.filter = "raw";
    host.dataset.playing = "";
    this.isHalf = false;
  }

  prepare() {
    if (this.context) {
      return;
    }
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.gain = this.context.createGain();
    this.gain.connect(this.context.destination);
    this.input = this.context.createGain();
    this.stages = ["highpass", "lowpass"].flatMap((type) =>
      BUTTERWORTH.map((q) => {
        const stage = this.context.createBiquadFilter();
        stage.type = type;
        stage.Q.value = 20 * Math.log10(q); // of these types in dB
        return stage;
      }),
    );
    this.stages.reduce((before, stage) => before.connect(stage));
    this.context.createMediaElementSource(this.audio).connect(this.input);
    this.setVolume();
    this.setFilter(this.filter);
  }

  setVolume() {
    if (this.gain) {
      this.gain.gain.value = Number(this.volume.value);
    }
  }

  setFilter(name) {
    this.filter = name;
    this.buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.filter === name)));
    this.host.dataset.filter = name;
    if (!this.context) {
      return;
    }
    this.input.disconnect();
    this.stages[3].disconnect();
    const band = FILTERS[name];
    if (band === null) {
      this.input.connect(this.gain);
    } else {
      this.stages.forEach((stage, i) => {
        stage.frequency.value = Math.min(band[i < 2 ? 0 : 1], 0.49 * this.context.sampleRate);
      });
      this.input.connect(this.stages[0]);
      this.stages[3].connect(this.gain);
    }
    this.host.dataset.response = JSON.stringify(this.response([50, 150, 300, 700, 1500]));
  }

  // Gain of the filter in dB at some frequencies: what is really set, for tests.
  response(frequencies) {
    if (FILTERS[this.filter] === null) {
      return frequencies.map(() => 0);
    }
    const total = frequencies.map(() => 0);
    for (const stage of this.stages) {
      const magnitude = new Float32Array(frequencies.length);
      stage.getFrequencyResponse(Float32Array.from(frequencies), magnitude, new Float32Array(frequencies.length));
      magnitude.forEach((m, i) => (total[i] += 20 * Math.log10(m + 1e-9)));
    }
    return total.map((db) => Math.round(10 * db) / 10);
  }

  setHalf(half) {
    this.isHalf = half;
    this.half.setAttribute("aria-pressed", String(half));
    this.audio.playbackRate = half ? 0.5 : 1;
    this.host.dataset.rate = `${this.audio.playbackRate} with the pitch of ${this.audio.preservesPitch ? 1 : this.audio.playbackRate}`;
  }

  toggle() {
    if (this.running) {
      this.stop();
    } else {
      this.start();
    }
  }

  async start() {
    const found = this.source();
    if (!found || !found.samples) {
      return;
    }
    this.prepare();
    await this.context.resume();
    this.play.textContent = "Stop";
    this.host.dataset.playing = found.live ? "live" : "stretch";
    if (found.live) {
      this.setHalf(false);
      this.half.disabled = true;
      this.running = { live: true, samples: found.samples, next: null, at: 0 };
      this.feed();
    } else {
      const { samples, startS, endS } = found;
      const pcm = samples.read(Math.round(startS * samples.rate), Math.round(endS * samples.rate));
      this.url = URL.createObjectURL(wavBlob(pcm, samples.rate));
      this.audio.src = this.url;
      this.running = { live: false, startS };
      this.setHalf(this.isHalf);
      try {
        await this.audio.play();
      } catch (error) {
        this.stop();
        return;
      }
    }
    this.follow();
  }

  // Schedules live audio as it arrives, BEHIND_S after it was captured.
  feed() {
    const run = this.running;
    if (!run || !run.live) {
      return;
    }
    const { samples } = run;
    const rate = samples.rate;
    const now = this.context.currentTime;
    const due = samples.end - Math.round(BEHIND_S * rate);
    if (run.next === null || run.at < now || Math.abs(run.next - due) > rate) {
      run.next = Math.max(samples.oldest, due);
      run.at = now + 0.05;
      run.base = { sample: run.next, time: run.at };
    }
    while (run.at < now + AHEAD_S && run.next < samples.end) {
      const count = Math.min(Math.round(0.1 * rate), samples.end - run.next);
      const piece = this.buffer(samples, run.next, count);
      piece.start(run.at);
      run.at += count / rate;
      run.next += count;
    }
    this.timer = setTimeout(() => this.feed(), 60);
  }

  buffer(samples, begin, count) {
    const factor = Math.max(1, Math.ceil(LEAST_RATE / samples.rate));
    const raw = samples.read(begin - 8, begin + count + 8);
    const buffer = this.context.createBuffer(1, count * factor, samples.rate * factor);
    const out = buffer.getChannelData(0);
    for (let i = 0; i < out.length; i++) {
      out[i] = factor === 1 ? raw[i + 8] : interpolated(raw, 8 + i / factor);
    }
    const node = this.context.createBufferSource();
    node.buffer = buffer;
    node.connect(this.input);
    return node;
  }

  follow() {
    const run = this.running;
    if (!run) {
      return;
    }
    if (run.live) {
      const played = run.base ? run.base.sample + (this.context.currentTime - run.base.time) * run.samples.rate : null;
      this.onCursor(played === null ? null : played / run.samples.rate);
    } else {
      this.onCursor(run.startS + this.audio.currentTime);
    }
    this.host.dataset.position = this.audio.currentTime.toFixed(2);
    requestAnimationFrame(() => this.follow());
  }

  stop() {
    this.running = null;
    clearTimeout(this.timer);
    this.audio.pause();
    if (this.url) {
      URL.revokeObjectURL(this.url);
      this.url = null;
    }
    this.play.textContent = "Play";
    this.half.disabled = false;
    this.host.dataset.playing = "";
  }
}

// A sample between samples by a short windowed sinc: doubling the rate adds no images.
function interpolated(raw, place) {
  const base = Math.floor(place);
  const rest = place - base;
  if (rest === 0) {
    return raw[base];
  }
  let sum = 0;
  for (let k = -7; k <= 8; k++) {
    const t = rest - k;
    const at = base + k;
    if (at >= 0 && at < raw.length) {
      sum += raw[at] * (Math.sin(Math.PI * t) / (Math.PI * t)) * (0.5 + 0.5 * Math.cos((Math.PI * t) / 8.5));
    }
  }
  return sum;
}
