// Front page: marks the ability that is shown large, and keeps the story open that the reader chose.
"use strict";

function markShown() {
  const shown = document.querySelector("#hero-chart [data-chart]")?.id;
  for (const curve of document.querySelectorAll("[data-curve]")) {
    curve.toggleAttribute("aria-current", curve.hash === `#${shown}`);
  }
}

let story = null;
document.addEventListener("toggle", (event) => {
  if (event.target.matches?.(".story") && event.target.open) story = event.target.querySelector("summary").textContent;
}, true);

document.addEventListener("htmx:load", (event) => {
  markShown();
  if (!event.detail.elt.matches?.("#words") || story === null) return;
  for (const details of document.querySelectorAll(".story")) {
    details.open = details.querySelector("summary").textContent === story;
  }
});
markShown();
