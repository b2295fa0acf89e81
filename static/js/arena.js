// The arena: starters, both answers as they are written, and the arrow keys. Voting itself is the form's.
import { watchWait } from "./chat/composer.js";
import { follow, Writer } from "./chat/follow.js";

const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", ArrowUp: "bad" };

const box = document.getElementById("arena-prompt");
document.querySelectorAll("[data-starter]").forEach((button) => button.addEventListener("click", () => {
  box.value = button.dataset.starter;
  box.focus();
}));
const pick = document.querySelector("[data-go]");
pick?.addEventListener("change", () => {
  if (box.value) sessionStorage.setItem("draft:arena", box.value); // what was typed comes along
  location.assign(pick.dataset.go + encodeURIComponent(pick.value));
});
if (box && !box.value) box.value = sessionStorage.getItem("draft:arena") ?? "";
sessionStorage.removeItem("draft:arena");
watchWait();

// What stands in the database replaces what was streamed once nothing more is to come: with the buttons to vote, or with
// the way out where an answer could not be written, however long the other one goes on.
function settle(side, end) {
  side.removeAttribute("data-stream");
  side.querySelector(".place").textContent = side.querySelector(".place").dataset.done;
  const battle = document.getElementById("battle");
  const isOver = !battle.querySelector("[data-stream]") || (end && end.status !== "finished");
  if (isOver) htmx.ajax("GET", battle.dataset.fragment, { target: "#battle", swap: "outerHTML" });
}

function attach(root) {
  root.querySelectorAll("[data-stream]").forEach((side) => follow(side, new Writer(side.querySelector(".answer")), settle));
}
attach(document);
document.addEventListener("htmx:load", (event) => attach(event.detail.elt));

// The vote is final, so an arrow only goes to the button; up and down do so only from a button, else they scroll.
document.addEventListener("keydown", (event) => {
  const choice = keys[event.key];
  const typing = event.target.closest("input, textarea, select, summary, details[open] form, [contenteditable]");
  if (!choice || typing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const isUpright = choice === "tie" || choice === "bad";
  if (isUpright && !event.target.closest(".battle-vote")) return;
  const button = document.querySelector(`.battle-vote [value="${choice}"]:not(:disabled)`);
  if (!button) return;
  event.preventDefault();
  button.focus();
});

// After the vote the keyboard goes on where the next battle begins.
document.addEventListener("htmx:afterSettle", () => document.getElementById("next-battle")?.focus({ preventScroll: true }));
