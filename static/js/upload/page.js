// The upload page: files are chosen or dropped, announced, sent in chunks that count as they arrive, and watched until
// they are a checkpoint. Without this file the form works as plain forms do, in one piece.
import { canCheck } from "./checked.js";
import { Speed, duration, size } from "./figures.js";
import { dropped, picked } from "./folder.js";
import { Sender } from "./sender.js";

const byId = (id) => document.getElementById(id);
const form = byId("upload");
const words = JSON.parse(byId("upload-words").textContent);
const token = form.elements.csrf_token.value;
const inputs = [byId("files"), byId("folder")];
const watchMs = 1000;
const paintMs = 200;

let chosen = []; // [{file, name}]
let upload = null; // what the server knows of it
let sender = null;
let rows = [];
let painted = 0;
const speed = new Speed();

byId("drop-hint").hidden = false;
byId("upload-note").textContent = canCheck ? "" : words.unchecked;
byId("upload-note").hidden = canCheck;

function tell(text) {
  byId("upload-error").textContent = text;
  byId("upload-error").hidden = !text;
  if (text) byId("upload-error").scrollIntoView({ block: "nearest" });
}

function state(text) {
  if (byId("upload-state").textContent !== text) byId("upload-state").textContent = text;
}

function show(...visible) {
  for (const name of ["send", "pause", "resume", "cancel"]) byId(`upload-${name}`).hidden = !visible.includes(name);
}

// --- choosing

function choose(files) {
  chosen = files;
  const total = files.reduce((sum, one) => sum + one.file.size, 0);
  if (files.length) {
    const first = files.slice(0, 6).map((one) => one.name.split("/").pop());
    const text = words.chosen.replace("{count}", files.length).replace("{size}", size(total));
    byId("chosen").textContent = `${text}: ${first.join(", ")}${files.length > 6 ? " …" : ""}`;
  }
  tell("");
}

for (const input of inputs) {
  input.addEventListener("change", () => {
    // Two sources at once would mix two checkpoints.
    for (const other of inputs) if (other !== input && input.files.length) other.value = "";
    choose(inputs.flatMap(picked));
  });
}

for (const name of ["dragover", "dragleave", "drop"]) {
  byId("drop").addEventListener(name, async (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("is-over", name === "dragover");
    if (name !== "drop") return;
    const files = await dropped(event.dataTransfer);
    for (const input of inputs) input.value = "";
    choose(files);
  });
}

// --- announcing

async function ask(method, address, content) {
  const headers = { "X-CSRF-Token": token, Accept: "application/json" };
  if (content) headers["Content-Type"] = "application/json";
  const answer = await fetch(address, { method, headers, body: content ? JSON.stringify(content) : undefined });
  if (answer.status === 204) return null;
  const said = await answer.json();
  if (!answer.ok) throw new Error(answer.status === 401 ? words.expired : said.detail);
  return said;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const total = chosen.reduce((sum, one) => sum + one.file.size, 0);
  if (!chosen.length) return tell(words.empty);
  if (total > Number(form.dataset.max)) return tell(words.too_large);
  tell("");
  byId("upload-send").disabled = true;
  try {
    upload = form.dataset.upload ? await ask("GET", `/api/uploads/${form.dataset.upload}`) : await announce();
    begin();
  } catch (error) {
    tell(error instanceof TypeError ? words.again : error.message);
  } finally {
    byId("upload-send").disabled = false;
  }
});

function announce() {
  const fields = Object.fromEntries(new FormData(form));
  const { run = "", known_run = "", step = "", tokens_seen = "", kind = "pretrained" } = fields;
  const files = chosen.map((one) => ({ name: one.name, size: one.file.size, modified: one.file.lastModified }));
  return ask("POST", "/api/uploads", { run, known_run, step, tokens_seen, kind, files });
}

// --- sending

// A file is known again by its name in the folder, its size and when it was changed, whatever the folder above is called
// now: one that was written anew would become the end of the old one.
function match() {
  const inner = (name) => name.split("/").slice(1).join("/") || name;
  const find = (part, name) => chosen.find(({ name: own, file }) =>
    (own === name || inner(own) === name) && file.size === part.size && (!part.received || (part.modified ?? file.lastModified) === file.lastModified))?.file;
  return upload.files.map((part) => ({ ...part, file: find(part, part.name) ?? find(part, inner(part.name)) }));
}

function begin() {
  const parts = match();
  const missing = parts.filter((part) => !part.file && part.received < part.size).map((part) => part.name);
  if (missing.length) return tell(words.missing.replace("{names}", missing.slice(0, 5).join(", ")));
  byId("drop").hidden = true;
  byId("upload-run").hidden = false;
  history.replaceState(null, "", `/admin/upload?upload=${upload.id}`); // a reload leads on
  list(parts);
  sender = new Sender(parts, token);
  sender.addEventListener("progress", () => {
    state(words.sending);
    paint();
  });
  sender.addEventListener("trouble", () => {
    speed.forget();
    state(words.again);
    show(...(sender.isPaused ? ["resume", "cancel"] : ["pause", "cancel"]));
  });
  sender.addEventListener("stopped", (event) => {
    const { status, reason } = event.detail;
    show("resume", "cancel");
    state(words.paused);
    sender.isPaused = true;
    tell(status === 401 ? words.expired : words.stopped.replace("{reason}", reason));
  });
  sender.addEventListener("unreadable", () => {
    // The files must be chosen anew; what has arrived stays.
    form.dataset.upload = upload.id;
    byId("drop").hidden = false;
    state(words.paused);
    show("send", "cancel");
    tell(words.unreadable);
  });
  sender.addEventListener("done", () => {
    paint(true);
    watch();
  });
  show("pause", "cancel");
  state(words.sending);
  sender.start();
}

byId("upload-pause").addEventListener("click", () => {
  sender.pause();
  speed.forget();
  state(words.paused);
  show("resume", "cancel");
  byId("upload-resume").focus();
});

byId("upload-resume").addEventListener("click", () => {
  tell("");
  state(words.sending);
  show("pause", "cancel");
  byId("upload-pause").focus();
  sender.resume();
});

byId("upload-cancel").addEventListener("click", async () => {
  if (!confirm(words.cancel)) return;
  await sender.pause();
  try {
    await ask("DELETE", `/api/uploads/${upload.id}`);
    location.assign("/admin/upload");
  } catch (error) {
    tell(error instanceof TypeError ? words.again : error.message);
  }
});

// --- showing

function list(parts) {
  rows = parts.map((part) => {
    const row = document.createElement("li");
    const [name, amount, bar] = ["span", "span", "progress"].map((kind) => row.appendChild(document.createElement(kind)));
    name.className = "name";
    name.textContent = part.name;
    amount.className = "amount";
    bar.max = part.size || 1;
    bar.setAttribute("aria-label", part.name);
    return { part, row, amount, bar };
  });
  byId("upload-files").replaceChildren(...rows.map((one) => one.row));
  paint(true);
}

function paint(now = false) {
  if (!now && performance.now() - painted < paintMs) return;
  painted = performance.now();
  const sent = rows.reduce((sum, one) => sum + one.part.received, 0);
  speed.add(sent);
  byId("upload-total").value = sent / upload.size;
  const left = speed.perSecond ? ` · ${words.left.replace("{time}", duration((upload.size - sent) / speed.perSecond, words.units))}` : "";
  const rate = speed.perSecond ? ` · ${size(speed.perSecond)}/s` : "";
  byId("upload-said").textContent = `${size(sent)} / ${size(upload.size)}${rate}${left}`;
  for (const { part, row, amount, bar } of rows) {
    const isWhole = part.received >= part.size;
    bar.value = part.size ? part.received : 1;
    row.classList.toggle("is-whole", isWhole);
    amount.textContent = isWhole ? `${size(part.size)} ✓` : part.received ? `${size(part.received)} / ${size(part.size)}` : size(part.size);
  }
}

async function watch() {
  show();
  state(words.checking);
  byId("upload-said").textContent = "";
  for (;;) {
    try {
      upload = await ask("GET", `/api/uploads/${upload.id}`);
      byId("upload-total").value = upload.progress ?? 0;
      if (upload.location) return location.assign(upload.location);
      if (upload.status === "failed") {
        byId("upload-run").hidden = true;
        byId("drop").hidden = false;
        delete form.dataset.upload;
        history.replaceState(null, "", "/admin/upload");
        show("send");
        return tell(upload.error);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) return tell(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, watchMs));
  }
}
