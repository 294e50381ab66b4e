for (const section of document.querySelectorAll(".recording")) {
  const audio = section.querySelector("audio");
  const box = section.querySelector(".strip-box");
  if (!audio || !box) continue;
  const head = box.querySelector(".playhead");
  const left = Number(box.dataset.left), scale = Number(box.dataset.scale), seconds = Number(box.dataset.seconds);
  let until = Infinity;
  const show = () => {
    const x = left + Math.min(audio.currentTime, seconds) * scale;
    head.hidden = false;
    head.style.left = `${x}px`;
    if (audio.currentTime >= until) { audio.pause(); until = Infinity; }
    if (!audio.paused) {
      if (x < box.scrollLeft || x > box.scrollLeft + box.clientWidth - 40) box.scrollLeft = x - 60;
      requestAnimationFrame(show);
    }
  };
  audio.addEventListener("play", show);
  audio.addEventListener("seeked", show);
  const play = (from, to) => { until = to; audio.currentTime = from; audio.play(); };
  box.querySelector("svg").addEventListener("click", (event) => {
    const x = event.clientX - box.getBoundingClientRect().left + box.scrollLeft;
    const from = (x - left) / scale;
    if (from >= 0 && from < seconds) play(from, Infinity);
  });
  for (const button of section.querySelectorAll("button[data-from]"))
    button.addEventListener("click", () => play(Number(button.dataset.from), Number(button.dataset.to)));
  section.querySelector("select").addEventListener("change", (event) => {
    audio.playbackRate = Number(event.target.value);
  });
}
