// The forest plot: <figure data-forest> with a JSON block and a <div class="forest-plot">.
// A mark for each task's difference, a bar for its interval, and the line at zero; the server has the words.
import { css } from "./theme.js";

const drawn = new Map();
const narrow = 520;
const marks = { gain: "triangle", loss: "triangle", "within noise": "circle" };

// Tasks under the heading of their ability, from the top down; a heading has no row.
function lines(rows) {
  const found = [];
  for (const row of rows) {
    if (found.at(-1)?.ability !== row.ability) found.push({ name: `heading ${row.ability}`, text: row.ability, ability: row.ability, colour: row.colour });
    found.push({ name: `task ${row.task}`, text: row.title, ability: row.ability, colour: row.colour, row });
  }
  return found;
}

function extent(rows) {
  const far = Math.max(...rows.flatMap((row) => [row.value, row.low ?? row.value, row.high ?? row.value]).map(Math.abs)) || 1;
  return far * 1.08;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function tooltip(data, row) {
  const box = document.createElement("div");
  const parts = [
    element("strong", `${row.text}`), element("b", row.word), element("span", row.title), element("span", row.scores),
    row.range && element("span", row.range), row.p && element("span", row.p), !row.is_paired && element("em", data.unpaired),
  ];
  for (const part of parts.filter(Boolean)) box.append(part, document.createElement("br"));
  box.lastChild.remove();
  return box;
}

// The interval as a line from end to end; where the two scores alone were compared it is dashed.
function bars(found) {
  return found.flatMap((line, place) => (line.row && line.row.low !== null ? [[
    { coord: [line.row.low, place], lineStyle: { color: toneOf(line.row), type: line.row.is_paired ? "solid" : [4, 3], width: 2 } },
    { coord: [line.row.high, place] },
  ]] : []));
}

function ends(found) {
  const data = found.flatMap((line, place) => (line.row && line.row.low !== null
    ? [line.row.low, line.row.high].map((x) => ({ value: [x, place], itemStyle: { color: toneOf(line.row) } })) : []));
  return { type: "scatter", symbol: "rect", symbolSize: [2, 9], silent: true, z: 2, animation: false, data };
}

function toneOf(row) {
  return css({ gain: "accent", loss: "warm" }[row.verdict] ?? "ink-soft");
}

function points(found) {
  return {
    type: "scatter", z: 3, animation: false, cursor: "pointer",
    data: found.flatMap((line, place) => (line.row ? [{
      value: [line.row.value, place], row: line.row,
      symbol: marks[line.row.verdict], symbolRotate: line.row.verdict === "loss" ? 180 : 0,
      symbolSize: line.row.verdict === "within noise" ? 9 : 12,
      itemStyle: { color: toneOf(line.row), borderColor: css("surface"), borderWidth: 1 },
    }] : [])),
    markLine: {
      silent: true, symbol: "none", animation: false, label: { show: false },
      data: [{ xAxis: 0, lineStyle: { color: css("ink-soft"), type: "solid", width: 1 } }, ...bars(found)],
    },
  };
}

// A long title in two lines, broken between words.
function folded(text, most) {
  const space = text.length > most ? text.lastIndexOf(" ", most) : -1;
  return space > 0 ? `${text.slice(0, space)}\n${text.slice(space + 1)}` : text;
}

function labels(found, wide, small) {
  const rich = Object.fromEntries(found.filter((line) => !line.row).map((line, number) => [`h${number}`, { color: css(line.colour), fontWeight: 650, fontSize: 11 }]));
  const keys = new Map(found.filter((line) => !line.row).map((line, number) => [line.name, `h${number}`]));
  return {
    interval: 0, color: css("ink-soft"), fontSize: 11.5, lineHeight: 14, fontFamily: css("sans"), width: wide, overflow: "truncate", ellipsis: "…", rich,
    formatter: (name, place) => (found[place].row ? folded(found[place].text, small ? 19 : 60) : `{${keys.get(name)}|${found[place].text}}`),
  };
}

function options(data, plot) {
  const found = lines(data.rows);
  const far = extent(data.rows);
  const small = plot.clientWidth < narrow;
  const wide = small ? 118 : 230;
  const text = { color: css("ink-faint"), fontSize: 11, fontFamily: css("sans") };
  return {
    aria: { enabled: false }, animation: false,
    grid: { left: wide + 12, right: 12, top: 4, bottom: 24 },
    xAxis: {
      type: "value", min: -far, max: far, splitNumber: small ? 3 : 6,
      axisLabel: { ...text, hideOverlap: true, showMinLabel: false, showMaxLabel: false, formatter: (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${+Math.abs(value).toPrecision(3)}` },
      splitLine: { lineStyle: { color: css("line") } },
    },
    yAxis: {
      type: "category", inverse: true, data: found.map((line) => line.name), axisTick: { show: false }, axisLine: { show: false },
      axisLabel: { ...labels(found, wide, small), margin: 10 },
    },
    tooltip: {
      trigger: "item", confine: true, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1,
      padding: [8, 12], textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") },
      formatter: ({ data: point }) => (point.row ? tooltip(data, point.row) : ""),
    },
    series: [points(found), ends(found)],
  };
}

function draw(figure) {
  const plot = figure.querySelector(".forest-plot");
  const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  // A phone breaks long titles into two lines.
  plot.style.height = `${lines(data.rows).length * (plot.clientWidth < narrow ? 36 : 26) + 32}px`;
  let view = drawn.get(plot);
  if (!view) {
    view = echarts.init(plot);
    drawn.set(plot, view);
    view.on("click", ({ data: point }) => point.row && show(point.row.task));
    new ResizeObserver(() => {
      view.resize();
      view.setOption(options(data, plot), true);
    }).observe(plot);
  }
  view.setOption(options(data, plot), true);
  figure.dataset.drawn = String(data.rows.length);
}

// The row of the table, with the focus on it, so that the keyboard goes on from there.
function show(task) {
  const row = document.getElementById(`task-${task}`);
  history.replaceState(null, "", `#task-${task}`);
  row?.focus({ preventScroll: true });
  row?.scrollIntoView({ block: "center" });
}

function find(root) {
  for (const [plot, view] of drawn) {
    if (plot.isConnected) continue;
    view.dispose();
    drawn.delete(plot);
  }
  root.querySelectorAll("[data-forest]").forEach(draw);
}

document.addEventListener("htmx:load", (event) => find(event.detail.elt));
const redraw = () => find(document);
document.addEventListener("themechange", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
find(document);
