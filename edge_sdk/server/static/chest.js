// The chest map, front and back: twelve points as buttons. Drawn for this project.

const NS = "http://www.w3.org/2000/svg";

// Place of each point on its body shape; front as seen by the examiner: the patient's right is on the left.
const PLACES = {
  "right upper front": [105, 128], "left upper front": [195, 128],
  "right middle front": [98, 192], "left middle front": [202, 192],
  "right lower front": [80, 262], "left lower front": [220, 262],
  "left upper back": [445, 120], "right upper back": [555, 120],
  "left middle back": [452, 190], "right middle back": [548, 190],
  "left lower back": [440, 262], "right lower back": [560, 262],
};

function shape(name, attributes, ...children) {
  const found = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) {
    found.setAttribute(key, value);
  }
  found.append(...children);
  return found;
}

function torso(x) {
  const at = (px) => px + x;
  const outline = `M ${at(125)} 18 C ${at(124)} 40 ${at(120)} 48 ${at(92)} 58 C ${at(50)} 70 ${at(30)} 84 ${at(24)} 128 `
    + `C ${at(20)} 160 ${at(26)} 190 ${at(34)} 210 L ${at(48)} 205 C ${at(48)} 260 ${at(54)} 320 ${at(58)} 372 `
    + `L ${at(242)} 372 C ${at(246)} 320 ${at(252)} 260 ${at(252)} 205 L ${at(266)} 210 C ${at(274)} 190 ${at(280)} 160 ${at(276)} 128 `
    + `C ${at(270)} 84 ${at(250)} 70 ${at(208)} 58 C ${at(180)} 48 ${at(176)} 40 ${at(175)} 18 Z`;
  return shape("path", { d: outline, class: "body-shape" });
}

function lungs(x) {
  const at = (px) => px + x;
  const side = (sign) => {
    const c = 150;
    const px = (d) => at(c + sign * d);
    return `M ${px(14)} 92 C ${px(40)} 78 ${px(62)} 96 ${px(74)} 150 C ${px(88)} 210 ${px(92)} 262 ${px(86)} 300 C ${px(56)} 306 ${px(28)} 292 ${px(16)} 268 Z`;
  };
  return [shape("path", { d: side(-1), class: "body-line" }), shape("path", { d: side(1), class: "body-line" })];
}

export class ChestMap {
  constructor(host, points, onChoose) {
    this.points = {};
    const svg = shape("svg", { viewBox: "0 0 650 392", role: "group", "aria-label": "Chest map, twelve points" });
    svg.append(torso(0), ...lungs(0), torso(350), ...lungs(350));
    svg.append(shape("path", { d: "M 150 96 L 150 330", class: "body-line" }), shape("path", { d: "M 500 60 L 500 360", class: "body-line", "stroke-dasharray": "4 5" }));
    for (const [x, text] of [[150, "Front"], [500, "Back"], [60, "R"], [240, "L"], [410, "L"], [590, "R"]]) {
      const caption = shape("text", { x, y: 388, class: "caption" });
      caption.textContent = text;
      svg.append(caption);
    }
    points.forEach((name, i) => {
      const [x, y] = PLACES[name];
      const label = shape("text", { x, y: y + 5 });
      label.textContent = String(i + 1);
      const button = shape("g", { class: "point", role: "button", tabindex: "0", "data-point": name }, shape("circle", { cx: x, cy: y, r: 34, class: "reach" }), shape("circle", { cx: x, cy: y, r: 23 }), label);
      button.addEventListener("click", () => onChoose(name));
      button.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          onChoose(name);
        }
      });
      svg.append(button);
      this.points[name] = { button, label, number: i + 1 };
    });
    host.replaceChildren(svg);
  }

  // state: "missing", "recording", or a verdict; the mark on a point says it without colour too.
  set(name, state, chosen) {
    const { button, label, number } = this.points[name];
    button.setAttribute("class", ["point", state === "missing" ? "" : state, chosen ? "chosen" : ""].filter(Boolean).join(" "));
    button.setAttribute("aria-label", `Point ${number}, ${name}: ${state === "missing" ? "not recorded yet" : state}`);
    button.setAttribute("aria-pressed", String(chosen));
    label.textContent = { normal: "✓", abnormal: "!", uncertain: "?", recording: "●" }[state] || String(number);
  }
}
