"use strict";
const word = document.getElementById("word");
const button = document.getElementById("pause");
const PLACES = "[tabindex], summary, a";
const shown = {};
for (const id of ["live", "report"]) shown[id] = document.getElementById(id).innerHTML;
let tag = "";
let paused = false;

// What a reader has opened, scrolled to or focused in a part of the page, by its place among elements of its kind.
function places(part) {
  return {
    open: [...part.querySelectorAll("details")].map((one) => one.open),
    left: [...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft),
    focus: [...part.querySelectorAll(PLACES)].indexOf(document.activeElement),
  };
}

function restore(part, kept) {
  part.querySelectorAll("details").forEach((one, at) => { one.open = kept.open[at] || false; });
  part.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = kept.left[at] || 0; });
  const focused = kept.focus < 0 ? null : part.querySelectorAll(PLACES)[kept.focus];
  if (focused) focused.focus({ preventScroll: true });
}

function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const id of Object.keys(shown)) {
    const part = document.getElementById(id), next = fresh.getElementById(id);
    if (next.innerHTML === shown[id]) continue;
    shown[id] = next.innerHTML;
    const kept = places(part);
    part.replaceChildren(...next.childNodes);
    restore(part, kept);
  }
  const state = fresh.getElementById("live").dataset.state;
  if (word.textContent !== state) word.textContent = state;
}

async function refresh() {
  if (!paused && !document.hidden) {
    try {
      const reply = await fetch("/", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (reply.status === 200) {
        tag = reply.headers.get("ETag") || "";
        show(await reply.text());
      } else if (reply.status !== 304) {
        word.textContent = "laser watch refused: " + reply.status;
      }
    } catch (error) {
      word.textContent = "no answer; check that laser watch is still running";
      tag = "";
    }
  }
  setTimeout(refresh, 2000);
}

button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Resume updates" : "Pause updates";
});
setTimeout(refresh, 2000);
