// Tooltips under a finger: a tap brings one up, and it stays until a tap elsewhere. What follows a tap by itself, within
// a moment, is not meant for the tooltip: a click where the finger is, which may be on one of its links, and the mouse
// leaving it, because the tooltip has just been put elsewhere; ECharts would hide it at once.
import { touch } from "./theme.js";

const tapMs = 400;
let shownAt = -tapMs;

export function noteShown() {
  shownAt = performance.now();
}

function followsTap() {
  return performance.now() - shownAt < tapMs;
}

document.addEventListener("click", (event) => {
  if (event.target.closest?.(".chart-tip a") && followsTap()) event.preventDefault();
}, true);
document.addEventListener("mouseleave", (event) => {
  if (touch.matches && event.target.matches?.(".chart-tip") && followsTap()) event.stopPropagation();
}, true);
document.addEventListener("pointerdown", (event) => {
  if (!touch.matches) return;
  for (const tip of document.querySelectorAll(".chart-tip")) {
    if (!tip.parentElement.contains(event.target)) tip.dispatchEvent(new MouseEvent("mouseleave"));
  }
});
