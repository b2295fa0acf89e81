// The table under a chart: the same points as text, for those who cannot or do not want to see the curve.
import { axisX, valueText, whole } from "../numbers.js";
import { checkpointHref, shapes } from "./tooltip.js";

function cell(row, tag, content, isNumber) {
  const node = document.createElement(tag);
  node.append(content);
  if (isNumber) node.className = "num";
  row.append(node);
  return node;
}

function anchor(href, text) {
  const node = document.createElement("a");
  node.href = href;
  node.textContent = text;
  return node;
}

function rowsOf(layer) {
  const points = layer.lines.flatMap((line) => line.points.map((point) => ({ point, line })));
  const failures = layer.failures.map((failure) => ({ point: { ...failure, y: null, low: null, high: null, verdict: "", n: null, evaluation: failure.evaluation_id }, line: null }));
  return [...points, ...failures].sort((a, b) => b.point.step - a.point.step);
}

function table(layers, view, words) {
  const many = layers.length > 1;
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  const columns = [...(many ? [""] : []), words.step, words[`axis_${view.x}`], words.value, words.interval, words.items, words.verdict, words.protocol];
  for (const [at, text] of columns.entries()) {
    const th = cell(head, "th", text || "–", at > (many ? 0 : -1) && at < columns.length - 2);
    th.scope = "col";
  }
  const body = made.createTBody();
  for (const layer of layers) {
    for (const { point, line } of rowsOf(layer)) {
      const row = body.insertRow();
      const { percent } = layer.series;
      if (many) cell(row, "td", layer.label);
      const first = cell(row, "th", anchor(checkpointHref(layer.source, point.step), whole(point.step)), true);
      first.scope = "row";
      cell(row, "td", axisX(view.x, point.x), true);
      cell(row, "td", anchor(`/evaluations/${point.evaluation}`, line ? valueText(percent, point.y) : words.failed), true);
      cell(row, "td", point.low === null ? "" : `${valueText(percent, point.low)} – ${valueText(percent, point.high)}`, true);
      cell(row, "td", point.n === null ? "" : whole(point.n), true);
      cell(row, "td", point.verdict ? `${shapes[point.verdict]} ${words[point.verdict]}` : "");
      cell(row, "td", line ? line.summary + (line.imported ? ` · ${words.imported}` : "") + (line.isGone ? ` · ${words.superseded}` : "") : "");
    }
  }
  return made;
}

// Made when it is asked for: a thousand rows under every chart would slow the page. The click comes before
// the unfolding, so that the next Tab finds the table's links.
export function attach(details, layers, view, words) {
  const make = () => details.querySelector(".table-wrap").replaceChildren(table(layers, view, words));
  details.querySelector("summary").onclick = () => { if (!details.open) make(); };
  if (details.open) make();
}
