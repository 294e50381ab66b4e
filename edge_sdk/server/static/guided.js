// The guided examination: point after point until the quality gate is content, one verdict for all.

import { get, post, webSocket } from "./api.js";
import { ChestMap } from "./chest.js";
import { Microphone } from "./microphone.js";
import { byId, element, problem, reason, verdictDetail } from "./show.js";

export class GuidedPage {
  constructor(info) {
    this.info = info;
    this.names = Object.keys(info.points);
    this.map = new ChestMap(byId("chest"), this.names, (name) => this.choose(name));
    this.examination = null;
    this.chosen = this.names[0];
    this.recording = null;
    byId("examination-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.begin().catch((error) => (byId("examination-status").textContent = error.message));
    });
    byId("point-record").addEventListener("click", () => this.record().catch((error) => this.fail(error)));
    byId("point-stop").addEventListener("click", () => this.stop());
    byId("examination-finish").addEventListener("click", () => this.finish().catch((error) => this.fail(error)));
    const source = byId("examination-source");
    if (!info.live) {
      source.value = "microphone";
      source.querySelector("[value=live]").disabled = true;
    }
  }

  show() {
    this.render();
  }

  hide() {
    this.stop();
  }

  async begin() {
    const metadata = {};
    for (const [key, id] of [["age_years", "examination-age"], ["sex", "examination-sex"]]) {
      if (byId(id).value) {
        metadata[key] = key === "age_years" ? Number(byId(id).value) : byId(id).value;
      }
    }
    this.metadata = metadata;
    this.examination = await post("/api/examinations", { patient: byId("examination-patient").value.trim(), metadata });
    this.chosen = this.names[0];
    byId("examination-work").hidden = false;
    byId("examination-verdict").hidden = true;
    byId("examination-status").textContent = "";
    this.idle("Press Record when the stethoscope is on the point.");
    this.render();
    byId("point-record").focus();
  }

  choose(name) {
    if (!this.recording && this.examination && !this.examination.complete) {
      this.chosen = name;
      this.idle("Press Record when the stethoscope is on the point.");
      this.render();
    }
  }

  idle(text) {
    byId("point-state").textContent = "ready";
    byId("point-state").className = "big";
    byId("point-reason").textContent = text;
    byId("point-progress").value = 0;
  }

  async record() {
    if (this.recording) {
      return;
    }
    const point = this.chosen;
    const run = { point, socket: null, microphone: null, content: false, failed: null };
    this.recording = run;
    this.render();
    const header = {
      patient: byId("examination-patient").value.trim() || undefined,
      metadata: { ...this.metadata, site: this.info.points[point] },
      examination: this.examination.id, point, until: "content",
    };
    const socket = webSocket("/api/streams");
    run.socket = socket;
    const opened = new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("error", () => reject(new Error("no connection to the server")));
    });
    const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
    socket.addEventListener("message", (event) => this.line(run, JSON.parse(event.data)));
    try {
      await opened;
      if (byId("examination-source").value === "live") {
        socket.send(JSON.stringify({ ...header, source: "live" }));
      } else {
        run.microphone = new Microphone();
        const waiting = [];
        let ready = false;
        const format = await run.microphone.open((frame) => {
          if (!ready) {
            waiting.push(frame);
          } else if (socket.readyState === WebSocket.OPEN) {
            socket.send(frame);
          }
        });
        socket.send(JSON.stringify({ ...header, ...format }));
        waiting.forEach((frame) => socket.send(frame));
        ready = true;
      }
      await closed;
    } finally {
      if (run.microphone) {
        await run.microphone.close();
      }
      if (socket.readyState <= WebSocket.OPEN) {
        socket.close();
      }
      this.recording = null;
    }
    this.examination = await get(`/api/examinations/${this.examination.id}`);
    if (run.failed) {
      this.fail(new Error(run.failed));
    } else if (run.content) {
      this.chosen = this.examination.missing[0] || point;
      this.idle(this.examination.missing.length ? `${point}: done. Move to the next point.` : "All points are recorded: finish the examination.");
    } else {
      this.idle(`${point}: stopped before the recording was good enough; record it again or go on.`);
    }
    this.render();
  }

  line(run, line) {
    if (line.type === "point") {
      run.content = line.content;
      const share = Math.min(1, line.usable_s / line.needed_s, line.content ? 1 : 0.99);
      byId("point-progress").value = share;
      byId("point-state").textContent = line.content ? "good" : line.quality === "ok" || line.quality === "none" ? "recording" : "hold on";
      byId("point-state").className = `big ${line.content ? "normal" : line.quality === "ok" ? "" : "uncertain"}`;
      byId("point-reason").textContent = `${line.content ? "the quality gate is content" : reason(line.reason)} · ${line.usable_s.toFixed(0)} of ${line.needed_s} s usable, ${line.cycles} cycles`;
    } else if (line.type === "error") {
      run.failed = line.message;
    }
  }

  stop() {
    const run = this.recording;
    if (run && run.socket && run.socket.readyState === WebSocket.OPEN) {
      run.socket.send(JSON.stringify({ type: "end" }));
    }
  }

  fail(error) {
    byId("point-state").textContent = "failed";
    byId("point-state").className = "big abnormal";
    byId("point-reason").textContent = error.message;
    this.render();
  }

  async finish() {
    this.stop();
    this.examination = await post(`/api/examinations/${this.examination.id}/finish`);
    this.render();
  }

  render() {
    const exam = this.examination;
    if (!exam) {
      return;
    }
    problem(null);
    const busy = this.recording !== null;
    byId("point-title").textContent = `Point ${this.names.indexOf(this.chosen) + 1}: ${this.chosen}`;
    byId("point-record").disabled = busy || exam.complete;
    byId("point-stop").disabled = !busy;
    byId("examination-finish").disabled = busy || exam.complete;
    for (const name of this.names) {
      const row = exam.points[name];
      const state = busy && this.recording.point === name ? "recording" : row ? row.verdict || "uncertain" : "missing";
      this.map.set(name, state, name === this.chosen);
    }
    byId("points").replaceChildren(...this.names.map((name, i) => {
      const row = exam.points[name];
      const text = row ? element("a", { href: `#recording/${encodeURIComponent(row.recording)}`, class: row.verdict || "" }, [row.verdict || "–", verdictDetail(row)].filter(Boolean).join(", "))
        : element("span", { class: "soft" }, "missing");
      return element("li", { "data-point": name }, element("span", {}, `${i + 1} ${name}`), text);
    }));
    byId("examination-status").textContent = exam.missing.length ? `${exam.missing.length} points missing` : "all points recorded";
    const box = byId("examination-verdict");
    box.hidden = !exam.complete;
    box.className = `verdict-box ${exam.verdict}`;
    box.textContent = `Examination: ${exam.verdict}${exam.verdict_reason ? ` (${reason(exam.verdict_reason)})` : ""}`
      + `${exam.missing.length ? `; not recorded: ${exam.missing.join(", ")}` : ""}`;
  }
}
