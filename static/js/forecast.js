// The charts of the forecast page: what was measured, the fitted curve, its band, and earlier forecasts.
import { css, fade, textStyle } from "./theme.js";
import { axisX, axisY, valueText } from "./numbers.js";

const words = JSON.parse(document.getElementById("forecast-words").textContent);
const views = new Map();

function range(values, isLog) {
  const known = values.filter((value) => Number.isFinite(value) && (!isLog || value > 0));
  return [Math.min(...known), Math.max(...known)];
}

function bounds(chart) {
  const values = [...chart.points.filter(([x]) => x >= chart.band[0][0]).map(([, y]) => y), ...chart.band.flatMap(([, , low, high]) => [low, high]), ...chart.marks.flatMap((mark) => [mark.low, mark.high])];
  if (chart.chance !== null) values.push(chart.chance);
  const [low, high] = range(values, false);
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return { min: low >= 0 ? Math.max(0, low - margin) : low - margin, max: high + margin };
}

function bandSeries(chart, colour) {
  return {
    type: "custom", silent: true, animation: false, z: 1, clip: true, tooltip: { show: false }, data: [[chart.band[0][0], chart.band[0][1]]],
    renderItem: (_, api) => {
      const edge = (at) => chart.band.map((place) => api.coord([place[0], place[at]]));
      return { type: "polygon", shape: { points: [...edge(3), ...edge(2).reverse()] }, style: { fill: fade(colour, 0.2) } };
    },
  };
}

function curveSeries(chart, colour, seen) {
  const line = (data, type) => ({ type: "line", data, symbol: "none", z: 3, silent: true, animation: false, lineStyle: { color: colour, width: 2, type } });
  const course = chart.band.map(([x, y]) => [x, y]);
  return [line(course.filter(([x]) => x <= seen), "solid"), line(course.filter(([x]) => x >= seen), [6, 4])];
}

function markSeries(chart) {
  const ink = css("ink-soft");
  return {
    type: "custom", z: 4, animation: false, clip: false, data: chart.marks.map((mark) => [mark.x, mark.value, mark.low, mark.high]),
    renderItem: (_, api) => {
      const [x, y] = api.coord([api.value(0), api.value(1)]);
      const [low, high] = [2, 3].map((at) => api.coord([api.value(0), api.value(at)])[1]);
      const stroke = { stroke: ink, fill: css("surface"), lineWidth: 1.2, opacity: 0.75 };
      return { type: "group", children: [
        { type: "line", shape: { x1: x, y1: low, x2: x, y2: high }, style: stroke },
        { type: "polygon", shape: { points: [[x, y - 4.5], [x + 4.5, y], [x, y + 4.5], [x - 4.5, y]] }, style: stroke },
      ] };
    },
    tooltip: { formatter: ({ dataIndex }) => text([chart.marks[dataIndex].text]) },
  };
}

function text(lines) {
  const box = document.createElement("div");
  for (const line of lines) box.appendChild(document.createElement("div")).textContent = line;
  return box;
}

function pointSeries(chart, colour) {
  return {
    type: "scatter", z: 5, animation: false, symbolSize: chart.points.length > 60 ? 3 : 5.5, data: chart.points,
    itemStyle: { color: colour, opacity: chart.points.length > 60 ? 0.7 : 1 },
    tooltip: { formatter: ({ value: [x, y] }) => text([`${words.measured}: ${valueText(chart.percent, y)}`, `${axisX("tokens", x)} ${words.tokens}`]) },
  };
}

// Unseen dots along the forecast that tell its numbers under the pointer.
function reader(chart, seen) {
  return {
    type: "scatter", z: 2, animation: false, symbolSize: 14, itemStyle: { opacity: 0 }, data: chart.band.filter(([x]) => x > seen),
    tooltip: { formatter: ({ value: [x, y, low, high] }) => text([`${words.fitted}: ${valueText(chart.percent, y)}`, `${words.band}: ${valueText(chart.percent, low)} – ${valueText(chart.percent, high)}`, `${axisX("tokens", x)} ${words.tokens}`]) },
  };
}

function guides(chart, seen) {
  const faint = { color: css("ink-faint"), type: [3, 4], width: 1 };
  const name = (formatter, position) => ({ ...textStyle(), formatter, position, rotate: 0, color: css("ink-faint") });
  const data = [{ xAxis: seen, lineStyle: { ...faint, type: "solid" }, label: { ...name(words.now, "end"), distance: 2 } }];
  if (chart.chance !== null) data.push({ yAxis: chart.chance, lineStyle: faint, label: name(words.guessing, "insideEndBottom") });
  return { type: "line", data: [], markLine: { silent: true, symbol: "none", animation: false, data } };
}

function options(chart, isLog, isSmall) {
  const colour = css(chart.colour);
  const seen = chart.points[chart.points.length - 1][0];
  const [first, last] = range([...chart.points.map(([x]) => x).filter((x) => x >= chart.band[0][0] || !isLog), ...chart.band.map(([x]) => x), ...chart.marks.map((mark) => mark.x)], isLog);
  return {
    animation: false, aria: { enabled: false },
    grid: { left: 4, right: 14, top: 18, bottom: 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: {
      type: isLog ? "log" : "value", min: first, max: last, splitNumber: isSmall ? 3 : 5,
      axisLabel: { ...textStyle(), formatter: (value) => axisX("tokens", value), hideOverlap: true },
      axisLine: { onZero: false, lineStyle: { color: css("line-strong") } }, axisTick: { show: false }, splitLine: { show: false },
    },
    yAxis: {
      type: "value", ...bounds(chart), splitNumber: 3,
      axisLabel: { ...textStyle(), formatter: (value) => axisY(chart.percent, value), showMinLabel: false, showMaxLabel: false },
      splitLine: { showMinLine: false, showMaxLine: false, lineStyle: { color: css("line"), width: 1 } }, axisLine: { show: false }, axisTick: { show: false },
    },
    tooltip: { trigger: "item", confine: true, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1, padding: [8, 12], textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") } },
    series: [bandSeries(chart, colour), ...curveSeries(chart, colour, seen), reader(chart, seen), markSeries(chart), pointSeries(chart, colour), guides(chart, seen)],
  };
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const chart = JSON.parse(figure.querySelector("script").textContent);
  if (!views.has(figure)) {
    const view = echarts.init(plot);
    views.set(figure, view);
    new ResizeObserver(() => view.resize()).observe(plot);
  }
  views.get(figure).setOption(options(chart, figure.dataset.scale === "log", plot.clientWidth < 460), true);
  figure.dataset.drawn = String(chart.points.length);
}

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    near.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "300px" });

function redraw() {
  views.forEach((_, figure) => draw(figure));
}

document.querySelectorAll("[data-forecast]").forEach((figure) => near.observe(figure));
document.addEventListener("themechange", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
