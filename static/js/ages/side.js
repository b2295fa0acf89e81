// Columns side by side: following them, asking all again, and what one column can become.
import { measure, watchKnobs, watchMenus } from "../chat/composer.js";
import { followGroup } from "./group.js";

followGroup();
watchMenus();

const composer = document.getElementById("composer");
const box = document.getElementById("prompt");
if (composer) {
  const count = composer.querySelector(".composer-count");
  watchKnobs(composer);
  box.addEventListener("input", () => measure(box, count));
  // While an input method composes, Enter chooses characters (keyCode 229 in browsers that say so late).
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    const send = composer.querySelector("[data-send]");
    if (!send.disabled && box.value.trim()) composer.requestSubmit(send);
  });
  measure(box, count);
}

// The checkpoints that a column can go on with, filled in when its menu is opened first.
document.addEventListener("toggle", (event) => {
  const list = event.target.matches?.(".ages-menu[open]") && event.target.querySelector("[data-ages-list]");
  if (!list || list.dataset.full) return;
  const own = list.value;
  list.replaceChildren(document.getElementById("ages-list").content.cloneNode(true));
  list.value = own;
  list.dataset.full = "1";
}, true);
