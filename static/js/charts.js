// The chart element: <figure data-chart> with its data in a JSON block and a <div class="plot">.
// The server decides what is drawn and every word; this file decides how it looks.
import { css, fade, still, touch } from "./theme.js";
import { axisNumber, compactText } from "./numbers.js";
import { noteShown } from "./tips.js";

const drawn = new WeakMap();
const dense = 60; // more points than this have no room for a mark each
const marks = { gain: "▲", loss: "▼", "within noise": "●" };

function xLabel(chart, value) {
  if (chart.x_axis !== "time") return compactText(value);
  if (value >= 5400) return `${+(value / 3600).toPrecision(2)} h`;
  return value >= 90 ? `${Math.round(value / 60)} min` : `${Math.round(value)} s`;
}

function yLabel(chart, value) {
  if (chart.percent) return `${Math.round(value * 1000) / 10}%`;
  if (chart.is_whole) return String(Math.round(value));
  return axisNumber(value);
}

function escape(text) {
  const box = document.createElement("i");
  box.textContent = text;
  return box.innerHTML;
}

function tooltip(chart, index) {
  const dot = chart.dots[index];
  const line = chart.lines[dot.line];
  const lines = [];
  if (dot.failed) {
    lines.push(`<strong>${escape(chart.words.failed)}</strong>`, `<span>${escape(dot.failed)}</span>`);
  } else {
    lines.push(`<strong>${escape(dot.y_text)}</strong> ${escape(chart.metric_name || chart.title)}${dot.imported ? ` · ${escape(chart.words.imported)}` : ""}`);
    if (dot.range_text) lines.push(`<span>${escape(chart.band)}: ${escape(dot.range_text)}</span>`);
    if (dot.verdict) lines.push(`<b>${marks[dot.verdict]} ${escape(chart.words[dot.verdict])}</b>`);
  }
  const at = [dot.x_text, dot.tokens_text, dot.n && `${dot.n} ${chart.words.items}`].filter(Boolean);
  lines.push(`<span>${escape(at.join(" · "))}</span>`);
  if (line.summary && !dot.failed) lines.push(`<span>${escape(line.summary)}${line.differs ? ` (${escape(chart.words.earlier)})` : ""}</span>`);
  if (dot.warned) lines.push(`<span>⚠ ${escape(chart.words.warned)}</span>`);
  if (dot.href && !touch.matches) lines.push(`<em>${escape(chart.words.open)}</em>`);
  if (dot.href && touch.matches) lines.push(`<a href="${dot.href}">${escape(chart.words.checkpoint)}</a> · <a href="${dot.evaluation_href}">${escape(chart.words.answers)}</a>`);
  return lines.join("<br>");
}

// The dots of every line at the place of the pointer, the latest protocol first; bands and gaps carry none.
function tooltips(chart, items) {
  noteShown();
  const found = new Set(items.map((item) => item.data.dot).filter((dot) => dot !== undefined));
  return [...found].sort((a, b) => chart.dots[b].line - chart.dots[a].line).map((dot) => tooltip(chart, dot)).join("<hr>");
}

function bounds(chart) {
  const values = chart.dots.flatMap((dot) => [dot.y, dot.low, dot.high]).filter((value) => value !== undefined);
  if (chart.chance !== null) values.push(chart.chance);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return { min: low >= 0 ? Math.max(0, low - margin) : low - margin, max: high + margin };
}

// The dots of one line in order, each with its number among all, and null where two are not joined.
function placesOn(chart, number) {
  const places = [];
  chart.dots.forEach((dot, index) => {
    if (dot.line !== number) return;
    if (dot.after_gap && places.length) places.push(null);
    places.push(index);
  });
  return places;
}

function bandSeries(chart, places, number, colour) {
  // Two stacked areas: an invisible one up to `low`, then the width of the interval.
  const edges = places.map((index) => {
    const dot = index === null ? {} : chart.dots[index];
    if (dot.y === undefined) return [dot.x ?? null, null, null];
    return dot.low === undefined ? [dot.x, dot.y, dot.y] : [dot.x, dot.low, dot.high];
  });
  const common = { type: "line", stack: `band${number}`, stackStrategy: "all", symbol: "none", silent: true, lineStyle: { opacity: 0 }, tooltip: { show: false }, animation: false };
  const share = number === chart.lines.length - 1 ? 0.16 : 0.07;
  return [
    { ...common, data: edges.map(([x, low]) => [x, low]) },
    { ...common, data: edges.map(([x, low, high]) => [x, low === null ? null : high - low]), areaStyle: { color: fade(colour, share), opacity: 1 } },
  ];
}

// A verdict has a shape of its own; what was measured elsewhere is hollow.
function mark(dot, colour, isLast, isDense) {
  const pointed = dot.verdict === "gain" || dot.verdict === "loss";
  if (isDense && !isLast && !dot.imported) return { symbol: "none" };
  const itemStyle = dot.imported ? { color: css("surface"), borderColor: colour, borderWidth: 1.6 }
    : isLast ? { color: colour, borderColor: css("surface"), borderWidth: 2 } : { color: colour };
  const size = pointed ? 8 : 5;
  return { symbol: pointed ? "triangle" : "circle", symbolRotate: dot.verdict === "loss" ? 180 : 0, symbolSize: isLast ? size + 4 : dot.imported ? size + 2 : size, itemStyle };
}

function markLines(chart, dots, isLatest, isLoose, colour) {
  const data = [];
  if (isLatest && chart.chance !== null) {
    data.push({
      yAxis: chart.chance,
      lineStyle: { color: css("ink-faint"), type: [3, 4], width: 1 },
      label: { show: true, formatter: chart.chance_text, position: "insideEndTop", color: css("ink-faint"), fontSize: 11, fontFamily: css("sans") },
    });
  }
  // A band around a single point has no width, so its interval is a whisker.
  for (const dot of isLoose || dots.length === 1 ? dots : []) {
    if (dot.low !== undefined) data.push([{ coord: [dot.x, dot.low], lineStyle: { color: fade(colour, 0.45), type: "solid", width: 2 } }, { coord: [dot.x, dot.high] }]);
  }
  return data.length ? { silent: true, symbol: "none", animation: false, label: { show: false }, data } : undefined;
}

function lineSeries(chart, places, number, colour, animate) {
  const isLatest = number === chart.lines.length - 1;
  const { is_loose: isLoose } = chart.lines[number];
  const dots = places.filter((index) => index !== null).map((index) => chart.dots[index]).filter((dot) => dot.y !== undefined);
  const isDense = dots.length > dense;
  return {
    type: "line", z: isLatest ? 5 : 4, animation: animate,
    data: places.map((index) => {
      if (index === null) return { value: [null, null] };
      const dot = chart.dots[index];
      return { dot: index, value: [dot.x, dot.y ?? null], ...mark(dot, colour, isLatest && dot === dots[dots.length - 1], isDense) };
    }),
    showSymbol: true,
    lineStyle: { width: isLatest ? (isDense ? 1.6 : 2.2) : 1.3, type: isLatest ? "solid" : [5, 4], color: colour, opacity: isLoose ? 0 : isLatest ? 1 : 0.8 },
    emphasis: { scale: 1.5 },
    markLine: markLines(chart, dots, isLatest, isLoose, colour),
  };
}

function allSeries(chart, colour, animate) {
  return chart.lines.flatMap((line, number) => {
    const places = placesOn(chart, number);
    const bands = chart.band && !line.is_loose ? bandSeries(chart, places, number, colour) : [];
    return [...bands, lineSeries(chart, places, number, colour, animate)];
  });
}

function options(chart, animate, small) {
  const colour = css(chart.colour);
  const faint = css("ink-faint");
  const text = { color: faint, fontSize: 11, fontFamily: css("sans") };
  const edge = bounds(chart);
  const isLoose = chart.lines.some((line) => line.is_loose);
  return {
    animationDuration: 700, aria: { enabled: false },
    grid: { left: 4, right: 14, top: 12, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: {
      type: "value", min: ({ min, max }) => (min >= 0 && (isLoose || min < 0.1 * max) ? 0 : min), max: "dataMax",
      axisLabel: { ...text, formatter: (value) => xLabel(chart, value), hideOverlap: true, showMinLabel: true, showMaxLabel: false },
      axisLine: { lineStyle: { color: css("line-strong") } }, axisTick: { show: false }, splitLine: { show: false },
      splitNumber: small ? 3 : 6,
      axisPointer: { show: true, snap: true, label: { show: false }, lineStyle: { color: css("line-strong"), type: "solid" } },
    },
    yAxis: {
      type: "value", ...edge, splitNumber: small ? 3 : 5,
      axisLabel: { ...text, formatter: (value) => yLabel(chart, value), showMinLabel: false, showMaxLabel: false },
      splitLine: { showMinLine: false, showMaxLine: false, lineStyle: { color: css("line"), width: 1 } }, axisLine: { show: false }, axisTick: { show: false },
    },
    tooltip: {
      trigger: "axis", confine: true, enterable: touch.matches, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1,
      padding: [8, 12], textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") },
      formatter: (items) => tooltips(chart, items),
    },
    series: allSeries(chart, colour, animate),
  };
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const points = figure.querySelector("script[type='application/json']");
  if (!plot || !points) return; // no score yet: the figure says so in words
  const chart = JSON.parse(points.textContent);
  if (chart.dots.length === 0) return;
  const old = drawn.get(plot);
  const view = old ?? echarts.init(plot);
  const animate = !old && !still.matches && !figure.classList.contains("is-update");
  view.setOption(options(chart, animate, plot.clientWidth < 460), true);
  if (!old) {
    view.getZr().on("click", (event) => open(chart, view, event));
    new ResizeObserver(() => view.resize()).observe(plot);
    drawn.set(plot, view);
  }
  figure.dataset.drawn = String(chart.dots.filter((dot) => dot.y !== undefined).length);
}

// The whole plot is the target: the nearest checkpoint opens, as the pointer line shows. A finger has
// only the tap to see the numbers with, so there the tooltip carries the links.
function open(chart, view, event) {
  if (touch.matches || !chart.dots[0].href || !view.containPixel("grid", [event.offsetX, event.offsetY])) return;
  const [x] = view.convertFromPixel("grid", [event.offsetX, event.offsetY]);
  const nearest = chart.dots.reduce((best, dot) => (Math.abs(dot.x - x) < Math.abs(best.x - x) ? dot : best));
  location.assign(nearest.href);
}

// Charts below the fold are drawn when they come near.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    near.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "300px" });

function find(root) {
  const figures = root.matches?.("[data-chart]") ? [root] : root.querySelectorAll("[data-chart]");
  figures.forEach((figure) => near.observe(figure));
}

function redrawAll() {
  document.querySelectorAll("[data-chart][data-drawn]").forEach(draw);
}

// An updated chart replaces the old one in the page: the old view is let go, the new one drawn at once.
document.addEventListener("htmx:beforeCleanupElement", (event) => {
  const plot = event.detail.elt;
  drawn.get(plot)?.dispose();
  drawn.delete(plot);
});
document.addEventListener("htmx:load", (event) => {
  const figure = event.detail.elt;
  if (figure.matches?.("[data-chart].is-update")) draw(figure);
  else find(figure);
});
document.addEventListener("themechange", redrawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
find(document);
