// The time-lapse: a slider over the ages of a run, and one prompt's answer morphing from age to age.

const base = { slowestMs: 1300, fastestMs: 160, wholeMs: 60_000 };
const morphMs = 420;
const swipePixels = 48;
const kept = matchMedia("(prefers-reduced-motion: reduce)");

// The same words as analysis/wording.py: a run of letters and digits, one Chinese or Japanese character, one other sign.
const single = "\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff";
const unit = new RegExp(`[${single}]|(?:(?![${single}])[\\p{L}\\p{N}_])+|\\s+|.`, "gsu");

function unitsOf(text) {
  return text.match(unit) ?? [];
}

// For each unit of `after`, the index of the unit of `before` that it was, or -1: the longest common subsequence.
function origins(before, after) {
  const width = after.length + 1;
  const longest = new Uint16Array((before.length + 1) * width);
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      longest[i * width + j] = before[i] === after[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const found = new Array(after.length).fill(-1);
  for (let i = 0, j = 0; i < before.length && j < after.length;) {
    if (before[i] === after[j]) found[j++] = i++;
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return found;
}

function wordElement(text) {
  const word = document.createElement("span");
  word.className = "tl-word";
  word.textContent = text;
  return word;
}

class Timelapse {
  constructor(root) {
    this.root = root;
    this.words = JSON.parse(root.dataset.words);
    this.ages = [];
    this.index = -1;
    this.shown = [];
    this.timer = 0;
    this.part = (name) => root.querySelector(`#tl-${name}`);
    this.slider = this.part("slider");
    this.listen();
    this.load();
  }

  async load() {
    const wanted = this.index < 0 ? Number(this.root.dataset.step) : this.ages[this.index].step;
    const followed = this.index >= 0 && this.index === this.ages.length - 1;
    const before = this.ages.length;
    let data;
    try {
      const answer = await fetch(this.root.dataset.src, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      data = await answer.json();
    } catch {
      this.part("said").textContent = this.words.broken;
      return;
    }
    if (!data.ages.length) return;
    this.ages = data.ages;
    const at = this.ages.findIndex((age) => age.step === wanted);
    const isNew = before > 0 && this.ages.length > before;
    this.prepare();
    this.show(followed && isNew ? this.ages.length - 1 : at < 0 ? this.ages.length - 1 : at, { note: before > 0 });
    if (isNew) this.part("said").textContent = this.words.new;
    this.root.dataset.ready = String(this.ages.length);
  }

  prepare() {
    const last = this.ages.length - 1;
    this.slider.max = String(last);
    this.part("first").textContent = this.ages[0].name;
    this.part("last").textContent = this.ages[last].name;
    this.part("strip").hidden = last < 1;
    this.part("play").hidden = last < 1;
    this.part("speed-label").hidden = last < 1;
    this.part("share").hidden = false;
    this.part("ticks").replaceChildren(...this.ages.map((age, at) => {
      const tick = document.createElement("option");
      tick.value = String(at);
      tick.label = age.name;
      return tick;
    }));
    const bars = this.part("bars");
    const width = Math.max(2, Math.min(10, 240 / this.ages.length));
    bars.replaceChildren(...this.ages.map((age, at) => {
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const height = age.repetition === null ? 0.04 : Math.max(0.04, age.repetition);
      bar.setAttribute("x", `${(100 * at) / Math.max(1, last)}%`);
      bar.setAttribute("y", `${100 * (1 - height)}%`);
      bar.setAttribute("width", String(width));
      bar.setAttribute("height", `${100 * height}%`);
      bar.setAttribute("transform", `translate(${-width / 2} 0)`);
      if (age.repetition === null) bar.classList.add("is-empty");
      return bar;
    }));
  }

  // `note`: leave the address alone, because nobody moved the slider.
  show(index, { note = false } = {}) {
    const age = this.ages[index];
    const isFirst = this.index < 0;
    this.part("bars").children[this.index]?.classList.remove("is-shown");
    this.part("bars").children[index].classList.add("is-shown");
    this.index = index;
    this.root.dataset.step = String(age.step);
    this.slider.value = String(index);
    this.slider.setAttribute("aria-valuetext", age.name === age.step_name ? age.name : `${age.name}, ${age.step_name}`);
    this.part("age").textContent = age.name;
    this.part("age").href = age.href;
    this.part("step").textContent = age.name === age.step_name ? "" : age.step_name;
    this.part("place").textContent = `${index + 1} / ${this.ages.length}`;
    this.part("marks").textContent = age.marks_text;
    this.part("note").textContent = age.note;
    this.part("note").hidden = !age.note;
    this.part("more").hidden = !age.cut;
    this.part("talk").hidden = !age.chat_href;
    this.part("talk").href = age.chat_href || "#";
    this.part("list").href = `${this.address(age)}&list=true`;
    this.link();
    this.write(age.text ?? "", this.textBefore(index), isFirst);
    const chosen = document.querySelector(".tl-choose [name=step]");
    if (chosen) chosen.value = String(age.step);
    if (!isFirst && !this.timer) this.part("spoken").textContent = `${age.name}: ${age.text ?? age.note}`;
    if (!isFirst && !note) history.replaceState(null, "", this.address(age));
  }

  address(age) {
    return `${this.root.dataset.address}?${new URLSearchParams({ prompt: this.root.dataset.prompt, step: age.step })}`;
  }

  link() {
    const last = this.ages.length - 1;
    const places = { "to-first": 0, "to-earlier": this.index - 1, "to-later": this.index + 1, "to-last": last };
    for (const [name, at] of Object.entries(places)) {
      const isOff = at < 0 || at > last || at === this.index;
      this.part(name).toggleAttribute("href", !isOff);
      if (!isOff) this.part(name).href = this.address(this.ages[at]);
      this.part(name).setAttribute("aria-disabled", String(isOff));
    }
  }

  textBefore(index) {
    for (let at = index - 1; at >= 0; at--) if (this.ages[at].text !== null) return this.ages[at].text;
    return null;
  }

  // Words that stay glide to their new places, new ones appear, the others fade where they stood.
  write(text, before, isFirst) {
    const place = this.part("answer");
    const next = unitsOf(text);
    const fresh = before === null ? [] : origins(unitsOf(before), next).map((from) => from < 0);
    const isStill = isFirst || kept.matches || document.hidden;
    const from = isStill ? [] : origins(this.shown.map((one) => one.text), next);
    const rects = isStill ? [] : this.shown.map((one) => one.element?.getBoundingClientRect());
    const leaving = isStill ? [] : this.shown.filter((one, at) => one.element && !from.includes(at));
    const ghosts = leaving.map((one) => this.ghost(one.element));
    this.shown = next.map((one) => ({ text: one, element: one.trim() ? wordElement(one) : null }));
    place.replaceChildren(...this.marked(fresh));
    if (isStill) return;
    this.shown.forEach((one, at) => {
      if (!one.element) return;
      const old = from[at] >= 0 ? rects[from[at]] : null;
      if (old) this.glide(one.element, old);
      else one.element.animate([{ opacity: 0 }, { opacity: 1 }], { duration: morphMs, easing: "ease-out" });
    });
    ghosts.forEach((ghost) => {
      this.part("text").append(ghost);
      ghost.animate([{ opacity: 0.7 }, { opacity: 0 }], { duration: morphMs / 2 }).finished.catch(() => {}).then(() => ghost.remove());
    });
  }

  // The words with the new ones inside <ins>; the space around a line of them is no word.
  marked(fresh) {
    const nodes = [];
    let open = null;
    this.shown.forEach((one, at) => {
      const node = one.element ?? document.createTextNode(one.text);
      const isEdge = !one.element && (!open || one.text.includes("\n") || !fresh[at + 1]);
      if (!fresh[at] || isEdge) {
        open = null;
        nodes.push(node);
        return;
      }
      if (!open) nodes.push(open = document.createElement("ins"));
      open.append(node);
    });
    return nodes;
  }

  ghost(element) {
    const box = this.part("text").getBoundingClientRect();
    const old = element.getBoundingClientRect();
    const ghost = document.createElement("span");
    ghost.className = "tl-ghost";
    ghost.setAttribute("aria-hidden", "true");
    ghost.textContent = element.textContent;
    ghost.style.left = `${old.left - box.left}px`;
    ghost.style.top = `${old.top - box.top}px`;
    return ghost;
  }

  glide(element, old) {
    const now = element.getBoundingClientRect();
    const [left, top] = [old.left - now.left, old.top - now.top];
    if (Math.abs(left) < 1 && Math.abs(top) < 1) return;
    element.animate([{ left: `${left}px`, top: `${top}px` }, { left: "0", top: "0" }], { duration: morphMs, easing: "ease-in-out" });
  }

  get isPlaying() {
    return this.timer !== 0;
  }

  play() {
    if (this.ages.length < 2) return;
    if (this.index === this.ages.length - 1) this.show(0);
    this.part("play").textContent = this.words.pause;
    this.root.dataset.playing = "true";
    this.wait();
  }

  wait() {
    const pace = Math.min(base.slowestMs, Math.max(base.fastestMs, base.wholeMs / this.ages.length));
    this.timer = setTimeout(() => this.tick(), pace / Number(this.part("speed").value));
  }

  tick() {
    // Ages without an answer are passed over, except the last.
    let next = this.index + 1;
    while (next < this.ages.length - 1 && this.ages[next].text === null) next++;
    if (next < this.ages.length) this.show(next);
    if (next >= this.ages.length - 1) this.pause();
    else this.wait();
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    delete this.root.dataset.playing;
    this.part("play").textContent = this.words.play;
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  go(index) {
    this.pause();
    const at = Math.min(this.ages.length - 1, Math.max(0, index));
    if (at !== this.index) this.show(at);
  }

  async share() {
    const link = new URL(this.address(this.ages[this.index]), location.href).href;
    try {
      await navigator.clipboard.writeText(link);
      this.part("said").textContent = this.words.copied;
    } catch {
      // No clipboard without HTTPS or without leave: the link itself is shown, selected.
      const field = document.createElement("input");
      field.readOnly = true;
      field.value = link;
      field.setAttribute("aria-label", this.words.copy_yourself);
      this.part("said").replaceChildren(this.words.copy_yourself, " ", field);
      field.focus();
      field.select();
    }
  }

  listen() {
    document.querySelector(".tl-choose button")?.toggleAttribute("hidden", true);
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.part("play").addEventListener("click", () => this.toggle());
    this.part("share").addEventListener("click", () => this.share());
    const steps = { "to-first": () => 0, "to-earlier": () => this.index - 1, "to-later": () => this.index + 1, "to-last": () => this.ages.length - 1 };
    for (const [name, target] of Object.entries(steps)) {
      this.part(name).addEventListener("click", (event) => {
        if (!this.ages.length || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        this.go(target());
      });
    }
    this.root.addEventListener("refresh", () => this.load());
    this.swipe(this.root.querySelector(".tl-stage"));
  }

  swipe(stage) {
    let begin = null;
    stage.addEventListener("pointerdown", (event) => {
      begin = event.pointerType === "touch" ? event.clientX : null;
    });
    stage.addEventListener("pointerup", (event) => {
      if (begin === null || !this.ages.length) return;
      const moved = event.clientX - begin;
      begin = null;
      if (Math.abs(moved) > swipePixels) this.go(this.index + (moved < 0 ? 1 : -1));
    });
    stage.addEventListener("pointercancel", () => { begin = null; });
  }

  key(event) {
    const moves = { ArrowLeft: this.index - 1, ArrowRight: this.index + 1, Home: 0, End: this.ages.length - 1 };
    if (event.key === " ") this.toggle();
    else if (event.key in moves) this.go(moves[event.key]);
    else return;
    event.preventDefault();
  }
}

let current = null;

function begin() {
  const root = document.querySelector("#timelapse[data-src]");
  if (root && root !== current?.root) current = new Timelapse(root);
}

// Keys move the time-lapse from anywhere on the page, unless what is focused wants them itself.
document.addEventListener("keydown", (event) => {
  if (!current?.ages.length || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (event.target !== current.slider && event.target.closest("input, textarea, select, summary")) return;
  if (event.key === " " && event.target.closest("a, button")) return;
  current.key(event);
});
document.addEventListener("change", (event) => {
  if (event.target.id === "tl-prompt") event.target.form.requestSubmit();
});
document.addEventListener("htmx:load", begin);
begin();
