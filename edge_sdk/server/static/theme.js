// Light or dark before the first paint: as chosen on this device, else as the system is.
"use strict";

(function () {
  let chosen = null;
  try {
    chosen = localStorage.getItem("stetho-theme");
  } catch (error) {
    // storage may be forbidden; the system's choice holds
  }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen || (dark ? "dark" : "light");
})();
