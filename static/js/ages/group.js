// A group of answers as they are written: one stream for all of them. Every column or frame is a [data-column].
import { addCopyButtons } from "../chat/copy.js";
import { Writer } from "../chat/follow.js";
import { visible } from "../chat/plain.js";

const longestPause = 30_000;

// As in a conversation, but not the page scrolls along, several answers grow at once: only what holds this one.
class Column extends Writer {
  constructor(root, changed) {
    super([...root.querySelectorAll(".answer")].at(-1));
    Object.assign(this, { root, changed });
  }

  flush() {
    const { root } = this;
    const isAtEnd = root.scrollHeight - root.scrollTop - root.clientHeight < 40;
    this.scheduled = false;
    this.addText(visible(this.pending.splice(0).map((delta) => delta.text).join("")));
    if (isAtEnd) root.scrollTop = root.scrollHeight;
    this.changed(root);
  }
}

// Asks again, ever more rarely, while the site cannot be reached. Of one `source` htmx would drop all but the last.
async function load(address, source, target, swap, pause = 1000) {
  try {
    await htmx.ajax("GET", address, { source, target, swap });
  } catch {
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    if (source.isConnected) await load(address, source, target, swap, Math.min(2 * pause, longestPause));
  }
}

// What stands in the database replaces what was streamed, with its buttons.
async function settle(root, changed) {
  const { id } = root;
  root.removeAttribute("data-turn");
  await load(root.dataset.fragment, root, `#${id}`, "outerHTML");
  const fresh = document.getElementById(id);
  if (fresh) changed(fresh);
}

function still(ages) {
  ages.removeAttribute("data-running");
  document.getElementById("ages-stop").hidden = true;
  document.querySelectorAll("[data-when-still]").forEach((button) => { button.disabled = false; });
  const certainty = document.getElementById("certainty");
  if (certainty) load(certainty.dataset.src, certainty, "#certainty", "innerHTML");
}

// `began(root)` when an answer begins, `changed(root)` whenever what a column shows has changed.
export function followGroup({ began = () => {}, changed = () => {} } = {}) {
  const ages = document.getElementById("ages");
  addCopyButtons(document);
  document.addEventListener("htmx:load", (event) => addCopyButtons(event.detail.elt));
  if (!ages || !("running" in ages.dataset)) return;
  const line = document.getElementById("ages-line");
  const writers = new Map([...ages.querySelectorAll("[data-turn]")].map((root) => [Number(root.dataset.turn), new Column(root, changed)]));
  const source = new EventSource(ages.dataset.events);
  const listen = (kind, act) => source.addEventListener(kind, (message) => {
    const data = JSON.parse(message.data);
    const writer = writers.get(data.turn);
    if (writer?.root.isConnected || data.turn === undefined) act(data, writer);
  });
  const place = (writer) => writer.root.querySelector(".place");
  listen("queued", ({ text }, writer) => { place(writer).textContent = text; });
  listen("start", (_, writer) => {
    writer.clear();
    place(writer).textContent = place(writer).dataset.writing;
    for (const one of [writer.root, writer.root.querySelector(".turn.is-queued")]) one?.classList.replace("is-queued", "is-running");
    began(writer.root);
    changed(writer.root);
  });
  listen("delta", (delta, writer) => writer.write(delta));
  listen("done", (_, writer) => {
    writers.delete(_.turn);
    settle(writer.root, changed);
  });
  listen("line", ({ text }) => { line.textContent = text; });
  listen("end", () => {
    source.close();
    still(ages);
  });
  source.addEventListener("error", (event) => {
    if (event.data === undefined) line.textContent = line.dataset.away;
    // A refused connection (logged out, for example) is not tried again by the browser.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
}
