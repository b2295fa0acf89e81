// One item's probabilities through training: <figure data-item-chart> with its data in a JSON block.
import { css } from "./theme.js";
import { compactText } from "./numbers.js";

const drawn = new Map();

const dashes = [[6, 4], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
const symbols = ["rect", "triangle", "diamond", "arrow", "pin"];

// The right answer is the thick line; the others differ by their dashes, not by colour alone.
function series(data) {
  let others = 0;
  const colours = ["english", "reasoning", "warm", "knowledge", "maths"].map(css);
  const few = data.x.length <= 60;
  return data.series.map((line) => {
    const number = line.is_right ? -1 : others++;
    const colour = line.is_right ? css("accent") : colours[number % colours.length];
    return {
      name: line.is_right && data.series.length > 1 ? `✓ ${line.name}` : line.name,
      type: "line", z: line.is_right ? 5 : 3, animation: false,
      data: data.x.map((x, at) => [x, line.values[at]]),
      symbol: line.is_right ? "circle" : symbols[number % symbols.length], symbolSize: line.is_right ? 7 : 5, showSymbol: few,
      lineStyle: { width: line.is_right ? 2.8 : 1.4, type: line.is_right ? "solid" : dashes[number % dashes.length], color: colour },
      itemStyle: { color: colour },
    };
  });
}

function options(data, narrow) {
  const text = { color: css("ink-soft"), fontSize: 11, fontFamily: css("sans") };
  const percent = (value) => `${Math.round(value * 1000) / 10}%`;
  return {
    aria: { enabled: false },
    grid: { left: 4, right: 14, top: 12, bottom: data.series.length > 1 ? 14 + 22 * (narrow ? data.series.length : Math.ceil(data.series.length / 2)) : 4, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    legend: data.series.length > 1 ? { bottom: 0, left: 0, orient: narrow ? "vertical" : "horizontal", textStyle: { ...text, width: narrow ? 250 : 380, overflow: "truncate" }, itemWidth: 34, icon: undefined } : undefined,
    xAxis: {
      type: "value", min: "dataMin", max: "dataMax", name: "", axisLabel: { ...text, formatter: compactText, hideOverlap: true },
      axisLine: { lineStyle: { color: css("line-strong") } }, axisTick: { show: false }, splitLine: { show: false },
    },
    yAxis: { type: "value", min: 0, max: data.series.length > 1 ? 1 : undefined, axisLabel: { ...text, formatter: percent }, splitLine: { lineStyle: { color: css("line") } } },
    tooltip: {
      trigger: "axis", confine: true, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1, renderMode: "richText",
      textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") },
      formatter: (items) => [data.x_texts[items[0].dataIndex], ...items.map((item) => `${percent(item.data[1])}  ${item.seriesName}`)].join("\n"),
    },
    series: series(data),
  };
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  const data = JSON.parse(figure.querySelector("script").textContent);
  let view = drawn.get(plot);
  if (!view) {
    view = echarts.init(plot);
    drawn.set(plot, view);
    new ResizeObserver(() => view.resize()).observe(plot);
    view.getZr().on("click", (event) => {
      if (matchMedia("(hover: none)").matches || !view.containPixel("grid", [event.offsetX, event.offsetY])) return;
      const [x] = view.convertFromPixel("grid", [event.offsetX, event.offsetY]);
      const nearest = data.x.reduce((best, value, at) => (Math.abs(value - x) < Math.abs(data.x[best] - x) ? at : best), 0);
      location.assign(data.hrefs[nearest]);
    });
  }
  view.setOption(options(data, plot.clientWidth < 520), true);
  figure.dataset.drawn = String(data.x.length);
}

function drawAll() {
  for (const [plot, view] of drawn) {
    if (!plot.isConnected) {
      view.dispose();
      drawn.delete(plot);
    }
  }
  document.querySelectorAll("[data-item-chart]").forEach(draw);
}

document.addEventListener("themechange", drawAll);
document.addEventListener("htmx:afterSettle", drawAll); // the page was replaced: a new checkpoint has answered
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
