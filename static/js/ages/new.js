// Choosing who is asked: another run is another page, and the wait to expect follows what is chosen.
import { watchKnobs } from "../chat/composer.js";

const calmMs = 300;
const lookMs = 10_000;
const form = document.getElementById("composer");
const note = document.getElementById("ages-wait");
const series = document.querySelector("[data-series]");
let timer = 0;

async function ask() {
  clearTimeout(timer);
  timer = setTimeout(ask, lookMs);
  if (document.hidden) return;
  const chosen = new URLSearchParams(new FormData(form));
  ["csrf_token", "prompt", "system", "seed"].forEach((name) => chosen.delete(name));
  try {
    const answer = await fetch(`${form.dataset.waitAt}?${chosen}`, { headers: { accept: "application/json" } });
    note.textContent = answer.ok ? (await answer.json()).text : "";
  } catch {
    note.textContent = ""; // the banner says it when the site is away
  }
}

function askSoon() {
  clearTimeout(timer);
  timer = setTimeout(ask, calmMs);
}

series?.addEventListener("change", () => {
  const typed = document.getElementById("prompt").value;
  sessionStorage.setItem("film-prompt", typed);
  series.form.requestSubmit();
});

if (form) {
  const box = document.getElementById("prompt");
  const typed = sessionStorage.getItem("film-prompt");
  if (series && typed !== null && !box.value) box.value = typed;
  sessionStorage.removeItem("film-prompt");
  watchKnobs(form);
  form.addEventListener("change", (event) => {
    // Who ticks an age means to choose by hand, and who gives a number does not.
    if (event.target.name === "step") form.querySelector("[name=how][value=hand]").checked = true;
    if (event.target.name === "count" && form.querySelector("[name=how]:checked")?.value !== "last") form.querySelector("[name=how][value=spread]").checked = true;
    const hand = form.querySelector(".ages-hand");
    if (event.target.name === "how" && event.target.value === "hand") hand.open = true;
    if (event.target.name !== "prompt") askSoon();
  });
  document.addEventListener("visibilitychange", askSoon);
  ask();
}
