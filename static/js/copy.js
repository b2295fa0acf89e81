// Buttons that copy a text of the page: <button data-copies="id of the text" data-copied="Copied">.
"use strict";

// Where the clipboard needs HTTPS and there is none, the text is selected and copied the old way.
function copyBySelecting(element) {
  const selection = getSelection();
  selection.selectAllChildren(element);
  const copied = document.execCommand("copy");
  if (copied) selection.removeAllRanges();
  return copied;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const element = document.getElementById(button.dataset.copies);
  let copied = true;
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    copied = copyBySelecting(element);
  }
  if (!copied) return; // it stays selected, for the keyboard
  const before = button.textContent;
  button.textContent = button.dataset.copied;
  button.setAttribute("aria-live", "polite");
  setTimeout(() => { button.textContent = before; }, 2000);
});
