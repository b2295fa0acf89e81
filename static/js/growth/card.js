// A small chart in its card: newest value, change, curve, table.
import { clear, draw } from "./chart.js";
import { latest } from "./curves.js";
import { layersOf } from "./layers.js";
import { changeText, valueText } from "../numbers.js";
import { attach } from "./table.js";

function head(card, layer, words) {
  const { series } = layer;
  const metric = card.querySelector(".chart-metric");
  metric.textContent = `${layer.isAbove ? words.above_chance : series.metric_name} `;
  const hint = document.createElement("span");
  hint.className = "faint";
  hint.textContent = series.higher_is_better ? words.higher : words.lower;
  metric.append(hint);
  const line = latest(layer);
  const [first, last] = line ? [line.points[0], line.points[line.points.length - 1]] : [];
  card.querySelector(".chart-value").textContent = last ? valueText(series.percent, last.y) : "–";
  const change = card.querySelector(".chart-change");
  const size = last && last !== first ? last.y - first.y : 0;
  change.textContent = last && last !== first ? changeText(series.percent, size) : "";
  change.title = words.since;
  change.className = `chart-change ${size === 0 ? "" : size > 0 === series.higher_is_better ? "good" : "bad"}`;
}

function earlier(card, layer, words) {
  const note = card.querySelector(".chart-line");
  const told = layer.lines.filter((line) => line.differs).map((line) => `${words.points_of.replace("{num}", line.points.length)}, ${words.earlier}: ${line.differs}`);
  note.hidden = !told.length;
  note.textContent = told.join("; ");
}

function stage(card, text) {
  const old = card.querySelector(".plot, .plot-empty");
  if (old.matches(text ? ".plot-empty" : ".plot")) {
    if (text) old.textContent = text;
    return old;
  }
  clear(old);
  const made = document.createElement("div");
  made.className = text ? "plot-empty" : "plot";
  if (text) made.textContent = text;
  else {
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", card.dataset.title);
  }
  old.replaceWith(made);
  return made;
}

export async function drawCard(card, run, view, words, { isUpdate = false } = {}) {
  const turn = (card.turn = (card.turn ?? 0) + 1);
  let found;
  try {
    found = await layersOf(run, view, [card.dataset.card], words, { ability: card.dataset.ability, isLoose: card.hasAttribute("data-milestones") });
  } catch {
    if (card.turn === turn) stage(card, words.broken);
    return null;
  }
  if (card.turn !== turn) return null; // the view has changed meanwhile
  const { layers, posts, warned } = found;
  const [main] = layers;
  head(card, main, words);
  earlier(card, main, words);
  const shown = layers.filter((layer) => layer.lines.length);
  card.dataset.drawn = String(main.lines.reduce((sum, line) => sum + line.points.length, 0));
  const hasScores = layers.some((layer) => layer.series.lines.length);
  if (!shown.length) {
    const failed = main.failures.length ? words.failed : words.waiting;
    stage(card, hasScores ? words.no_place : view.y && view.y !== "above_chance" ? words.none : failed);
  } else {
    const plot = stage(card, "");
    const newest = latest(shown[0]).points.at(-1);
    plot.setAttribute("aria-label", `${card.dataset.title}: ${valueText(shown[0].series.percent, newest.y)}`);
    draw(plot, shown, view, { small: true, words, pins: posts, warned, isUpdate, named: layers.length > 1 });
  }
  attach(card.querySelector("details"), shown, view, words);
  if (isUpdate) {
    card.classList.remove("is-update");
    card.getBoundingClientRect(); // begins the animation anew
    card.classList.add("is-update");
  }
  return { posts, layers };
}
