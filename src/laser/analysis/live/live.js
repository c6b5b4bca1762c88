"use strict";
const live = document.getElementById("live");
const word = document.getElementById("word");
const button = document.getElementById("pause");
let tag = "";
let paused = false;

// Positions of what a reader has opened, scrolled to or focused; elements are told by their place among their like.
function places() {
  const boxes = [...live.querySelectorAll("[tabindex], summary, a")];
  return {
    open: [...live.querySelectorAll("details")].map((one) => one.open),
    left: [...live.querySelectorAll(".scroll")].map((one) => one.scrollLeft),
    focus: boxes.indexOf(document.activeElement),
  };
}

function put(kept) {
  live.querySelectorAll("details").forEach((one, at) => { one.open = kept.open[at] || false; });
  live.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = kept.left[at] || 0; });
  if (kept.focus >= 0) {
    const box = live.querySelectorAll("[tabindex], summary, a")[kept.focus];
    if (box) box.focus({ preventScroll: true });
  }
}

function show(html) {
  const kept = places();
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  live.replaceChildren(...fresh.childNodes);
  put(kept);
  const state = live.querySelector("[data-state]");
  if (state && word.textContent !== state.dataset.state) word.textContent = state.dataset.state;
}

async function refresh() {
  if (!paused && !document.hidden) {
    try {
      const reply = await fetch("fragment", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (reply.status === 200) {
        tag = reply.headers.get("ETag") || "";
        show(await reply.text());
      } else if (reply.status !== 304) {
        word.textContent = "the watcher refused: " + reply.status;
      }
    } catch (error) {
      word.textContent = "no answer; is laser watch still running?";
      tag = "";
    }
  }
  setTimeout(refresh, 2000);
}

button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Go on updating" : "Pause updates";
});
refresh();
