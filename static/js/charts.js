// The chart element: <figure data-chart> with its data in a JSON block and a <div class="plot">.
// The server decides what is drawn and every word; this file decides how it looks.
"use strict";

const drawn = new WeakMap();
const still = matchMedia("(prefers-reduced-motion: reduce)");

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function fade(colour, share) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${share})`;
}

function short(value) {
  const magnitude = Math.abs(value);
  if (magnitude >= 1e15) return value.toExponential(0);
  const units = document.documentElement.lang.startsWith("zh") ? [[1e8, "亿"], [1e4, "万"]] : [[1e9, "B"], [1e6, "M"], [1e3, "K"]];
  for (const [size, name] of units) if (magnitude >= size) return `${+(value / size).toPrecision(3)}${name}`;
  return `${+value.toPrecision(3)}`;
}

function xLabel(chart, value) {
  if (chart.x_axis !== "time") return short(value);
  if (value >= 5400) return `${+(value / 3600).toPrecision(2)} h`;
  return value >= 90 ? `${Math.round(value / 60)} min` : `${Math.round(value)} s`;
}

function yLabel(chart, value) {
  if (chart.percent) return `${Math.round(value * 1000) / 10}%`;
  return Math.abs(value) > 0 && Math.abs(value) < 0.001 ? value.toExponential(0) : short(value);
}

function escape(text) {
  const box = document.createElement("i");
  box.textContent = text;
  return box.innerHTML;
}

function tooltip(chart, index) {
  const dot = chart.dots[index];
  const lines = [`<strong>${escape(dot.y_text)}</strong> ${escape(chart.metric_name || chart.title)}`];
  if (dot.range_text) lines.push(`<span>${escape(chart.band)}: ${escape(dot.range_text)}</span>`);
  if (dot.n) lines.push(`<span>${dot.n} ${escape(chart.words.items)}</span>`);
  lines.push(`<span>${escape(dot.x_text)}</span>`);
  if (dot.href) lines.push(`<em>${escape(chart.words.open)}</em>`);
  return lines.join("<br>");
}

function bounds(chart) {
  const values = chart.dots.flatMap((dot) => [dot.y, dot.low, dot.high]).filter((value) => value !== null);
  if (chart.chance !== null) values.push(chart.chance);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return { min: low >= 0 ? Math.max(0, low - margin) : low - margin, max: high + margin };
}

function bandSeries(chart, colour) {
  // Two stacked areas: an invisible one up to `low`, then the width of the interval.
  const edges = chart.dots.map((dot) => (dot.low === null ? [dot.x, dot.y, dot.y] : [dot.x, dot.low, dot.high]));
  const common = { type: "line", stack: "band", stackStrategy: "all", symbol: "none", silent: true, lineStyle: { opacity: 0 }, tooltip: { show: false }, animation: false };
  return [
    { ...common, name: "low", data: edges.map(([x, low]) => [x, low]) },
    { ...common, name: "band", data: edges.map(([x, low, high]) => [x, high - low]), areaStyle: { color: fade(colour, 0.16), opacity: 1 } },
  ];
}

function lineSeries(chart, colour, animate) {
  const dense = chart.dots.length > 60;
  const last = chart.dots.length - 1;
  return {
    name: "value", type: "line", z: 5, animation: animate,
    data: chart.dots.map((dot, index) => ({
      value: [dot.x, dot.y],
      symbolSize: index === last ? 9 : 5,
      itemStyle: index === last ? { color: colour, borderColor: css("surface"), borderWidth: 2 } : { color: colour },
    })),
    symbol: dense ? "none" : "circle", showSymbol: !dense,
    lineStyle: { width: dense ? 1.6 : 2.2, color: colour },
    emphasis: { scale: 1.5 },
    markLine: chart.chance === null ? undefined : {
      silent: true, symbol: "none", animation: false,
      data: [{ yAxis: chart.chance }],
      lineStyle: { color: css("ink-faint"), type: [3, 4], width: 1 },
      label: { formatter: chart.chance_text, position: "insideEndTop", color: css("ink-faint"), fontSize: 11, fontFamily: css("sans") },
    },
  };
}

function options(chart, animate, small) {
  const colour = css(chart.colour);
  const faint = css("ink-faint");
  const text = { color: faint, fontSize: 11, fontFamily: css("sans") };
  const edge = bounds(chart);
  return {
    animationDuration: 700, aria: { enabled: false },
    grid: { left: 4, right: 14, top: 12, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: {
      type: "value", min: ({ min, max }) => (min >= 0 && min < 0.1 * max ? 0 : min), max: "dataMax",
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
      trigger: "axis", confine: true, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1,
      padding: [8, 12], textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") },
      formatter: (items) => tooltip(chart, items[items.length - 1].dataIndex),
    },
    series: [...(chart.band ? bandSeries(chart, colour) : []), lineSeries(chart, colour, animate)],
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
  figure.dataset.drawn = String(chart.dots.length);
}

// The whole plot is the target: the nearest checkpoint opens, as the pointer line shows.
function open(chart, view, event) {
  if (!chart.dots[0].href || !view.containPixel("grid", [event.offsetX, event.offsetY])) return;
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
