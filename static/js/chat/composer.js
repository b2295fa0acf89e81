// The box for a message or a text: its height, its draft, its count, its errors, the settings, the expected wait.
export function measure(box, count = null) {
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, window.innerHeight * 0.45)}px`;
  if (!count) return;
  const max = Number(box.dataset.max);
  count.hidden = box.value.length < max * 0.8;
  count.textContent = `${box.value.length.toLocaleString()} / ${max.toLocaleString()}`;
  count.classList.toggle("error", box.value.length > max);
}

// The sentence of an error page, for example that the login has ended.
function messageOf(answer) {
  const page = new DOMParser().parseFromString(answer.responseText, "text/html");
  return page.querySelector(".error-page .lead")?.textContent;
}

// Whatever is refused below `root` is told at the composer, where people look.
export function tellErrors(root, composer) {
  const error = composer.querySelector(".composer-error");
  const tell = (text) => {
    error.textContent = text;
    error.hidden = !text;
    if (text) error.scrollIntoView({ block: "nearest" });
  };
  root.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.verb !== "get") tell("");
  });
  root.addEventListener("htmx:responseError", (event) => {
    const answer = event.detail.xhr;
    const isText = (answer.getResponseHeader("content-type") || "").startsWith("text/plain");
    tell((isText ? answer.responseText : messageOf(answer)) || composer.dataset.failed);
  });
  for (const kind of ["htmx:sendError", "htmx:timeout"]) root.addEventListener(kind, () => tell(composer.dataset.failed));
  return tell;
}

export function watchKnobs(composer) {
  for (const range of composer.querySelectorAll("input[type=range]")) {
    range.addEventListener("input", () => {
      range.closest("label").querySelector("output").textContent = range.value;
    });
  }
  const reset = composer.querySelector("[data-reset]");
  reset.hidden = false;
  reset.addEventListener("click", () => {
    for (const [name, value] of Object.entries(JSON.parse(reset.dataset.reset))) {
      const input = composer.querySelector(`[data-knob][name="${name}"]`);
      if (!input) continue;
      input.value = value;
      input.dispatchEvent(new Event("input"));
    }
  });
}

// Another checkpoint is another conversation; what was typed comes along.
export function watchPick(box) {
  const pick = document.querySelector("[data-pick]");
  pick?.addEventListener("change", () => {
    if (!pick.value) return;
    if (box?.value) sessionStorage.setItem(`draft:${pick.dataset.pick}`, box.value);
    location.assign(`${pick.dataset.pick}?checkpoint=${encodeURIComponent(pick.value)}`);
  });
}

// The wait to expect before sending: asked for on opening, and every ten seconds while somebody looks and nothing runs.
export function watchWait() {
  const note = document.querySelector("[data-wait]");
  if (!note) return;
  const ask = async () => {
    if (document.hidden || document.querySelector("[data-stream]")) return;
    try {
      const length = note.closest("form")?.elements.max_tokens?.value;
      const address = length ? `${note.dataset.wait}&max_tokens=${encodeURIComponent(length)}` : note.dataset.wait;
      const answer = await fetch(address, { headers: { accept: "application/json" } });
      const { text } = answer.ok ? await answer.json() : {};
      note.textContent = text || "";
    } catch {
      note.textContent = ""; // the banner says it when the site is away
    }
    note.hidden = !note.textContent;
  };
  ask();
  setInterval(ask, 10_000);
  note.closest("form")?.addEventListener("change", (event) => {
    if (event.target.name === "max_tokens") ask();
  });
  document.addEventListener("visibilitychange", ask);
}

// On a phone the list of conversations would push the conversation off the screen.
export function foldHistory() {
  if (matchMedia("(max-width: 760px)").matches) document.querySelector(".chat-history")?.removeAttribute("open");
}

// Menus close when somebody looks elsewhere or presses Escape; a text that is being edited only with Escape.
export function watchMenus() {
  const close = (but) => document.querySelectorAll("details.menu[open]:not(.edit)").forEach((menu) => {
    if (menu !== but && !menu.contains(but)) menu.open = false;
  });
  document.addEventListener("click", (event) => close(event.target));
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && !event.isComposing && event.target.closest("details.menu[open]");
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
    event.stopPropagation();
  }, true);
}
