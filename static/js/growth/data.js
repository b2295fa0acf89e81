// Curves from /api/v1: asked for in bundles, kept until a new result arrives.

const bundle = 10; // tasks in one request
const kept = new Map();
let waiting = new Map();

const past = JSON.parse(document.getElementById("growth-past").textContent);

// The runs, kinds and precisions that a view lays over each other, the page's own first. What a run goes on
// from is drawn with it, up to the step where it began; times since the beginning of two runs do not line up.
export function sources(run, view) {
  const found = [{ run, kind: "pretrained", precision: 16, goneAfter: past.superseded_after }];
  for (const one of view.x === "time" ? [] : past.ancestors) found.push({ run: one.run, kind: "pretrained", precision: 16, until: one.until, isPast: true });
  for (const name of view.variants) {
    const [kind, precision] = name.split("-");
    found.push({ run, kind, precision: Number(precision) });
  }
  for (const name of view.runs) if (!found.some((one) => one.run === name)) found.push({ run: name, kind: "pretrained", precision: 16 });
  return found;
}

function base(source, view) {
  const metric = view.y === "above_chance" ? "" : view.y;
  const asked = new URLSearchParams({ x: view.x });
  if (metric) asked.set("metric", metric);
  if (source.kind !== "pretrained") asked.set("kind", source.kind);
  if (source.precision !== 16) asked.set("precision", source.precision);
  return `/api/v1/runs/${encodeURIComponent(source.run)}/growth?${asked}`;
}

export function address(source, view, tasks, suffix = "") {
  const names = tasks.length ? `&tasks=${tasks.map(encodeURIComponent).join(",")}` : "";
  return base(source, view).replace("/growth?", `/growth${suffix}?`) + names;
}

async function send(root, asked) {
  const names = [...asked.keys()];
  try {
    const answer = await fetch(`${root}&tasks=${names.map(encodeURIComponent).join(",")}`, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const found = await answer.json();
    for (const [at, name] of names.entries()) asked.get(name).resolve({ series: found.series[at], posts: found.posts, warned: found.warned_steps });
  } catch (error) {
    for (const [name, one] of asked) {
      kept.delete(`${root} ${name}`);
      one.reject(error);
    }
  }
}

function flush() {
  const asked = waiting;
  waiting = new Map();
  for (const [root, tasks] of asked) {
    const entries = [...tasks];
    for (let at = 0; at < entries.length; at += bundle) send(root, new Map(entries.slice(at, at + bundle)));
  }
}

// One task of one source: {series, posts, warned}.
export function load(source, view, task) {
  const root = base(source, view);
  const key = `${root} ${task}`;
  if (!kept.has(key)) {
    if (!waiting.size) setTimeout(flush);
    const promise = new Promise((resolve, reject) => {
      const tasks = waiting.get(root) ?? new Map();
      tasks.set(task, { resolve, reject });
      waiting.set(root, tasks);
    });
    kept.set(key, promise);
  }
  return kept.get(key);
}

export function forget(task) {
  for (const key of kept.keys()) if (key.endsWith(` ${task}`)) kept.delete(key);
}
