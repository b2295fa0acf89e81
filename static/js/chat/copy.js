// Copying answers, code and links, also where the clipboard needs HTTPS and there is none.
async function copy(text, button) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyBySelection(text);
  button.title = button.dataset.copied;
  button.classList.add("is-done");
  setTimeout(() => button.classList.remove("is-done"), 1500);
}

function copyBySelection(text) {
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// Blocks of code get their button here: without a script it could do nothing.
export function addCopyButtons(root) {
  const words = document.documentElement.lang.startsWith("zh") ? ["复制", "已复制"] : ["Copy", "Copied"];
  for (const head of root.querySelectorAll(".code-head:not(:has(button))")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "link small" });
    button.dataset.copyCode = "";
    [button.textContent, button.dataset.copied] = words;
    head.append(button);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-copy-code], [data-copy-value]");
  if (!button) return;
  if ("copyValue" in button.dataset) copy(document.getElementById(button.dataset.copyValue).value, button);
  else if ("copyCode" in button.dataset) {
    copy(button.closest(".code-block").querySelector("pre").textContent, button);
    const before = button.textContent;
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = before; }, 1500);
  } else {
    // An answer that is laid out comes along as it was written: tables and formulas have no text of their own.
    copy(button.dataset.copy || button.closest(".turn").querySelector(".answer").textContent, button);
  }
});
