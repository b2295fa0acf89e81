// The view: what is looked at and how. It lives in the address, so that a link shows the same to everybody.

const lists = ["tasks", "runs", "variants"];
const flags = ["band", "marks", "posts"];

export function read(search) {
  const asked = new URLSearchParams(search);
  const view = { x: asked.get("x") || "tokens", scale: asked.get("scale") || "linear", y: asked.get("y") || "" };
  view.smooth = Math.min(0.95, Math.max(0, Number(asked.get("smooth")) || 0));
  view.zoom = /^\d+(\.\d+)?~\d+(\.\d+)?$/.test(asked.get("zoom") || "") ? asked.get("zoom") : "";
  for (const name of lists) view[name] = (asked.get(name) || "").split(",").filter(Boolean);
  for (const name of flags) view[name] = asked.get(name) !== "0";
  return view;
}

export function write(view) {
  const said = new URLSearchParams();
  if (view.x !== "tokens") said.set("x", view.x);
  if (view.scale !== "linear") said.set("scale", view.scale);
  for (const name of ["y", "zoom"]) if (view[name]) said.set(name, view[name]);
  if (view.smooth) said.set("smooth", String(view.smooth));
  for (const name of lists) if (view[name].length) said.set(name, view[name].join(","));
  for (const name of flags) if (!view[name]) said.set(name, "0");
  const text = said.toString().replaceAll("%2C", ",").replaceAll("%7E", "~");
  return text ? `?${text}` : "";
}

export function fill(form, view) {
  for (const field of form.elements) {
    if (field.type === "radio") field.checked = view[field.name] === field.value;
    else if (field.name === "scale") field.checked = view.scale === "log";
    else if (flags.includes(field.name)) field.checked = view[field.name];
    else if (lists.includes(field.name)) field.checked = view[field.name].includes(field.value);
    else if (field.name === "y" || field.name === "smooth") field.value = String(view[field.name]);
  }
}

// The form's own part of the view; which curves are enlarged and the zoom are not in the form.
export function fromForm(form, view) {
  const data = new FormData(form);
  const next = { ...view, x: data.get("x"), scale: data.get("scale") || "linear", y: data.get("y") || "", smooth: Number(data.get("smooth")) };
  for (const name of flags) next[name] = data.has(name);
  for (const name of ["runs", "variants"]) next[name] = data.getAll(name);
  if (next.x !== view.x || next.scale !== view.scale) next.zoom = "";
  return next;
}
