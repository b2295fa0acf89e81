// The chat page: sending with Enter, following answers, editing and asking again, the keys.
import { addCopyButtons } from "./copy.js";
import { foldHistory, measure, tellErrors, watchKnobs, watchMenus, watchPick, watchWait } from "./composer.js";
import { follow, toBottom, Writer } from "./follow.js";

const composer = document.getElementById("composer");
const box = document.getElementById("prompt");
const turns = document.getElementById("turns");

foldHistory();
watchMenus();
watchPick(box);
watchWait();

// What stands in the database replaces what was streamed, with its buttons.
function settle(turn) {
  if (turn.isConnected) htmx.ajax("GET", turn.dataset.fragment, { target: `#${turn.id}`, swap: "outerHTML" });
}

function attach(root) {
  const found = root.matches?.("[data-stream]") ? [root] : root.querySelectorAll("[data-stream]");
  found.forEach((turn) => follow(turn, new Writer(turn.querySelector(".answer")), settle));
  addCopyButtons(root);
}
attach(document);
document.addEventListener("htmx:load", (event) => attach(event.detail.elt));
if (turns?.querySelector(".turn[id]") && !location.hash) toBottom();

// While an input method composes, Enter chooses characters (keyCode 229 in browsers that say so late).
const isSending = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

// Editing an earlier question, in its own box below it.
turns?.addEventListener("toggle", (event) => {
  const area = event.target.matches(".edit[open]") && event.target.querySelector("textarea");
  if (!area) return;
  measure(area);
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}, true);
turns?.addEventListener("keydown", (event) => {
  if (!event.target.matches(".edit textarea") || !isSending(event)) return;
  event.preventDefault();
  event.target.form.requestSubmit();
});
turns?.addEventListener("input", (event) => {
  if (event.target.matches(".edit textarea")) measure(event.target);
});

// Another age: the checkpoints that the page can pick anyway.
turns?.addEventListener("toggle", (event) => {
  const list = event.target.matches(".ask-age[open]") && event.target.querySelector("[data-ages-list]");
  const offered = document.getElementById("checkpoint");
  if (!list || list.dataset.full || !offered) return;
  list.replaceChildren(...[...offered.children].map((group) => group.cloneNode(true)));
  list.dataset.full = "1";
}, true);

// The way to the version before or after keeps the focus, so that the keyboard can go on.
turns?.addEventListener("click", (event) => {
  const button = event.target.closest("[data-sibling]");
  if (button) turns.dataset.focus = `${[...turns.querySelectorAll(".turn")].indexOf(button.closest(".turn"))}:${button.dataset.sibling}`;
});
turns?.addEventListener("htmx:afterSettle", () => {
  const [at, which] = (turns.dataset.focus || "").split(":");
  delete turns.dataset.focus;
  const turn = which && turns.querySelectorAll(".turn")[Number(at)];
  if (!turn) return;
  const button = turn.querySelector(`[data-sibling="${which}"]:not(:disabled)`) || turn.querySelector("[data-sibling]:not(:disabled)");
  button?.focus();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") turns?.querySelector("[data-stop]")?.click();
});

if (composer) {
  const count = composer.querySelector(".composer-count");
  const send = composer.querySelector("button[type=submit]");
  const draft = `draft:${location.pathname}`;
  const fill = (text) => {
    box.value = text;
    box.dispatchEvent(new Event("input"));
  };
  tellErrors(composer, composer);
  tellErrors(turns, composer);
  watchKnobs(composer);

  box.addEventListener("input", () => {
    sessionStorage.setItem(draft, box.value);
    measure(box, count);
  });
  box.addEventListener("keydown", (event) => {
    if (isSending(event)) {
      event.preventDefault();
      if (!send.disabled) composer.requestSubmit();
    } else if (event.key === "ArrowUp" && !box.value) {
      const last = [...turns.querySelectorAll(".edit")].at(-1);
      if (!last) return;
      event.preventDefault();
      last.open = true;
    }
  });
  composer.addEventListener("htmx:beforeRequest", () => { send.disabled = true; });
  composer.addEventListener("htmx:afterRequest", (event) => {
    send.disabled = false;
    if (event.detail.target !== turns || !event.detail.successful) return;
    sessionStorage.removeItem(draft);
    fill("");
    sessionStorage.removeItem(draft);
    document.querySelector(".chat-empty")?.remove();
    requestAnimationFrame(toBottom);
  });
  for (const starter of document.querySelectorAll("[data-starter]")) {
    starter.addEventListener("click", () => {
      fill(starter.dataset.starter);
      box.focus();
    });
  }
  if (!box.value) fill(sessionStorage.getItem(draft) || "");
  measure(box, count);
}
