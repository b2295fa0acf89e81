// The chart alone, in a frame on another site; its address is a view of the growth page.
import { drawFocus } from "./focus.js";
import { read } from "./view.js";

const root = document.querySelector("[data-growth]");
const words = JSON.parse(document.getElementById("growth-words").textContent);
const view = read(location.search);
if (!view.tasks.length) view.tasks = root.dataset.first.split(",").filter(Boolean).slice(0, 1);

async function show() {
  try {
    await drawFocus(root.dataset.run, view, words);
  } catch {
    document.getElementById("focus-plot").textContent = words.broken;
  }
  document.documentElement.dataset.ready = "true";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
show();
