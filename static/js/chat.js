// The chat page: sending with Enter, following an answer while it is written, copying.
"use strict";

const composer = document.getElementById("composer");
const box = document.getElementById("prompt");
const turns = document.getElementById("turns");

// On a phone the list of conversations would push the conversation off the screen.
if (matchMedia("(max-width: 760px)").matches) document.querySelector(".chat-history")?.removeAttribute("open");

// Following an answer. The server replays a turn's stream from its start, so a reload loses nothing.
function follow(turn) {
  if (turn.dataset.following) return;
  turn.dataset.following = "1";
  const source = new EventSource(turn.dataset.stream);
  const place = turn.querySelector(".place");
  const answer = turn.querySelector(".answer");
  source.addEventListener("queued", (message) => {
    place.textContent = JSON.parse(message.data).text;
  });
  source.addEventListener("start", () => {
    answer.textContent = "";
    place.textContent = place.dataset.writing;
    turn.classList.replace("is-queued", "is-running");
  });
  source.addEventListener("delta", (message) => {
    const stick = nearBottom();
    answer.append(JSON.parse(message.data).text);
    answer.normalize();
    if (stick) toBottom();
  });
  source.addEventListener("done", () => {
    source.close();
    // Stopping announces the end just before it is committed.
    setTimeout(() => settle(turn), 150);
  });
  source.addEventListener("error", () => {
    place.textContent = place.dataset.waiting;
    // A refused connection (logged out, for example) is not tried again by the browser.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => settle(turn), 3000);
  });
}

// What stands in the database replaces what was streamed, with its buttons.
function settle(turn) {
  if (turn.isConnected) htmx.ajax("GET", turn.dataset.fragment, { target: `#${turn.id}`, swap: "outerHTML" });
}

function nearBottom() {
  return document.documentElement.scrollHeight - window.scrollY - window.innerHeight < 160;
}

function toBottom() {
  window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
}

function attach(root) {
  const found = root.matches?.("[data-stream]") ? [root] : root.querySelectorAll("[data-stream]");
  found.forEach(follow);
}
attach(document);
document.addEventListener("htmx:load", (event) => attach(event.detail.elt));
if (turns?.querySelector(".turn[id]")) toBottom();

// Copying, also where the clipboard needs HTTPS and there is none.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.closest(".turn").querySelector(".answer").textContent;
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyBySelection(text);
  button.title = button.dataset.copied;
  button.classList.add("is-done");
  setTimeout(() => button.classList.remove("is-done"), 1500);
});

function copyBySelection(text) {
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// Another checkpoint is another conversation; what was typed comes along.
const pick = document.querySelector("[data-pick]");
pick?.addEventListener("change", () => {
  if (!pick.value) return;
  if (box?.value) sessionStorage.setItem("draft:/chat", box.value);
  location.assign(`/chat?checkpoint=${encodeURIComponent(pick.value)}`);
});

if (composer) {
  const error = composer.querySelector(".composer-error");
  const count = composer.querySelector(".composer-count");
  const send = composer.querySelector("button[type=submit]");
  const draft = `draft:${location.pathname}`;

  const measure = () => {
    box.style.height = "auto";
    box.style.height = `${Math.min(box.scrollHeight + 2, window.innerHeight * 0.45)}px`;
    const max = Number(box.dataset.max);
    count.hidden = box.value.length < max * 0.8;
    count.textContent = `${box.value.length.toLocaleString()} / ${max.toLocaleString()}`;
    count.classList.toggle("error", box.value.length > max);
  };
  const fill = (text) => {
    box.value = text;
    box.dispatchEvent(new Event("input"));
  };
  const tell = (text) => {
    error.textContent = text;
    error.hidden = !text;
  };

  box.addEventListener("input", () => {
    sessionStorage.setItem(draft, box.value);
    measure();
  });
  // While an input method composes, Enter chooses characters (keyCode 229 in browsers that say so late).
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!send.disabled) composer.requestSubmit();
  });
  composer.addEventListener("htmx:beforeRequest", () => {
    send.disabled = true;
    tell("");
  });
  composer.addEventListener("htmx:afterRequest", (event) => {
    send.disabled = false;
    if (event.detail.target !== turns || !event.detail.successful) return;
    sessionStorage.removeItem(draft);
    fill("");
    sessionStorage.removeItem(draft);
    document.querySelector(".chat-empty")?.remove();
    requestAnimationFrame(toBottom);
  });
  composer.addEventListener("htmx:responseError", (event) => {
    const answer = event.detail.xhr;
    const isText = (answer.getResponseHeader("content-type") || "").startsWith("text/plain");
    tell(isText ? answer.responseText : messageOf(answer) || composer.dataset.failed);
  });
  composer.addEventListener("htmx:sendError", () => tell(composer.dataset.failed));
  composer.addEventListener("htmx:timeout", () => tell(composer.dataset.failed));

  for (const range of composer.querySelectorAll("input[type=range]")) {
    range.addEventListener("input", () => {
      range.closest("label").querySelector("output").textContent = range.value;
    });
  }
  for (const starter of document.querySelectorAll("[data-starter]")) {
    starter.addEventListener("click", () => {
      fill(starter.dataset.starter);
      box.focus();
    });
  }
  if (!box.value) fill(sessionStorage.getItem(draft) || "");
  measure();
}

// The sentence of an error page, for example that the login has ended.
function messageOf(answer) {
  const page = new DOMParser().parseFromString(answer.responseText, "text/html");
  return page.querySelector(".error-page .lead")?.textContent;
}
