// The upload form with a progress bar. Without this file the form works as plain forms do.
"use strict";

const form = document.getElementById("upload");
const error = document.getElementById("upload-error");
const progress = document.getElementById("upload-progress");
const said = document.getElementById("upload-said");
const cancel = document.getElementById("upload-cancel");
const send = form.querySelector("button[type=submit]");
const inputs = [...form.querySelectorAll("input[type=file]")];

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; bytes >= 1000 && at < units.length - 1; at += 1) bytes /= 1000;
  return `${bytes < 10 && at ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

function chosen() {
  return inputs.flatMap((input) => [...input.files]);
}

function tell(text) {
  error.textContent = text;
  error.hidden = !text;
  if (text) error.scrollIntoView({ block: "nearest" });
}

function busy(isBusy) {
  send.disabled = isBusy;
  cancel.hidden = !isBusy;
  progress.hidden = !isBusy;
}

for (const input of inputs) {
  input.addEventListener("change", () => {
    // Two sources at once would mix two checkpoints.
    for (const other of inputs) if (other !== input && input.files.length) other.value = "";
    const files = chosen();
    const total = files.reduce((sum, file) => sum + file.size, 0);
    if (files.length) document.getElementById("chosen").textContent = `${files.length} · ${size(total)} · ${files.slice(0, 6).map((file) => file.name).join(", ")}${files.length > 6 ? " …" : ""}`;
    tell("");
  });
}

// Files can be dropped on the box, too.
const drop = document.getElementById("drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("is-over", name === "dragover");
    if (name !== "drop" || !event.dataTransfer.files.length) return;
    inputs[0].files = event.dataTransfer.files;
    inputs[0].dispatchEvent(new Event("change"));
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const total = chosen().reduce((sum, file) => sum + file.size, 0);
  if (!chosen().length) return tell(form.dataset.empty);
  if (total > Number(form.dataset.max)) return tell(form.dataset.tooLarge);
  tell("");
  busy(true);
  upload();
});

function upload() {
  const request = new XMLHttpRequest();
  const bar = progress.querySelector("progress");
  bar.value = 0;
  said.textContent = "";
  cancel.onclick = () => request.abort();
  request.upload.addEventListener("progress", (event) => {
    bar.value = event.loaded / event.total;
    said.textContent = event.loaded < event.total ? `${form.dataset.sending}: ${size(event.loaded)} / ${size(event.total)}` : form.dataset.checking;
  });
  request.addEventListener("load", () => finish(request));
  request.addEventListener("error", () => fail(form.dataset.broken));
  request.addEventListener("abort", () => fail(""));
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "application/json");
  request.responseType = "json";
  request.send(new FormData(form));
}

function finish(request) {
  if (request.status === 200 && request.response) location.assign(request.response.location);
  else fail(request.response?.error || request.response?.detail || form.dataset.broken);
}

function fail(text) {
  busy(false);
  tell(text);
}
