// Samples in memory, their spectrogram, and files for the player.

const FLOOR_DB = -110;
const STEP_DB = 0.4; // of the stored bytes

// The latest samples of a source, gaps as zeros, addressed by the source's own sample index.
export class SampleStore {
  constructor(rate, keepS) {
    this.rate = rate;
    this.keep = Math.round(rate * keepS);
    this.samples = new Float32Array(2 * this.keep);
    this.first = 0; // index of samples[0]
    this.end = 0; // one past the newest
    this.started = false;
  }

  append(first, pcm) {
    if (!this.started || first - this.end > this.keep) {
      this.started = true;
      this.first = this.end = first;
    }
    const skip = this.end - first; // received before
    if (skip >= pcm.length) {
      return;
    }
    const from = Math.max(0, skip);
    const at = first + from;
    if (at + pcm.length - from - this.first > this.samples.length) {
      const start = Math.max(this.first, at + pcm.length - from - this.keep);
      this.samples.copyWithin(0, start - this.first, this.end - this.first);
      this.first = start;
    }
    this.samples.fill(0, this.end - this.first, Math.max(0, at - this.first));
    for (let i = from; i < pcm.length; i++) {
      this.samples[first + i - this.first] = pcm[i] / 32768;
    }
    this.end = first + pcm.length;
  }

  get oldest() {
    return Math.max(this.first, this.end - this.keep);
  }

  read(begin, end) {
    const out = new Float32Array(Math.max(0, end - begin));
    const from = Math.max(begin, this.first);
    const to = Math.min(end, this.end);
    if (to > from) {
      out.set(this.samples.subarray(from - this.first, to - this.first), from - begin);
    }
    return out;
  }
}

// A whole recording; the same face as SampleStore.
export class FixedSamples {
  constructor(rate, samples) {
    this.rate = rate;
    this.samples = samples;
    this.first = 0;
    this.oldest = 0;
    this.end = samples.length;
  }

  read(begin, end) {
    const out = new Float32Array(Math.max(0, end - begin));
    const from = Math.max(begin, 0);
    const to = Math.min(end, this.end);
    if (to > from) {
      out.set(this.samples.subarray(from, to), from - begin);
    }
    return out;
  }
}

class Fft {
  constructor(size) {
    this.size = size;
    this.cos = Float64Array.from({ length: size / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / size));
    const bits = Math.log2(size);
    this.order = Uint16Array.from({ length: size }, (_, i) => {
      let turned = 0;
      for (let b = 0; b < bits; b++) {
        turned |= ((i >> b) & 1) << (bits - 1 - b);
      }
      return turned;
    });
    this.re = new Float64Array(size);
    this.im = new Float64Array(size);
  }

  run(input) {
    const { size, re, im, cos, sin, order } = this;
    for (let i = 0; i < size; i++) {
      re[order[i]] = input[i];
      im[order[i]] = 0;
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const a = start + k;
          const b = a + half;
          const c = cos[k * step];
          const s = sin[k * step];
          const x = re[b] * c + im[b] * s;
          const y = im[b] * c - re[b] * s;
          re[b] = re[a] - x;
          im[b] = im[a] - y;
          re[a] += x;
          im[a] += y;
        }
      }
    }
  }
}

// Columns of dB bytes, computed when they are first drawn and kept. Column k lies at k * hop samples.
export class Spectrogram {
  constructor(rate, topHz = 2000, hopS = 0.02, windowS = 0.064) {
    this.hop = Math.max(1, Math.round(rate * hopS));
    this.window = Math.round(rate * windowS);
    this.size = 2 ** Math.ceil(Math.log2(this.window));
    this.topHz = Math.min(topHz, rate / 2);
    this.rows = Math.max(8, Math.floor((this.topHz / rate) * this.size));
    this.fft = new Fft(this.size);
    this.shape = Float64Array.from(
      { length: this.window },
      (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (i + 0.5)) / this.window),
    );
    this.scale = 2 / this.shape.reduce((sum, w) => sum + w, 0);
    this.frame = new Float64Array(this.size);
    this.columns = new Map();
  }

  column(k, samples) {
    const kept = this.columns.get(k);
    if (kept) {
      return kept;
    }
    const begin = k * this.hop - (this.window >> 1);
    const end = begin + this.window;
    const found = new Uint8Array(this.rows);
    if (end < samples.first || begin >= samples.end) {
      return found;
    }
    const raw = samples.read(begin, end);
    for (let i = 0; i < this.window; i++) {
      this.frame[i] = raw[i] * this.shape[i];
    }
    this.fft.run(this.frame);
    for (let row = 0; row < this.rows; row++) {
      const level = Math.hypot(this.fft.re[row + 1], this.fft.im[row + 1]) * this.scale;
      found[row] = Math.max(0, Math.min(255, (20 * Math.log10(level + 1e-9) - FLOOR_DB) / STEP_DB));
    }
    if (end <= samples.end) {
      this.columns.set(k, found); // complete: it will not change
      if (this.columns.size > 20000) {
        this.columns.delete(this.columns.keys().next().value);
      }
    }
    return found;
  }
}

// Loudest byte but for the top percent, of some columns.
export function topOf(columns) {
  const counts = new Uint32Array(256);
  let total = 0;
  for (const column of columns) {
    for (let i = 0; i < column.length; i += 3) {
      counts[column[i]] += 1;
      total += 1;
    }
  }
  let above = 0;
  for (let value = 255; value > 0; value--) {
    above += counts[value];
    if (above > 0.005 * total) {
      return value;
    }
  }
  return 255;
}

const DARK = [[8, 12, 20], [38, 30, 86], [118, 40, 120], [206, 72, 86], [248, 156, 70], [252, 240, 170]];
const LIGHT = [[255, 255, 255], [214, 232, 240], [140, 190, 210], [60, 125, 170], [28, 62, 120], [10, 16, 50]];

// 256 colours for bytes, 60 dB up to `top`.
export function palette(top, dark) {
  const anchors = dark ? DARK : LIGHT;
  const span = 60 / STEP_DB;
  const out = new Uint32Array(256);
  for (let value = 0; value < 256; value++) {
    const place = Math.max(0, Math.min(1, (value - (top - span)) / span)) * (anchors.length - 1);
    const k = Math.min(Math.floor(place), anchors.length - 2);
    const mix = (c) => Math.round(anchors[k][c] + (anchors[k + 1][c] - anchors[k][c]) * (place - k));
    out[value] = (255 << 24) | (mix(2) << 16) | (mix(1) << 8) | mix(0);
  }
  return out;
}

export function wavBlob(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  [[16, 16, 4], [20, 1, 2], [22, 1, 2], [24, rate, 4], [28, 2 * rate, 4], [32, 2, 2], [34, 16, 2]].forEach(
    ([at, value, bytes]) => (bytes === 4 ? view.setUint32(at, value, true) : view.setUint16(at, value, true)),
  );
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, x)) * 32767, true));
  return new Blob([view.buffer], { type: "audio/wav" });
}

// 16-bit PCM of a WAV file as the server renders it.
export function readWav(buffer) {
  const view = new DataView(buffer);
  let at = 12;
  let rate = 0;
  while (at + 8 <= view.byteLength) {
    const name = String.fromCharCode(...new Uint8Array(buffer, at, 4));
    const size = view.getUint32(at + 4, true);
    if (name === "fmt ") {
      rate = view.getUint32(at + 12, true);
    } else if (name === "data") {
      const pcm = new Int16Array(buffer.slice(at + 8, at + 8 + (Math.min(size, view.byteLength - at - 8) & ~1)));
      return { rate, samples: Float32Array.from(pcm, (x) => x / 32768) };
    }
    at += 8 + size + (size & 1);
  }
  throw new Error("the audio cannot be read");
}
