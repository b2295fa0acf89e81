// The growth page: the view in the address, the cards that are near, the large chart, live results.
import { drawCard } from "./card.js";
import { address, forget, sources } from "./data.js";
import { clear, draw } from "./chart.js";
import { drawFocus } from "./focus.js";
import { layersOf, sourceName } from "./layers.js";
import { css, dashNames, overlays } from "../theme.js";
import { savePng, saveSvg, saveText } from "./pictures.js";
import { fill, fromForm, read, write } from "./view.js";

const root = document.querySelector("[data-growth]");
const form = document.getElementById("view");
const words = JSON.parse(document.getElementById("growth-words").textContent);
const { run } = root.dataset;
const cards = [...root.querySelectorAll("[data-card]")];
const near = new Set();
let view = read(location.search);
let large = null;

function say(text) {
  document.getElementById("growth-said").textContent = text;
}

// Cards

function showPins(posts) {
  const list = document.getElementById("pin-list");
  document.getElementById("pins").hidden = !posts.length;
  list.replaceChildren(...posts.map((post) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `/news/${post.id}`;
    link.textContent = post.title;
    item.append(post.kind === "incident" ? "⚠ " : "✎ ", link, ` ${words.step} ${post.step}${post.kind === "incident" ? ` · ${words.incident}` : ""}`);
    return item;
  }));
}

let pinsFor = "";
async function show(card, extra) {
  const found = await drawCard(card, run, view, words, extra);
  if (found && pinsFor !== view.x) {
    pinsFor = view.x;
    showPins(found.posts);
  }
}

// <html data-ready> says that everything in sight is drawn.
let pending = 0;
async function busy(work) {
  pending += 1;
  delete document.documentElement.dataset.ready;
  try {
    await work;
  } finally {
    pending -= 1;
    if (!pending) document.documentElement.dataset.ready = "true";
  }
}

const watcher = new IntersectionObserver((entries) => {
  const fresh = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
  for (const entry of entries) {
    if (entry.isIntersecting) near.add(entry.target);
    else near.delete(entry.target);
  }
  // What was drawn in this view stays; another view is drawn when the card comes near again.
  busy(Promise.all(fresh.filter((card) => card.dataset.view !== viewKey()).map((card) => {
    card.dataset.view = viewKey();
    return show(card);
  })));
}, { rootMargin: "240px" });

function viewKey() {
  return write({ ...view, tasks: [], zoom: "" });
}

function redraw() {
  for (const card of near) card.dataset.view = viewKey();
  legend();
  busy(Promise.all([...near].map((card) => show(card))));
  busy(showLarge());
}

// Which line is which, where several runs or precisions lie over each other.
function legend() {
  const found = sources(run, view).filter((source) => !source.isPast);
  const list = document.getElementById("legend");
  list.hidden = found.length < 2;
  list.replaceChildren(...found.map((source, at) => {
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.borderTopColor = at ? css(overlays[(at - 1) % overlays.length]) : css("ink-soft");
    swatch.style.borderTopStyle = dashNames[at % dashNames.length];
    item.append(swatch, sourceName(source, words));
    return item;
  }));
  for (const menu of form.querySelectorAll(".overlays")) {
    const count = menu.querySelectorAll("input:checked").length;
    menu.parentElement.querySelector("[data-count]").textContent = count ? `(${count})` : "";
  }
}

// The large chart

async function showLarge(extra = {}) {
  const box = document.getElementById("focus");
  box.hidden = !view.tasks.length;
  if (box.hidden) {
    large = null;
    document.getElementById("microscope").replaceChildren();
    return;
  }
  try {
    const found = await drawFocus(run, view, words, { ...extra, onRemove: remove, onZoom: (zoom) => go({ ...view, zoom }, { quiet: true }) });
    if (found) large = found;
  } catch {
    document.getElementById("focus-note").hidden = false;
    document.getElementById("focus-note").textContent = words.broken;
  }
  await showMicroscope();
}

async function showMicroscope() {
  const place = document.getElementById("microscope");
  if (view.tasks.length !== 1) {
    place.replaceChildren();
    return;
  }
  const [task] = view.tasks;
  const answer = await fetch(`/runs/${encodeURIComponent(run)}/microscope/${encodeURIComponent(task)}?x=${view.x}`);
  if (!answer.ok || view.tasks[0] !== task) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const plot of place.querySelectorAll(".plot")) clear(plot);
  place.replaceChildren(...page.body.children);
  await Promise.all([...place.querySelectorAll("[data-lens]")].map(async (lens) => {
    const through = { ...view, y: lens.dataset.lens, smooth: 0, runs: [], variants: [], zoom: "" };
    const { layers } = await layersOf(run, through, [task], words);
    if (layers[0].lines.length) draw(lens.querySelector(".plot"), layers, through, { small: true, words, pins: [], named: false });
  }));
}

function enlarge(tasks) {
  go({ ...view, tasks, zoom: "" }, { push: true });
  document.getElementById("focus").scrollIntoView({ block: "nearest" });
  document.getElementById("focus-plot").focus({ preventScroll: true });
}

function remove(task) {
  go({ ...view, tasks: view.tasks.filter((one) => one !== task) }, { push: true });
}

// The view

function go(next, { push = false, quiet = false } = {}) {
  const isLargeOnly = viewKey() === write({ ...next, tasks: [], zoom: "" });
  view = next;
  history[push ? "pushState" : "replaceState"](null, "", location.pathname + write(view) + location.hash);
  links();
  if (quiet) return;
  if (isLargeOnly) busy(showLarge());
  else redraw();
}

function links() {
  const [own] = sources(run, view);
  document.getElementById("save-csv").href = address(own, view, view.tasks, ".csv");
  document.getElementById("save-json").href = address(own, view, view.tasks);
  document.getElementById("smooth-now").textContent = view.smooth ? view.smooth.toFixed(2) : "0";
  document.getElementById("view-reset").hidden = write({ ...view, tasks: [] }) === "";
}

let soon = null;
form.addEventListener("input", () => {
  clearTimeout(soon);
  soon = setTimeout(() => go(fromForm(form, view)), 60);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  const next = read("");
  next.tasks = view.tasks;
  fill(form, next);
  go(next);
});
addEventListener("popstate", () => {
  view = read(location.search);
  fill(form, view);
  links();
  redraw();
});
root.addEventListener("click", (event) => {
  const one = event.target.closest(".enlarge");
  const all = event.target.closest(".all-in-one");
  if (one) enlarge([one.dataset.task]);
  if (all) enlarge(all.dataset.tasks.split(",").filter(Boolean));
});
document.getElementById("focus-close").addEventListener("click", () => go({ ...view, tasks: [], zoom: "" }, { push: true }));
document.getElementById("focus-add").addEventListener("change", (event) => {
  const task = event.target.value;
  event.target.value = "";
  if (task && !view.tasks.includes(task)) go({ ...view, tasks: [...view.tasks, task] }, { push: true });
});

// Menus close when one clicks elsewhere or presses Escape, as menus do.
document.addEventListener("click", (event) => {
  for (const menu of form.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
form.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

// Sharing

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https there is no clipboard: the old way, a selected field.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say(words.copied);
}

function flash(button) {
  const before = button.textContent;
  button.textContent = words.copied;
  setTimeout(() => { button.textContent = before; }, 1500);
}

function embedCode() {
  const tasks = view.tasks.length ? view.tasks : [cards[0].dataset.card];
  const source = `${location.origin}/embed/runs/${encodeURIComponent(run)}${write({ ...view, tasks })}`;
  return `<iframe src="${source.replaceAll("&", "&amp;")}" title="${run}" width="100%" height="480" style="border:0" loading="lazy"></iframe>`;
}

async function picture(save) {
  const tasks = view.tasks.length ? view.tasks : [cards[0].dataset.card];
  const { layers, posts, warned } = await layersOf(run, view, tasks, words);
  const shown = layers.filter((layer) => layer.lines.length);
  if (shown.length) save(run, shown, view, large?.extra ?? { words, pins: posts, warned });
}

for (const [id, text] of [["copy-link", () => location.href], ["copy-embed", embedCode]]) {
  document.getElementById(id).addEventListener("click", async (event) => {
    await copy(text());
    flash(event.target);
  });
}
document.getElementById("save-png").addEventListener("click", () => picture(savePng));
document.getElementById("save-svg").addEventListener("click", () => picture(saveSvg));
for (const [id, suffix, name, join] of [
  ["save-csv", ".csv", `${run}-growth.csv`, (texts) => texts.map((text, at) => (at ? text.slice(text.indexOf("\n") + 1) : text)).join("")],
  ["save-json", "", `${run}-growth.json`, (texts) => `[${texts.join(",")}]`],
]) {
  document.getElementById(id).addEventListener("click", (event) => {
    const found = sources(run, view);
    if (found.length < 2) return; // the plain link does
    event.preventDefault();
    saveText(found.map((source) => address(source, view, view.tasks, suffix)), name, join);
  });
}

// Live: site.js triggers "refresh" on a card when its task has a new result.
let isUpdating = null;
for (const card of cards) {
  card.addEventListener("refresh", () => {
    forget(card.dataset.card);
    card.dataset.view = viewKey();
    show(card, { isUpdate: true });
    if (!view.tasks.includes(card.dataset.card)) return;
    clearTimeout(isUpdating);
    isUpdating = setTimeout(() => busy(showLarge({ isUpdate: true })), 50);
  });
}
document.addEventListener("themechange", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

fill(form, view);
links();
legend();
for (const card of cards) watcher.observe(card);
busy(showLarge());
