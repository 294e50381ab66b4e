// The list of recordings, and uploads by drag and drop.

import { get, upload } from "./api.js";
import { byId, element, number, problem, reason, seconds, verdictDetail, when } from "./show.js";

const AT_ONCE = 2; // uploads sent at the same time
const SITES = ["trachea", "left anterior", "right anterior", "left posterior", "right posterior", "left lateral", "right lateral"];

export class RecordingsPage {
  constructor() {
    this.rows = [];
    this.waiting = [];
    this.sending = 0;
    byId("upload-site").append(element("option", { value: "" }, "not given"), ...SITES.map((site) => element("option", {}, site)));
    for (const id of ["find", "find-verdict"]) {
      byId(id).addEventListener("input", () => this.render());
    }
    byId("upload-files").addEventListener("change", (event) => {
      this.add([...event.target.files]);
      event.target.value = "";
    });
    byId("upload-form").addEventListener("submit", (event) => event.preventDefault());
    const drop = byId("drop");
    for (const name of ["dragenter", "dragover"]) {
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    for (const name of ["dragleave", "drop"]) {
      drop.addEventListener(name, () => drop.classList.remove("over"));
    }
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
    for (const name of ["dragover", "drop"]) {
      window.addEventListener(name, (event) => event.preventDefault()); // a file beside the field opens nothing
    }
  }

  async show() {
    await this.load();
  }

  async load() {
    const found = await get("/api/recordings?limit=500");
    this.rows = found.recordings;
    this.total = found.total;
    this.render();
  }

  render() {
    const wanted = byId("find").value.trim().toLowerCase();
    const verdict = byId("find-verdict").value;
    const rows = this.rows.filter((row) => {
      const text = [row.patient, row.site, row.point, row.verdict, row.source, row.id].join(" ").toLowerCase();
      return text.includes(wanted) && (!verdict || row.verdict === verdict);
    });
    byId("recordings").replaceChildren(...rows.map((row) => this.row(row)));
    byId("recordings-count").textContent = rows.length === this.total ? `${this.total}` : `${rows.length} of ${this.total}`;
    byId("recordings-empty").hidden = this.rows.length > 0;
    byId("corpus").hidden = !this.rows.some((row) => row.corrections || row.locked);
  }

  row(row) {
    const cell = (name, text, attributes = {}) => element("td", { "data-name": name, ...attributes }, text);
    const verdict = element("td", { class: row.verdict || "" }, row.verdict || (row.complete ? "–" : "being recorded"), " ",
      element("span", { class: "soft" }, verdictDetail(row)));
    const review = [row.corrections ? `${row.corrections} corrected` : "", row.locked ? "locked" : ""].filter(Boolean).join(", ");
    return element("tr", { "data-id": row.id },
      element("td", {}, element("a", { href: `#recording/${encodeURIComponent(row.id)}` }, when(row.started))),
      cell("patient", row.patient || "–"), cell("site", row.point || row.site || "–"), cell("length", seconds(row.duration_s)),
      cell("cycles", row.cycles === null || row.cycles === undefined ? "–" : String(row.cycles)), cell("rate", number(row.respiratory_rate_bpm)), verdict,
      cell("quality", row.quality === "ok" ? "good" : reason(row.quality) || "–"), cell("review", review || "–"));
  }

  add(files) {
    for (const file of files) {
      const bar = element("progress", { max: "1", value: "0", "aria-label": `Progress of ${file.name}` });
      const text = element("span", { class: "soft" }, "waiting");
      const line = element("li", { "data-state": "waiting" }, element("span", {}, file.name), bar, text);
      byId("upload-list").append(line);
      this.waiting.push({ file, bar, text, line });
    }
    this.next();
  }

  next() {
    while (this.sending < AT_ONCE && this.waiting.length) {
      this.sending += 1;
      const one = this.waiting.shift();
      this.send(one)
        .catch((error) => this.state(one, "failed", error.message))
        .finally(() => {
          this.sending -= 1;
          this.next();
        });
    }
  }

  state(one, state, text) {
    one.line.dataset.state = state;
    one.text.textContent = text;
    one.text.className = state === "failed" ? "abnormal" : "soft";
    if (state === "failed" || state === "done") {
      one.bar.value = state === "done" ? 1 : 0;
    }
  }

  async send(one) {
    const query = { patient: byId("upload-patient").value.trim(), site: byId("upload-site").value };
    if (byId("upload-names").checked) {
      query.code_from_name = "1";
    }
    this.state(one, "sending", "sending");
    let job = null;
    while (job === null) {
      try {
        job = await upload(one.file, query, (share) => (one.bar.value = share / 2));
      } catch (error) {
        if (error.status !== 429) {
          throw error;
        }
        this.state(one, "waiting", error.message);
        await new Promise((resolve) => setTimeout(resolve, 5000));
      }
    }
    while (job.state === "waiting" || job.state === "screening") {
      this.state(one, job.state, job.state === "waiting" ? "waiting for screening" : "screening");
      one.bar.value = 0.5 + job.progress / 2;
      await new Promise((resolve) => setTimeout(resolve, 300));
      job = await get(`/api/uploads/${job.id}`);
    }
    if (job.state === "failed") {
      this.state(one, "failed", job.message);
      return;
    }
    this.state(one, "done", "");
    one.text.append(element("a", { href: `#recording/${encodeURIComponent(job.recording)}` }, "open"));
    await this.load().catch(problem);
  }
}
