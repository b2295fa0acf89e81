// What hovering a point tells: value, interval, n, tokens, protocol. Built as nodes: titles and errors are not ours.
import { axisX, valueText, whole } from "../numbers.js";
import { touch } from "../theme.js";
import { noteShown } from "../tips.js";

export const shapes = { gain: "▲", loss: "▼", "within noise": "●" };

function row(box, tag, text) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (box.childNodes.length) box.append(document.createElement("br"));
  box.append(node);
  return node;
}

function link(href, text) {
  const node = document.createElement("a");
  node.href = href;
  node.textContent = text;
  return node;
}

export function checkpointHref(source, step) {
  const extra = new URLSearchParams();
  if (source.kind !== "pretrained") extra.set("kind", source.kind);
  if (source.precision !== 16) extra.set("precision", source.precision);
  const query = extra.toString();
  return `/runs/${encodeURIComponent(source.run)}/checkpoints/${step}${query ? `?${query}` : ""}`;
}

export function describe(point, layer, view, words) {
  const { series } = layer;
  const place = view.x === "tokens" || point.tokens === null ? [] : [`${axisX("tokens", point.tokens)} ${words.axis_tokens}`];
  const interval = point.low === null ? [] : [`${words.interval}: ${valueText(series.percent, point.low)} – ${valueText(series.percent, point.high)}`];
  return {
    head: `${valueText(series.percent, point.y)} ${layer.isAbove ? words.above_chance : series.metric_name}`,
    interval: interval[0] ?? "",
    verdict: point.verdict ? `${shapes[point.verdict]} ${words[point.verdict]}` : "",
    at: [`${words.step} ${whole(point.step)}`, ...(view.x === "step" ? [] : [`${axisX(view.x, point.x)} ${words[`axis_${view.x}`]}`]), ...place, `${whole(point.n)} ${words.items}`].join(" · "),
  };
}

function one(box, point, layer, line, view, extra) {
  const { words } = extra;
  const said = describe(point, layer, view, words);
  if (extra.named) row(box, "i", layer.label);
  row(box, "strong", said.head + (line.imported ? ` · ${words.imported}` : "") + (line.isGone ? ` · ${words.superseded}` : ""));
  if (said.interval) row(box, "span", said.interval);
  if (said.verdict) row(box, "b", said.verdict);
  row(box, "span", said.at);
  if (line.summary) row(box, "span", line.differs ? `${line.summary} (${words.earlier}: ${line.differs})` : line.summary);
  if (layer.isMain && extra.warned?.includes(point.step)) row(box, "span", `⚠ ${words.warned}`);
  if (!touch.matches) return;
  const links = row(box, "span", "");
  links.append(link(checkpointHref(layer.source, point.step), words.checkpoint), " · ", link(`/evaluations/${point.evaluation}`, words.answers));
}

function atFailure(box, [key, at], layers, words) {
  const failure = layers.find((layer) => layer.key === key)?.failures[at];
  if (!failure) return;
  row(box, "strong", words.failed);
  row(box, "span", failure.error);
}

export function tooltip(items, layers, view, extra) {
  noteShown();
  const box = document.createElement("div");
  const seen = new Set();
  for (const item of items) {
    const { place, failure } = item.data ?? {};
    if (failure) atFailure(box, failure, layers, extra.words);
    if (!place || seen.has(place.join())) continue;
    seen.add(place.join());
    const [key, number, at] = place;
    const layer = layers.find((one) => one.key === key);
    if (!layer) continue;
    if (box.childNodes.length) box.append(document.createElement("hr"));
    const part = document.createElement("div");
    one(part, layer.lines[number].points[at], layer, layer.lines[number], view, extra);
    box.append(part);
  }
  if (!box.childNodes.length) return "";
  if (!touch.matches && seen.size) row(box, "em", extra.words.open);
  return box;
}

