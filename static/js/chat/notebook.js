// The notebook: the sheet that the model writes on, and the box in which the text is edited.
import "./copy.js";
import { foldHistory, measure, tellErrors, watchKnobs, watchMenus, watchPick, watchWait } from "./composer.js";
import { follow, Writer } from "./follow.js";
import { explainTokens, tokenSpan } from "./tokens.js";

const form = document.getElementById("composer");
const box = () => document.getElementById("prompt");

foldHistory();
watchMenus();

function edit() {
  const paper = document.getElementById("paper");
  paper.classList.add("is-editing");
  paper.querySelector(".sheet")?.remove();
  paper.querySelector("[data-edit]")?.remove();
  measure(box());
  box().focus();
  box().setSelectionRange(box().value.length, box().value.length);
}

function settle(paper) {
  if (paper.isConnected) htmx.ajax("GET", paper.dataset.sheet, { target: "#paper", swap: "outerHTML" });
}

function attach() {
  const paper = document.getElementById("paper");
  if (!paper || paper.dataset.attached) return;
  paper.dataset.attached = "1";
  const button = paper.querySelector("[data-edit]");
  if (button) button.hidden = false;
  if (paper.dataset.stream) follow(paper, new Writer(paper.querySelector(".live"), tokenSpan), settle);
  measure(box());
}

if (form) {
  watchPick(box());
  watchWait();
  watchKnobs(form);
  tellErrors(form, form);
  explainTokens(form, document.getElementById("token-tip"));
  const draft = sessionStorage.getItem("draft:/chat/notebook");
  if (draft && !box().value) box().value = draft;
  sessionStorage.removeItem("draft:/chat/notebook");
  attach();
  document.addEventListener("htmx:load", attach);
  form.addEventListener("input", (event) => {
    if (event.target === box()) measure(box());
  });
  form.addEventListener("click", (event) => {
    if (event.target.closest("[data-edit]")) edit();
  });
  // In a text Enter is a new line; with Ctrl or ⌘ it lets the model go on.
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    form.querySelector("[data-continue]")?.click();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") form.querySelector("[data-stop]")?.click();
  });
}
