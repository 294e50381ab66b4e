// The page: which part is shown, theme, and what the server says about itself.

import { get, post } from "./api.js";
import { GuidedPage } from "./guided.js";
import { LivePage } from "./live.js";
import { RecordingsPage } from "./recordings.js";
import { ReviewPage } from "./review.js";
import { byId, isDark, problem } from "./show.js";

const pages = {};

function route(info) {
  const [name, id] = location.hash.replace(/^#/, "").split("/");
  const page = name === "recording" && id ? "recording" : ["live", "recordings", "examination"].includes(name) ? name : info.live ? "live" : "recordings";
  for (const other of ["live", "recordings", "recording", "examination"]) {
    byId(`page-${other}`).hidden = other !== page;
  }
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.dataset.page === page || (page === "recording" && link.dataset.page === "recordings");
    if (current) {
      link.setAttribute("aria-current", "page");
    } else {
      link.removeAttribute("aria-current");
    }
  }
  problem(null);
  for (const [other, shown] of Object.entries(pages)) {
    if (other !== page && shown.hide) {
      shown.hide();
    }
  }
  Promise.resolve(pages[page].show(id && decodeURIComponent(id))).catch(problem);
}

function themeButton() {
  const button = byId("theme");
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
    button.removeAttribute("aria-pressed");
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("stetho-theme", document.documentElement.dataset.theme);
    } catch (error) {
      problem(null); // storage may be forbidden; the choice holds for this page
    }
    show();
    document.dispatchEvent(new Event("stetho-theme"));
  });
  show();
}

async function start() {
  themeButton();
  const info = await get("/api/info");
  byId("notice").textContent = info.notice;
  byId("about").textContent = `stetho ${info.version}, bundle ${info.bundle.name} ${info.bundle.version}`;
  const logout = byId("logout");
  logout.hidden = !info.token_needed;
  logout.addEventListener("click", async () => {
    await post("/logout");
    location.replace("/login");
  });
  pages.live = new LivePage();
  pages.recordings = new RecordingsPage(info);
  pages.recording = new ReviewPage(info);
  pages.examination = new GuidedPage(info);
  if (!info.live) {
    byId("live-source").textContent = "no live source: start the server with --source";
  }
  window.addEventListener("hashchange", () => route(info));
  route(info);
  document.body.dataset.ready = "1";
}

start().catch(problem);
