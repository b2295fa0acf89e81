// The large chart: one or several curves over each other, with zoom, keyboard and the emergence microscope.
import { draw } from "./chart.js";
import { css } from "../theme.js";
import { layersOf } from "./layers.js";
import { attach } from "./table.js";

function chip(layer, words, onRemove) {
  const item = document.createElement("li");
  item.className = "chip";
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.borderTopColor = css(layer.colour);
  swatch.style.borderTopStyle = layer.dash === "solid" ? "solid" : "dashed";
  item.append(swatch, layer.label);
  if (onRemove) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "link";
    button.textContent = "×";
    button.setAttribute("aria-label", `${words.remove}: ${layer.label}`);
    button.addEventListener("click", () => onRemove(layer.task));
    item.append(button);
  }
  return item;
}

function note(layers, view, words) {
  const shown = document.getElementById("focus-note");
  if (!shown) return;
  const told = layers.flatMap((layer) => layer.lines.filter((line) => line.differs).map((line) => `${layer.label}: ${words.points_of.replace("{num}", line.points.length)}, ${words.earlier}: ${line.differs}`));
  for (const layer of layers) if (!layer.lines.length) told.push(`${layer.label}: ${layer.series.lines.length ? words.no_place : words.none}`);
  shown.hidden = !told.length;
  shown.textContent = told.join(" · ");
}

// Draws into the page's elements of these ids; resolves to the layers, or null where there was nothing to draw.
export async function drawFocus(run, view, words, { onRemove, onZoom, isUpdate } = {}) {
  const plot = document.getElementById("focus-plot");
  const turn = (plot.turn = (plot.turn ?? 0) + 1);
  const found = await layersOf(run, view, view.tasks, words);
  if (plot.turn !== turn) return null;
  const shown = found.layers.filter((layer) => layer.lines.length);
  document.getElementById("focus-chips").replaceChildren(...found.layers.map((layer) => chip(layer, words, onRemove)));
  note(found.layers, view, words);
  const say = (text) => { document.getElementById("growth-said").textContent = text; };
  const extra = { small: false, words, pins: found.posts, warned: found.warned, isUpdate, say, named: found.layers.length > 1, endLabels: shown.length > 1 && plot.clientWidth > 700 };
  if (shown.length) {
    const chart = draw(plot, shown, view, extra);
    chart.off("datazoom");
    chart.on("datazoom", () => {
      const [{ start, end }] = chart.getOption().dataZoom;
      onZoom?.(start === 0 && end === 100 ? "" : `${+start.toFixed(1)}~${+end.toFixed(1)}`);
    });
  }
  plot.dataset.drawn = String(shown.reduce((sum, layer) => sum + layer.lines.reduce((all, line) => all + line.points.length, 0), 0));
  attach(document.getElementById("focus-table"), shown, view, words);
  return { layers: shown, extra };
}
