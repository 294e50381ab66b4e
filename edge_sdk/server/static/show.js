// Words, numbers and colours, the same everywhere on the page.

export function element(name, attributes = {}, ...children) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") {
      found.className = value;
    } else if (key.startsWith("on")) {
      found.addEventListener(key.slice(2), value);
    } else if (value === true || value === false) {
      found.toggleAttribute(key, value);
    } else if (value !== null && value !== undefined) {
      found.setAttribute(key, value);
    }
  }
  found.append(...children);
  return found;
}

export const byId = (id) => document.getElementById(id);

export const seconds = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(2)} s`);

export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)} %`);

export const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? "–" : date.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

const REASONS = {
  "too-little-audio": "too little audio yet",
  "poor-quality": "poor quality",
  unfamiliar: "unlike the audio it was calibrated on",
  "too-few-points": "too few points recorded",
  "uncertain-points": "some points are uncertain",
  "too-few-cycles": "too few labelled cycles yet",
  "waiting for audio": "waiting for audio",
  silence: "silence: is the stethoscope on?",
  "no-contact": "no contact: press the head to the skin",
  clipping: "clipping: lower the volume",
  noisy: "noise: be quiet, hold still",
  "not-breathing": "no breathing found",
  "too-short": "too short",
};

export const reason = (name) => REASONS[name] || name || "";

export function verdictDetail(row) {
  if (row.verdict_reason) {
    return reason(row.verdict_reason);
  }
  return row.p_abnormal === null || row.p_abnormal === undefined ? "" : `p(abnormal) ${row.p_abnormal.toFixed(2)}`;
}

export function labelOf(cycle) {
  if (cycle.label === null || cycle.label === undefined) {
    return cycle.quality;
  }
  const p = (cycle.probabilities || {})[cycle.label];
  return p === undefined ? cycle.label : `${cycle.label} ${Math.round(100 * p)}%`;
}

// Colours of labels: light theme, dark theme. Texts say the same, so that nothing depends on colour.
const COLOURS = {
  normal: ["#1d6f42", "#71d69b"],
  crackle: ["#8a4b00", "#f2b45d"],
  wheeze: ["#8e2a7d", "#eb9be0"],
  both: ["#a3241f", "#ff9d94"],
  other: ["#5b3bb0", "#bba8ff"],
};

export const isDark = () => document.documentElement.dataset.theme === "dark";

export function colourOf(label) {
  const pair = COLOURS[label] || ["#51606e", "#a7b4c0"];
  return pair[isDark() ? 1 : 0];
}

export function problem(error) {
  const line = byId("problem");
  line.textContent = error ? String(error.message || error) : "";
  line.hidden = !error;
}
