// The training page: charts of what the trainer measured, on one axis and in one view for all of them.
// The server gives columns of numbers and every word; the address keeps the axis, scales and smoothing.
import { css, fade, still, touch } from "./theme.js";

const lang = document.documentElement.lang.startsWith("zh") ? "zh-CN" : "en";
const compact = new Intl.NumberFormat(lang, { notation: "compact", maximumSignificantDigits: 3 });
const plain = new Intl.NumberFormat(lang);
const calmMs = 4000; // a live run logs every few seconds
const settleMs = 400; // a zoom comes in many small steps
const gapTimes = 8; // a distance so many times the usual one is a gap
const words = JSON.parse(document.getElementById("training-words").textContent);

const views = new Map(); // panel key -> echarts instance
const hidden = new Set(); // "panel|trace" that the reader has switched off
const state = { x: "tokens", logx: false, logy: false, smooth: 0, zoom: [0, 100] };
let detail = null; // the stretch in view, where it is known in more detail than the whole
let training = JSON.parse(document.getElementById("training-data").textContent);

// An exponential moving average by distance, not by point, as W&B draws it: a held-out loss that is measured
// a hundred times less often is not dragged behind. Both sums fade alike, so the beginning is not pulled to zero.
function smoothed(steps, values, weight) {
  const range = steps[steps.length - 1] - steps[0] || 1;
  let [sum, count] = [0, 0];
  return values.map((value, index) => {
    const fading = index ? Math.sqrt(weight) ** ((1000 * (steps[index] - steps[index - 1])) / range) : 0;
    sum = sum * fading + value;
    count = count * fading + 1;
    return sum / count;
  });
}

// Stretches of places without a gap between them.
function stretches(xs) {
  const distances = xs.slice(1).map((x, index) => x - xs[index]).sort((a, b) => a - b);
  const usual = distances[Math.floor(distances.length / 2)];
  const found = [];
  xs.forEach((x, index) => {
    const isGap = distances.length > 3 && index > 0 && x - xs[index - 1] > gapTimes * usual;
    if (!index || isGap) found.push([]);
    found[found.length - 1].push(index);
  });
  return found;
}

function withGaps(xs, ys) {
  return stretches(xs).flatMap((places, number) => {
    const points = places.map((index) => [xs[index], ys[index]]);
    return number ? [[xs[places[0]], null], ...points] : points;
  });
}

function sum(shares) {
  return Object.values(shares).reduce((total, share) => total + share, 0);
}

function duration(seconds) {
  if (seconds >= 129600) return `${+(seconds / 86400).toFixed(2)} d`;
  if (seconds >= 5400) return `${+(seconds / 3600).toFixed(2)} h`;
  return seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds)} s`;
}

const axisText = { tokens: (value) => compact.format(value), step: (value) => compact.format(value), time: duration };
const fullText = { tokens: (value) => compact.format(value), step: (value) => plain.format(Math.round(value)), time: duration };

function valueText(panel, value) {
  if (panel.form === "share") return `${(100 * value).toFixed(1)}%`;
  if (panel.form === "rate" || (value !== 0 && Math.abs(value) < 0.001)) return value.toExponential(2);
  return Math.abs(value) < 100 ? value.toFixed(3) : plain.format(Math.round(value));
}

function yText(panel, value) {
  if (panel.form === "share") return `${Math.round(100 * value)}%`;
  if (panel.form === "rate" && Math.abs(value) >= 1e-4) return `${+value.toPrecision(2)}`;
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(0) : compact.format(value);
}

// The axis: the same ends in every chart, so that one look goes down the page.
function columns(trace) {
  const xs = trace[state.x];
  return state.logx ? xs.map((x) => (x > 0 ? x : null)) : xs;
}

function placesOf(trace) {
  const xs = columns(trace);
  return xs.map((_, index) => index).filter((index) => xs[index] !== null);
}

function extent() {
  const all = training.panels.flatMap((panel) => panel.traces).flatMap(columns).filter((x) => x !== null);
  if (!all.length) return [0, 1];
  const [low, high] = all.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  if (low === high) return [state.logx ? low / 2 : Math.max(0, low - 1), high + 1];
  return [!state.logx && low < 0.05 * high ? 0 : low, high];
}

function ownOf(panel) {
  return panel.traces.find((trace) => trace.role === "own");
}

function isHidden(panel, trace) {
  return hidden.has(`${panel.key}|${trace.role === "superseded" ? "superseded" : `${trace.role} ${trace.key} ${trace.run}`}`);
}

function lineOf(panel, trace, colour, isFirst, isSmall) {
  const base = { type: "line", showSymbol: trace.y.length < 2, symbolSize: 6, animation: false, connectNulls: false, itemStyle: { color: colour } };
  const xs = columns(trace);
  const places = placesOf(trace);
  const at = places.map((index) => xs[index]);
  const raw = places.map((index) => trace.y[index]);
  if (panel.is_stacked) return [{ ...base, z: 3, data: at.map((x, index) => [x, raw[index]]), stack: "share", symbol: "none", lineStyle: { width: 1, color: colour }, areaStyle: { color: fade(colour, 0.75), opacity: 1 } }];
  const isOwn = trace.role === "own";
  const style = { own: { type: "solid", width: isFirst ? 2 : 1.6 }, branch: { type: "solid", width: 1.2 }, superseded: { type: "solid", width: 1.2, opacity: 0.6 } }[trace.role];
  const name = trace.role === "superseded" ? words.superseded : trace.name;
  const endLabel = isOwn || isSmall || trace.key !== ownOf(panel)?.key ? undefined : { show: true, formatter: name, color: colour, fontSize: 11, fontFamily: css("sans"), distance: 4 };
  const main = { ...base, z: isOwn ? 6 : 4, data: withGaps(at, raw), lineStyle: { ...style, color: colour }, endLabel, labelLayout: { moveOverlap: "shiftY" } };
  if (!isOwn || state.smooth === 0 || raw.length < 3) return [main];
  return [
    { ...main, z: 5, lineStyle: { ...style, width: 1, opacity: 0.35, color: colour } },
    { ...main, z: 7, data: withGaps(at, smoothed(places.map((index) => trace.step[index]), raw, state.smooth)) },
  ];
}

// Lowest to highest between two points, as polygons: stacked areas would not do on a logarithmic axis.
function bandOf(trace, colour) {
  const xs = columns(trace);
  const places = placesOf(trace);
  const bands = stretches(places.map((index) => xs[index])).map((found) => found.map((at) => places[at]));
  const edges = bands.map((found) => [
    ...found.map((index) => [xs[index], trace.high[index]]), ...found.toReversed().map((index) => [xs[index], trace.low[index]]),
  ]);
  const polygon = (api, band) => ({ type: "polygon", shape: { points: band.map((edge) => api.coord(edge)) }, style: { fill: fade(colour, 0.13) } });
  return {
    type: "custom", silent: true, z: 2, clip: true, animation: false, data: places.map((index) => [xs[index], trace.low[index], trace.high[index]]),
    encode: { x: 0, y: [1, 2] }, tooltip: { show: false },
    renderItem: (params, api) => (params.dataIndexInside === 0 ? { type: "group", children: edges.map((band) => polygon(api, band)) } : undefined),
  };
}

function flags() {
  const data = training.incidents.filter((one) => one.step !== null && (!state.logx || one[state.x] > 0)).map((one) => ({
    xAxis: one[state.x], name: one.title,
    label: { show: true, formatter: `${one.number}`, position: "end", distance: 0, color: css("paper"), backgroundColor: css("warm"), padding: [2, 5], borderRadius: 4, fontSize: 11, fontWeight: 600, fontFamily: css("sans") },
  }));
  return { silent: true, symbol: "none", animation: false, lineStyle: { color: css("warm"), type: [4, 3], width: 1.2 }, data };
}

// Where the shares of a stack should meet.
function plan(panel) {
  let edge = 0;
  const edges = panel.traces.map((trace) => (edge += training.planned[trace.key.replace(/^data\/tokens_/, "")] ?? 0)).slice(0, -1);
  return edges.map((at) => ({ yAxis: at, label: { show: false }, lineStyle: { color: css("ink"), type: [6, 4], width: 1.2 } }));
}

function seriesOf(panel, isSmall) {
  const first = panel.traces.indexOf(ownOf(panel));
  const series = panel.traces.flatMap((trace, index) => {
    if (isHidden(panel, trace) || !trace.y.length) return [];
    const colour = css(trace.colour);
    const band = index === first && trace.low.length && !panel.is_stacked ? [bandOf(trace, colour)] : [];
    return [...band, ...lineOf(panel, trace, colour, index === first, isSmall)];
  });
  const marks = flags();
  if (panel.is_stacked && sum(training.planned) > 0) marks.data.push(...plan(panel));
  return [...series, { type: "line", data: [], markLine: marks }];
}

function nearest(xs, x) {
  let best = 0;
  xs.forEach((value, index) => { if (value !== null && Math.abs(value - x) < Math.abs(xs[best] - x)) best = index; });
  return best;
}

function row(name, value, colour) {
  const made = document.createElement("div");
  const mark = document.createElement("span");
  mark.className = "swatch";
  mark.dataset.colour = colour;
  const strong = document.createElement("b");
  strong.textContent = value;
  made.append(mark, name, strong);
  return made;
}

function tooltip(panel, x) {
  const [low, high] = extent();
  const near = (high - low) / 60;
  const made = document.createElement("div");
  made.className = "training-tip";
  const drawn = panel.traces.map((trace) => ({ trace, at: nearest(columns(trace), x) }))
    .filter(({ trace }) => trace.y.length && !isHidden(panel, trace));
  const lead = drawn.find(({ trace }) => trace.role === "own") ?? drawn[0];
  const shown = drawn.filter((one) => one === lead || Math.abs(columns(one.trace)[one.at] - x) <= near);
  if (!lead) return "";
  const where = document.createElement("span");
  where.textContent = ["step", "tokens", "time"].map((axis) => words[axis].replace("{}", fullText[axis](lead.trace[axis][lead.at]))).join(" · ");
  made.append(where);
  for (const { trace, at } of shown) {
    const name = trace.role === "superseded" ? `${trace.run}, ${words.superseded}` : trace.name;
    made.append(row(name, valueText(panel, trace.y[at]), trace.colour));
    if (trace === lead.trace && trace.low.length && !panel.is_stacked) {
      const range = document.createElement("span");
      range.textContent = `${words.range}: ${valueText(panel, trace.low[at])} – ${valueText(panel, trace.high[at])}`;
      made.append(range);
    }
  }
  for (const one of training.incidents.filter((found) => found.step !== null && Math.abs(found[state.x] - x) <= near)) {
    const note = document.createElement("span");
    note.textContent = `⚑ ${one.number} ${one.title}`;
    made.append(note);
  }
  return made;
}

function options(panel, isSmall) {
  const text = { color: css("ink-faint"), fontSize: 11, fontFamily: css("sans") };
  const isLogY = state.logy && panel.key === "loss";
  const [min, max] = extent();
  const hasLabels = panel.traces.some((trace) => trace.role !== "own" && trace.y.length);
  return {
    animation: false, aria: { enabled: false },
    grid: { left: 4, right: hasLabels && !isSmall ? 84 : 16, top: 26, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: {
      type: state.logx ? "log" : "value", min, max, interval: tickEvery(isSmall), splitNumber: isSmall ? 3 : 6,
      axisLabel: { ...text, formatter: axisText[state.x], hideOverlap: true, showMinLabel: !state.logx && state.x !== "time", showMaxLabel: false },
      axisLine: { lineStyle: { color: css("line-strong") }, onZero: false }, axisTick: { show: false }, splitLine: { show: false },
      axisPointer: { show: true, snap: false, label: { show: false }, lineStyle: { color: css("line-strong"), type: "solid" } },
    },
    yAxis: {
      type: isLogY ? "log" : "value", scale: !panel.is_stacked, ...(panel.is_stacked ? { min: 0, max: 1 } : {}), splitNumber: isSmall ? 3 : 5,
      axisLabel: { ...text, formatter: (value) => yText(panel, value), hideOverlap: true },
      splitLine: { lineStyle: { color: css("line"), width: 1 } }, axisLine: { show: false }, axisTick: { show: false },
    },
    toolbox: { itemSize: 0, top: -99, feature: { dataZoom: { yAxisIndex: false } } },
    dataZoom: [{ type: "inside", start: state.zoom[0], end: state.zoom[1], filterMode: panel.is_stacked ? "none" : "filter", zoomOnMouseWheel: "ctrl", moveOnMouseMove: false, moveOnMouseWheel: false }],
    tooltip: {
      trigger: "axis", confine: true, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1,
      padding: [8, 12], textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") },
      formatter: (items) => tooltip(panel, items[0].axisValue),
    },
    series: seriesOf(panel, isSmall),
  };
}

// Round times for the ticks of what is in view.
function tickEvery(isSmall) {
  if (state.x !== "time" || state.logx) return undefined;
  const [low, high] = extent();
  const seen = ((high - low) * (state.zoom[1] - state.zoom[0])) / 100 / (isSmall ? 3 : 6);
  return [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200].find((seconds) => seconds >= seen) ?? Math.ceil(seen / 86400) * 86400;
}

function figureOf(panel) {
  return document.querySelector(`[data-panel="${CSS.escape(panel.key)}"]`);
}

function draw(panel) {
  const figure = figureOf(panel);
  const plot = figure?.querySelector(".plot");
  if (!plot) return;
  let view = views.get(panel.key);
  if (!view) {
    view = echarts.init(plot);
    views.set(panel.key, view);
    listen(panel.key, view, plot);
  }
  view.setOption(options(panel, plot.clientWidth < 460), true);
  // Drawing a box zooms; a finger needs the gesture for scrolling, so there the buttons do it.
  if (!touch.matches) view.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
  figure.dataset.drawn = String(view.getOption().series.length - 1);
}

function drawAll() {
  training.panels.forEach((panel) => draw(inDetail(panel)));
}

function inDetail(panel) {
  return detail?.panels.find((one) => one.key === panel.key) ?? panel;
}

// A long run is drawn from a few hundred points a curve; what the reader zooms into is asked for in more detail.
async function askForDetail() {
  detail = null;
  const isThinned = training.panels.some((panel) => panel.traces.some((trace) => trace.low.length));
  if (isThinned && state.zoom[1] - state.zoom[0] < 99) {
    const [first, last] = stepsInView();
    const answer = await fetch(`/api/v1/runs/${encodeURIComponent(training.run)}/training?first=${first}&last=${last}`);
    if (answer.ok) detail = await answer.json();
  }
  drawAll();
}

function stepsInView() {
  const [low, high] = extent().map((edge) => (state.logx ? Math.log(edge) : edge));
  const edges = state.zoom.map((share) => low + ((high - low) * share) / 100).map((edge) => (state.logx ? Math.exp(edge) : edge));
  const steps = training.panels.flatMap((panel) => panel.traces).flatMap((trace) => trace.step.filter((_, index) => trace[state.x][index] >= edges[0] && trace[state.x][index] <= edges[1]));
  const [first, last] = steps.reduce(([a, b], step) => [Math.min(a, step), Math.max(b, step)], [Infinity, 0]);
  const margin = Math.ceil((last - first) * 0.05); // the lines go on beyond the edges
  return steps.length ? [Math.max(0, first - margin), last + margin] : [0, 0];
}

let settling = 0;
function detailSoon() {
  clearTimeout(settling);
  settling = setTimeout(askForDetail, settleMs);
}

function listen(key, view, plot) {
  new ResizeObserver(() => view.resize()).observe(plot);
  view.on("datazoom", () => {
    const [{ start, end }] = view.getOption().dataZoom;
    if (Math.abs(start - state.zoom[0]) + Math.abs(end - state.zoom[1]) > 0.01) zoomTo(start, end, key);
  });
  view.getZr().on("click", (event) => {
    if (view.containPixel("grid", [event.offsetX, event.offsetY])) pinAt(key, view.convertFromPixel({ xAxisIndex: 0 }, event.offsetX));
  });
  figureOf({ key }).querySelector("[data-png]").addEventListener("click", () => save(key, view));
}

function zoomTo(start, end, from) {
  state.zoom = [Math.max(0, start), Math.min(100, end)];
  for (const [key, view] of views) {
    if (key !== from) view.dispatchAction({ type: "dataZoom", start: state.zoom[0], end: state.zoom[1] });
    view.setOption({ xAxis: { interval: tickEvery(view.getWidth() < 460) } });
  }
  document.getElementById("panels").dataset.zoom = state.zoom.map((edge) => edge.toFixed(1)).join(" ");
  detailSoon();
}

const zooms = {
  in: ([a, b]) => [a + (b - a) / 4, b - (b - a) / 4],
  out: ([a, b]) => [a - (b - a) / 2, b + (b - a) / 2],
  left: ([a, b]) => [Math.max(0, a - (b - a) / 2), Math.max(b - a, b - (b - a) / 2)],
  right: ([a, b]) => [Math.min(100 - (b - a), a + (b - a) / 2), Math.min(100, b + (b - a) / 2)],
  all: () => [0, 100],
};

function save(key, view) {
  const link = document.createElement("a");
  link.href = view.getDataURL({ type: "png", pixelRatio: 2, backgroundColor: css("surface") });
  link.download = `${training.run}-${key.replaceAll("/", "-")}.png`;
  link.click();
}

// Administrators pin an incident where they click.
function pinAt(key, x) {
  const pin = document.getElementById("pin");
  const trace = training.panels.find((panel) => panel.key === key)?.traces.findLast((one) => one.role === "own" && one.y.length);
  if (!pin || !trace) return;
  const step = trace.step[nearest(columns(trace), x)];
  pin.href = `/admin/news?kind=incident&run=${encodeURIComponent(training.run)}&step=${step}`;
  pin.textContent = words.pin.replace("{}", plain.format(step));
}

// The controls and the address.
const controls = document.getElementById("controls");

function readAddress() {
  const asked = new URLSearchParams(location.search);
  state.x = ["tokens", "step", "time"].includes(asked.get("x")) ? asked.get("x") : "tokens";
  state.logx = asked.has("logx");
  state.logy = asked.has("logy");
  state.smooth = Math.min(0.99, Math.max(0, Number(asked.get("smooth")) || 0));
}

function showState() {
  controls.logx.checked = state.logx;
  controls.logy.checked = state.logy;
  controls.smooth.value = state.smooth;
  controls.querySelector("output").value = state.smooth;
  for (const link of controls.querySelectorAll("[data-x]")) {
    link.toggleAttribute("aria-current", link.dataset.x === state.x);
    if (link.dataset.x === state.x) link.setAttribute("aria-current", "true");
  }
}

function address() {
  const asked = new URLSearchParams();
  if (state.x !== "tokens") asked.set("x", state.x);
  if (state.logx) asked.set("logx", "1");
  if (state.logy) asked.set("logy", "1");
  if (state.smooth) asked.set("smooth", state.smooth);
  return location.pathname + (asked.size ? `?${asked}` : "") + location.hash;
}

function changed() {
  history.replaceState(history.state, "", address());
  showState();
  drawAll();
}

function start() {
  readAddress();
  showState();
  controls.querySelector(".controls-drawn").hidden = false;
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("input", () => {
    state.logx = controls.logx.checked;
    state.logy = controls.logy.checked;
    state.smooth = Number(controls.smooth.value);
    changed();
  });
  controls.addEventListener("click", (event) => {
    const axis = event.target.closest("[data-x]");
    const zoom = event.target.closest("[data-zoom]");
    if (zoom) zoomTo(...zooms[zoom.dataset.zoom](state.zoom));
    if (!axis || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    state.x = axis.dataset.x;
    changed();
    refresh(); // the tables are the server's
  });
  document.getElementById("panels").addEventListener("click", (event) => {
    const button = event.target.closest("[data-trace]");
    if (!button) return;
    const name = `${button.closest("[data-panel]").dataset.panel}|${button.dataset.trace}`;
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    draw(inDetail(training.panels.find((panel) => panel.key === button.closest("[data-panel]").dataset.panel)));
  });
  for (const button of document.querySelectorAll("[data-png]")) button.hidden = false;
  addEventListener("popstate", () => { readAddress(); showState(); drawAll(); });
  drawAll();
}

// Live: the page is asked for again, and what changed in it is put in place; the charts keep their view.
let wanted = 0;

function refreshSoon() {
  if (!wanted) wanted = setTimeout(() => { wanted = 0; refresh(); }, calmMs);
}

async function refresh() {
  const answer = await fetch(address());
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const keys = (page) => [...page.querySelectorAll("[data-panel]")].map((figure) => figure.dataset.panel).join();
  if (keys(fresh) !== keys(document)) {
    location.reload(); // a curve of a new kind has begun: rare, and another page
    return;
  }
  training = JSON.parse(fresh.getElementById("training-data").textContent);
  document.getElementById("incidents").replaceWith(fresh.getElementById("incidents"));
  for (const figure of fresh.querySelectorAll("[data-panel]")) replaceWords(figure);
  askForDetail();
}

function replaceWords(fresh) {
  const figure = figureOf({ key: fresh.dataset.panel });
  const isOpen = figure.querySelector(".chart-table").open;
  fresh.querySelector(".chart-table").open = isOpen;
  for (const button of fresh.querySelectorAll("[data-trace]")) {
    button.setAttribute("aria-pressed", String(!hidden.has(`${fresh.dataset.panel}|${button.dataset.trace}`)));
  }
  for (const part of ["figcaption", ".legend", ".chart-table"]) figure.querySelector(part).replaceWith(fresh.querySelector(part));
}

document.getElementById("training-live").addEventListener("refresh", refreshSoon);
if (controls) {
  start();
  document.addEventListener("themechange", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}
