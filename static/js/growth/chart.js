// One ECharts view on a page: drawing, clicking, walking along it by keyboard.
import { options } from "./options.js";
import { still, touch } from "../theme.js";
import { checkpointHref, describe } from "./tooltip.js";
import { latest } from "./curves.js";

const views = new WeakMap();

export function draw(plot, layers, view, extra) {
  const shown = layers.filter((layer) => layer.lines.length);
  let made = views.get(plot);
  if (!made) {
    made = { chart: echarts.init(plot), at: -1 };
    views.set(plot, made);
    new ResizeObserver(() => made.chart.resize()).observe(plot);
    made.chart.getZr().on("click", (event) => open(made, event));
    plot.addEventListener("keydown", (event) => walk(made, event));
  }
  const animate = !made.layers && !still.matches && !extra.isUpdate;
  Object.assign(made, { layers: shown, view, extra });
  made.chart.setOption(options(shown, view, { ...extra, animate }), true);
  return made.chart;
}

export function clear(plot) {
  views.get(plot)?.chart.dispose();
  views.delete(plot);
}

// The whole plot is the target: the nearest checkpoint opens, as the pointer line shows. A finger has
// only the tap to see the numbers with, so there the tooltip carries the links.
function open({ chart, layers }, event) {
  if (touch.matches || !layers.length || !chart.containPixel("grid", [event.offsetX, event.offsetY])) return;
  const [x] = chart.convertFromPixel("grid", [event.offsetX, event.offsetY]);
  const candidates = layers.flatMap((layer) => latest(layer).points.map((point) => ({ layer, point, far: Math.abs(point.x - x) })));
  const near = candidates.reduce((best, one) => (one.far < best.far ? one : best));
  location.assign(checkpointHref(near.layer.source, near.point.step));
}

function walk(made, event) {
  const layer = made.layers?.[0];
  if (!layer) return;
  const { points } = latest(layer);
  const to = { ArrowRight: made.at + 1, ArrowLeft: made.at < 0 ? points.length - 1 : made.at - 1, Home: 0, End: points.length - 1 }[event.key];
  if (event.key === "Enter" && made.at >= 0) location.assign(checkpointHref(layer.source, points[made.at].step));
  if (event.key === "Escape") made.chart.dispatchAction({ type: "hideTip" });
  if (to === undefined) return;
  event.preventDefault();
  made.at = Math.min(points.length - 1, Math.max(0, to));
  const series = made.chart.getOption().series;
  const seriesIndex = series.findIndex((one) => one.id === `raw:${layer.key}:${layer.lines.length - 1}`);
  const dataIndex = series[seriesIndex].data.findIndex((one) => one.place?.[2] === made.at);
  made.chart.dispatchAction({ type: "showTip", seriesIndex, dataIndex });
  const said = describe(points[made.at], layer, made.view, made.extra.words);
  made.extra.say?.([layer.label, said.head, said.interval, said.verdict, said.at].filter(Boolean).join(". "));
}
