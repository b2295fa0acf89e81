// Following an answer. The server replays a turn's stream from its start, so a reload loses nothing.
// What comes is collected and written once a frame, as text nodes: a long answer stays cheap.
import { visible } from "./plain.js";

const nodeChars = 4000; // one text node grows to this length before the next begins

export function nearBottom() {
  return document.documentElement.scrollHeight - window.scrollY - window.innerHeight < 160;
}

export function toBottom() {
  window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

// Adds text at the end of an element, at most once a frame.
export class Writer {
  constructor(element, spanOf = null) {
    Object.assign(this, { element, spanOf, pending: [], node: null, scheduled: false });
  }

  clear() {
    this.pending = [];
    this.node = null;
    this.element.textContent = "";
  }

  write(delta) {
    this.pending.push(delta);
    if (this.scheduled) return;
    this.scheduled = true;
    // Hidden tabs have no frames; their text must not pile up.
    if (document.hidden) setTimeout(() => this.flush(), 200);
    else requestAnimationFrame(() => this.flush());
  }

  flush() {
    this.scheduled = false;
    if (!this.pending.length) return;
    const stick = nearBottom();
    const deltas = this.pending.splice(0);
    if (this.spanOf && deltas.some((delta) => delta.tokens)) this.addTokens(deltas);
    else this.addText(visible(deltas.map((delta) => delta.text).join("")));
    if (stick) toBottom();
  }

  addTokens(deltas) {
    for (const delta of deltas) {
      if (delta.tokens) this.element.append(...delta.tokens.map(this.spanOf));
      else this.element.append(visible(delta.text));
    }
  }

  addText(text) {
    if (!this.node || this.node.length > nodeChars) {
      this.node = document.createTextNode("");
      this.element.append(this.node);
    }
    this.node.appendData(text);
  }
}

// `turn` has data-stream and holds .place; `settle` shows what stands in the database, and is told the end's status.
export function follow(turn, writer, settle) {
  if (turn.dataset.following) return;
  turn.dataset.following = "1";
  const source = new EventSource(turn.dataset.stream);
  const place = turn.querySelector(".place");
  const listen = (kind, act) => source.addEventListener(kind, (message) => {
    if (turn.isConnected) act(message.data === undefined ? null : JSON.parse(message.data));
    else source.close(); // another branch is shown now
  });
  listen("queued", ({ text }) => { place.textContent = text; });
  listen("start", () => {
    writer.clear();
    place.textContent = place.dataset.writing;
    turn.classList.replace("is-queued", "is-running");
  });
  listen("delta", (delta) => writer.write(delta));
  listen("done", (end) => {
    source.close();
    // Stopping announces the end just before it is committed.
    setTimeout(() => settle(turn, end), 150);
  });
  source.addEventListener("error", () => {
    place.textContent = place.dataset.waiting;
    // A refused connection (logged out, for example) is not tried again by the browser.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => settle(turn), 3000);
  });
}
