// A film through the ages: the frames fill as they are written; the stage shows one of them, and plays.
import { watchKnobs, watchMenus } from "../chat/composer.js";
import { followGroup } from "./group.js";

const pace = 1600; // milliseconds a frame at normal speed
const ages = document.getElementById("ages");
const stage = document.getElementById("stage");
const slider = document.getElementById("ages-slider");
const play = document.getElementById("ages-play");
const part = (name) => stage.querySelector(`[data-stage="${name}"]`);
const frames = () => [...ages.children];
let index = 0;
let timer = 0;
let isTouched = false;

function copy(frame, selector, target) {
  const found = frame.querySelector(selector);
  const nodes = found ? [...found.cloneNode(true).childNodes] : [];
  nodes.forEach((node) => node.querySelectorAll?.("[id]").forEach((one) => one.removeAttribute("id")));
  target.replaceChildren(...nodes);
  if (found) target.className = found.className;
}

function draw() {
  const frame = frames()[index];
  const facts = frame.querySelector("[data-facts]").textContent.trim();
  part("label").textContent = frame.dataset.label;
  part("label").href = frame.dataset.href;
  part("facts").textContent = facts;
  part("place").textContent = `${index + 1} / ${frames().length}`;
  const card = part("text").closest(".card");
  const isAtEnd = "turn" in frame.dataset && card.scrollHeight - card.scrollTop - card.clientHeight < 40;
  copy(frame, "[data-text]", part("text"));
  part("text").querySelector("[data-foot]")?.remove();
  // Only what it says: reporting is done at the frame itself.
  part("foot").replaceChildren(...[...frame.querySelectorAll("[data-foot] > :not(.report, .report-door)")].map((one) => one.cloneNode(true)));
  card.scrollTop = isAtEnd ? card.scrollHeight : card.scrollTop;
  slider.setAttribute("aria-valuetext", `${frame.dataset.label}, ${facts}`);
}

function show(at, { speak = false } = {}) {
  const before = index;
  index = Math.max(0, Math.min(frames().length - 1, at));
  slider.value = String(index);
  frames().forEach((frame, place) => {
    frame.classList.toggle("is-current", place === index);
    frame.querySelector("[data-pick]").toggleAttribute("aria-current", place === index);
  });
  const frame = frames()[index];
  // Within the strip alone: the page itself stays where it is.
  ages.scrollTo({ left: frame.offsetLeft - (ages.clientWidth - frame.offsetWidth) / 2, behavior: timer ? "instant" : "auto" });
  draw();
  if (index !== before) part("text").closest(".card").scrollTop = 0;
  if (speak) document.getElementById("ages-spoken").textContent = `${frame.dataset.label}: ${frame.querySelector(".answer")?.textContent ?? ""}`;
}

// Until somebody chooses a frame, the stage goes where it is being written.
function followWriting() {
  const isWritten = (frame) => "turn" in frame.dataset && frame.classList.contains("is-running");
  if (isTouched || isWritten(frames()[index])) return;
  const at = frames().findIndex(isWritten);
  if (at >= 0) show(at);
}

function pause() {
  clearTimeout(timer);
  timer = 0;
  play.textContent = play.dataset.play;
}

function tick() {
  if (index >= frames().length - 1) return pause();
  show(index + 1);
  wait();
}

function wait() {
  timer = setTimeout(tick, pace / Number(document.getElementById("ages-speed").value));
}

function toggle() {
  isTouched = true;
  if (timer) return pause();
  if (index >= frames().length - 1) show(0);
  play.textContent = play.dataset.pause;
  wait();
}

function go(at) {
  isTouched = true;
  pause();
  show(at, { speak: true });
}

function key(event) {
  const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: frames().length - 1 };
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (event.target !== slider && event.target.closest("input, textarea, select, summary, details[open]")) return;
  if (event.key === " " && event.target.closest("a, button")) return;
  if (event.key === " ") toggle();
  else if (event.key in moves) go(moves[event.key]);
  else return;
  event.preventDefault();
}

function begin() {
  stage.hidden = false;
  slider.addEventListener("input", () => go(Number(slider.value)));
  play.addEventListener("click", toggle);
  document.addEventListener("keydown", key);
  ages.addEventListener("click", (event) => {
    const pick = event.target.closest("[data-pick]");
    if (!pick || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(frames().indexOf(pick.closest("li")));
  });
  const wanted = /^#frame-(\d+)$/.exec(location.hash);
  show(wanted ? Number(wanted[1]) : 0);
}

watchMenus();
const composer = document.getElementById("composer");
if (composer) watchKnobs(composer);
if (ages) {
  begin();
  followGroup({
    began: followWriting,
    changed: (frame) => {
      const at = frames().indexOf(frame);
      if (at === index) show(at);
      followWriting();
    },
  });
}
