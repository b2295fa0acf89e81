// Every page: the light/dark button, and live refresh of elements that say what they wait for.
"use strict";

// Light or dark. The cookie lets the server send the right colours at once: no flash on loading.
document.getElementById("theme-button")?.addEventListener("click", () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const next = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  root.dataset.theme = next;
  document.cookie = `theme=${next};path=/;max-age=31536000;samesite=lax`;
  document.dispatchEvent(new CustomEvent("themechange"));
});

// Live elements: <div data-live="evaluation:demo checkpoint:demo" hx-get="…" hx-trigger="refresh">.
// A board event of that kind and run (or of any run: "post:*"), and of that task and step where they
// are given ("evaluation:demo:zh_bits", "evaluation:demo::1750"), triggers "refresh" on them,
// at most once in `calmMs`, so a burst of results is one request.
const calmMs = 900;
const waiting = new Map();
const kinds = ["checkpoint", "evaluation", "metrics", "post", "prompt", "job"];
let source = null;

function hears(element, kind, data) {
  return element.dataset.live.split(" ").some((wanted) => {
    const [wantedKind, run, task, step] = wanted.split(":");
    return wantedKind === kind && (run === "*" || run === data.run)
      && (!task || task === data.task) && (!step || step === String(data.step));
  });
}

// What the reader has unfolded stays unfolded when its surroundings are replaced.
const unfolded = new Set();
document.addEventListener("htmx:beforeSwap", (event) => {
  for (const details of event.detail.target.querySelectorAll("details[id][open]")) unfolded.add(details.id);
});
document.addEventListener("htmx:afterSettle", () => {
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
  unfolded.clear();
});

function refreshSoon(element) {
  if (waiting.has(element)) return;
  waiting.set(element, setTimeout(() => {
    waiting.delete(element);
    if (element.isConnected) htmx.trigger(element, "refresh");
  }, calmMs));
}

function onBoard(kind, message) {
  const data = JSON.parse(message.data);
  for (const element of document.querySelectorAll("[data-live]")) {
    if (hears(element, kind, data)) refreshSoon(element);
  }
}

function watch() {
  if (source || !document.querySelector("[data-live]")) return;
  source = new EventSource("/events/board");
  for (const kind of kinds) source.addEventListener(kind, (message) => onBoard(kind, message));
}

// Browsers allow six connections to a site: hidden tabs give theirs back, and catch up when shown.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
  } else {
    watch();
    document.querySelectorAll("[data-live]").forEach(refreshSoon);
  }
});
watch();
