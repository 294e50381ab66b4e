// The picture: phonocardiogram, spectrogram and cycles over one time axis, on a canvas.

import { Spectrogram, palette, topOf } from "./signal.js";
import { colourOf, isDark, labelOf, reason } from "./show.js";

const LEFT = 44; // for the axis of frequencies
const RIGHT = 8;
const LANE = 42; // cycles
const AXIS = 22; // seconds

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class Timeline {
  // samples: SampleStore or FixedSamples; cycles: [{start_s, end_s, label, ...}]; open: the cycle that grows, or null;
  // quality: [{start_s, quality}], each until the next; gaps: [{start_s, end_s}]; sounds: adventitious sounds.
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.picture = document.createElement("canvas");
    this.setSamples(null);
    this.endS = 0;
    this.spanS = 12;
    this.cursorS = null;
    this.selected = null;
    this.top = 200;
    this.marks = "";
    this.waiting = false;
    this.painted = 0;
    this.onDrawn = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
    document.addEventListener("stetho-theme", () => this.draw());
  }

  setSamples(samples) {
    this.samples = samples;
    this.spectrogram = samples ? new Spectrogram(samples.rate) : null;
    this.cycles = [];
    this.open = null;
    this.quality = [];
    this.gaps = [];
    this.sounds = [];
  }

  get startS() {
    return this.endS - this.spanS;
  }

  draw() {
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.painted = performance.now();
        this.paint();
      });
    }
  }

  // For what changes all the time: at most 25 pictures a second, which leaves a phone some of its battery.
  drawSoon() {
    if (performance.now() - this.painted > 38) {
      this.draw();
    }
  }

  x(s) {
    return LEFT + ((s - this.startS) / this.spanS) * (this.width - LEFT - RIGHT);
  }

  secondsAt(clientX) {
    const box = this.canvas.getBoundingClientRect();
    return this.startS + ((clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * this.spanS;
  }

  paint() {
    const { canvas, context } = this;
    const box = canvas.getBoundingClientRect();
    if (!box.width || !box.height) {
      return;
    }
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
    }
    this.width = box.width;
    this.colours = {
      ground: style("--panel"), text: style("--text"), soft: style("--soft"), line: style("--line"),
      accent: style("--accent"), uncertain: style("--uncertain"), focus: style("--focus"),
    };
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    context.fillStyle = this.colours.ground;
    context.fillRect(0, 0, box.width, box.height);
    const free = box.height - LANE - AXIS - 6;
    this.wave = { y: 2, height: Math.round(free * 0.34) };
    this.spectrum = { y: this.wave.height + 6, height: free - this.wave.height };
    this.lane = { y: this.spectrum.y + this.spectrum.height + 2, height: LANE - 4 };
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, box.width - LEFT - RIGHT, box.height - AXIS);
    context.clip();
    if (this.samples) {
      this.paintSpectrum(ratio);
      this.paintWave();
    }
    this.paintQuality();
    this.paintGaps();
    this.paintSounds();
    this.paintCycles();
    this.paintCursor();
    context.restore();
    this.paintAxes(box);
    if (this.onDrawn) {
      this.onDrawn();
    }
  }

  paintSpectrum(ratio) {
    const { spectrogram, samples, context } = this;
    const rate = samples.rate;
    const width = Math.max(1, Math.round((this.width - LEFT - RIGHT) * Math.min(ratio, 1.5)));
    const first = Math.floor((this.startS * rate) / spectrogram.hop);
    const last = Math.ceil((this.endS * rate) / spectrogram.hop);
    const stride = Math.max(1, Math.floor((last - first) / width));
    const columns = [];
    // Strides count from 0, not from the left edge: else columns flicker while the picture moves.
    for (let k = Math.floor(first / stride) * stride; k <= last; k += stride) {
      columns.push(spectrogram.column(k, samples));
    }
    const from = Math.floor(first / stride) * stride;
    const wanted = topOf(columns);
    this.top += (wanted - this.top) * (Math.abs(wanted - this.top) > 40 ? 1 : 0.1);
    const colours = palette(this.top, isDark());
    const image = new ImageData(columns.length, spectrogram.rows);
    const pixels = new Uint32Array(image.data.buffer);
    columns.forEach((column, k) => {
      for (let row = 0; row < column.length; row++) {
        pixels[(spectrogram.rows - 1 - row) * columns.length + k] = colours[column[row]];
      }
    });
    this.picture.width = columns.length;
    this.picture.height = spectrogram.rows;
    this.picture.getContext("2d").putImageData(image, 0, 0);
    const x0 = this.x(((from - stride / 2) * spectrogram.hop) / rate);
    const x1 = this.x(((from + (columns.length - 0.5) * stride) * spectrogram.hop) / rate);
    context.imageSmoothingEnabled = true;
    context.drawImage(this.picture, x0, this.spectrum.y, x1 - x0, this.spectrum.height);
  }

  paintWave() {
    const { context, samples } = this;
    const columns = Math.max(1, Math.floor(this.width - LEFT - RIGHT));
    const begin = Math.round(this.startS * samples.rate);
    const end = Math.round(this.endS * samples.rate);
    const pcm = samples.read(begin, end);
    const highs = new Float32Array(columns);
    const lows = new Float32Array(columns);
    for (let c = 0; c < columns; c++) {
      const to = Math.floor(((c + 1) * pcm.length) / columns);
      for (let i = Math.floor((c * pcm.length) / columns); i < to; i++) {
        highs[c] = Math.max(highs[c], pcm[i]);
        lows[c] = Math.min(lows[c], pcm[i]);
      }
    }
    // A single click shall not flatten everything else: the loudest hundredth of the columns may be cut.
    const peaks = highs.map((high, c) => Math.max(high, -lows[c])).sort();
    const peak = Math.max(0.005, 1.15 * peaks[Math.floor(0.99 * (columns - 1))]);
    const middle = this.wave.y + this.wave.height / 2;
    const half = this.wave.height / 2;
    const scale = half / peak;
    context.fillStyle = this.colours.line;
    context.fillRect(LEFT, middle - 0.5, columns, 1);
    context.fillStyle = this.colours.accent;
    context.beginPath();
    for (let c = 0; c < columns; c++) {
      const [up, down] = [Math.min(half, highs[c] * scale), Math.min(half, -lows[c] * scale)];
      context.rect(LEFT + c, middle - up, 1, Math.max(1, up + down));
    }
    context.fill();
  }

  visible(rows) {
    return rows.filter((row) => row.end_s > this.startS && row.start_s < this.endS);
  }

  // Stretches that the quality gate refuses, with its reason.
  paintQuality() {
    const { context } = this;
    this.quality.forEach((row, i) => {
      const next = this.quality[i + 1];
      const [start, end] = [row.start_s, next ? next.start_s : this.endS];
      if (row.quality === "ok" || end <= this.startS || start >= this.endS) {
        return;
      }
      this.hatch(start, end, this.wave.y, this.spectrum.y + this.spectrum.height, this.colours.uncertain, 9);
      this.tag(reason(row.quality), Math.max(this.x(start), LEFT) + 4, this.wave.y + 14, this.colours.uncertain);
    });
  }

  paintGaps() {
    for (const gap of this.visible(this.gaps)) {
      const bottom = this.spectrum.y + this.spectrum.height;
      this.hatch(gap.start_s, gap.end_s, this.wave.y, bottom, this.colours.text, 5);
      this.tag(`gap ${gap.lost_samples}`, Math.max(this.x(gap.start_s), LEFT) + 3, bottom - 6, this.colours.text);
    }
  }

  hatch(startS, endS, top, bottom, colour, step) {
    const { context } = this;
    const [x0, x1] = [Math.max(this.x(startS), LEFT), Math.max(this.x(endS), this.x(startS) + 2)];
    context.save();
    context.beginPath();
    context.rect(x0, top, x1 - x0, bottom - top);
    context.clip();
    context.strokeStyle = colour;
    context.globalAlpha = 0.55;
    context.beginPath();
    for (let x = x0 - (bottom - top); x < x1; x += step) {
      context.moveTo(x, bottom);
      context.lineTo(x + bottom - top, top);
    }
    context.stroke();
    context.restore();
  }

  tag(text, x, y, colour) {
    const { context } = this;
    const width = context.measureText(text).width;
    context.fillStyle = this.colours.ground;
    context.fillRect(x - 3, y - 12, width + 6, 16);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }

  // Crackles and wheezes, found independently of the cycles.
  paintSounds() {
    const { context } = this;
    for (const sound of this.visible(this.sounds)) {
      const [x0, x1] = [this.x(sound.start_s), this.x(sound.end_s)];
      context.fillStyle = colourOf(sound.kind);
      context.fillRect(x0, this.spectrum.y, Math.max(3, x1 - x0), 4);
    }
  }

  paintCycles() {
    const { context, lane } = this;
    const drawn = [];
    for (const cycle of this.visible(this.cycles)) {
      const [x0, x1] = [this.x(cycle.start_s), this.x(cycle.end_s)];
      const colour = colourOf(cycle.label);
      const chosen = this.selected !== null && cycle.id === this.selected;
      context.globalAlpha = chosen ? 0.55 : 0.28;
      context.fillStyle = colour;
      context.fillRect(x0 + 1, lane.y, Math.max(1, x1 - x0 - 2), lane.height);
      context.globalAlpha = 1;
      context.strokeStyle = colour;
      context.lineWidth = chosen ? 3 : 1.5;
      context.strokeRect(x0 + 1, lane.y, Math.max(1, x1 - x0 - 2), lane.height);
      context.lineWidth = 1;
      context.globalAlpha = chosen ? 1 : 0.6;
      context.beginPath();
      for (const x of [x0, x1]) {
        context.moveTo(x, this.wave.y);
        context.lineTo(x, lane.y);
      }
      context.stroke();
      context.globalAlpha = 1;
      const text = labelOf(cycle);
      this.fitText(text, x0 + 5, x1 - 4, lane.y, cycle.locked ? "locked" : (cycle.corrected || []).length ? "corrected" : "");
      drawn.push({ start_s: cycle.start_s, end_s: cycle.end_s, text, label: cycle.label });
    }
    if (this.open && this.open.start_s < this.endS) {
      const [x0, x1] = [this.x(this.open.start_s), this.x(this.endS)];
      context.setLineDash([5, 4]);
      context.strokeStyle = this.colours.text;
      context.strokeRect(x0 + 1, lane.y, Math.max(1, x1 - x0 - 2), lane.height);
      context.setLineDash([]);
      this.fitText("cycle …", x0 + 5, x1 - 4, lane.y, "");
    }
    this.publish("cycles", JSON.stringify(drawn));
    this.publish("open", this.open ? String(this.open.start_s) : "");
  }

  // What is drawn, for tests and for assistive tools that read the page.
  publish(name, text) {
    if (this.canvas.dataset[name] !== text) {
      this.canvas.dataset[name] = text;
    }
  }

  fitText(text, x0, x1, y, second) {
    const { context } = this;
    context.fillStyle = this.colours.text;
    const start = Math.max(x0, LEFT + 4);
    const room = x1 - start;
    const [word, rest] = [text.split(" ")[0], text.split(" ").slice(1).join(" ")];
    if (room >= context.measureText(word).width) {
      const whole = room >= context.measureText(text).width;
      context.fillText(whole ? text : word, start, y + 15);
      const below = second || (whole ? "" : rest);
      if (below && room >= context.measureText(below).width) {
        context.fillText(below, start, y + 31);
      }
    }
  }

  paintCursor() {
    if (this.cursorS === null) {
      return;
    }
    this.context.fillStyle = this.colours.focus;
    this.context.fillRect(this.x(this.cursorS) - 1, this.wave.y, 2, this.lane.y + this.lane.height - this.wave.y);
  }

  paintAxes(box) {
    const { context } = this;
    context.fillStyle = this.colours.soft;
    context.strokeStyle = this.colours.line;
    context.textAlign = "right";
    const topHz = this.spectrogram ? this.spectrogram.topHz : 2000;
    for (let hz = 0; hz <= topHz; hz += topHz > 1000 ? 500 : 250) {
      const y = this.spectrum.y + this.spectrum.height * (1 - hz / topHz);
      context.fillText(hz === 0 ? "0 Hz" : String(hz), LEFT - 5, Math.min(Math.max(y + 4, this.spectrum.y + 10), this.lane.y - 1));
      context.fillRect(LEFT - 3, y - 0.5, 3, 1);
    }
    context.fillText("level", LEFT - 5, this.wave.y + this.wave.height / 2 + 4);
    context.fillText("cycle", LEFT - 5, this.lane.y + this.lane.height / 2 + 4);
    context.textAlign = "center";
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
    const most = Math.max(2, (this.width - LEFT - RIGHT) / 64);
    const step = steps.find((candidate) => this.spanS / candidate <= most) || 1200;
    const y = box.height - AXIS;
    context.fillRect(LEFT, y, this.width - LEFT - RIGHT, 1);
    for (let s = Math.ceil(this.startS / step) * step; s <= this.endS + 1e-6; s += step) {
      const x = this.x(s);
      if (s >= -1e-6 && x > LEFT - 1 && x < this.width - 16) {
        context.fillRect(x, y, 1, 5);
        context.fillText(`${step < 1 ? s.toFixed(1) : Math.round(s)} s`, x, y + 18);
      }
    }
    context.textAlign = "left";
  }

  cycleAt(s) {
    return this.cycles.find((cycle) => s >= cycle.start_s && s <= cycle.end_s) || null;
  }
}
