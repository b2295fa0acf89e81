// Layers of points as an ECharts option, the same for the small charts, the large one and pictures.
import { css, fade, textStyle, touch } from "../theme.js";
import { axisX, axisY } from "../numbers.js";
import { latest, smoothed } from "./curves.js";
import { tooltip } from "./tooltip.js";

const dense = 150; // more points than this are drawn as one cloud: a shape each would take seconds
const marks = { gain: 0, loss: 180 };

function isPercent(layer) {
  return layer.series.percent;
}

function bounds(layers) {
  const values = [];
  for (const layer of layers) {
    if (layer.isMain && layer.chance !== null) values.push(layer.chance);
    for (const line of layer.lines) for (const point of line.points) values.push(point.y, point.low ?? point.y, point.high ?? point.y);
  }
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return { min: low >= 0 ? Math.max(0, low - margin) : low - margin, max: high + margin };
}

function band(layer, line, colour, axis) {
  const parts = line.parts.filter((part) => part.length > 1 && part.some((point) => point.low !== null));
  if (!parts.length) return [];
  const fill = fade(colour, layer.isMain && line === latest(layer) ? 0.16 : 0.08);
  return [{
    type: "custom", yAxisIndex: axis, silent: true, animation: false, z: 1, clip: true, tooltip: { show: false },
    data: parts.map((_, at) => [parts[at][0].x, parts[at][0].y]),
    renderItem: (params, api) => {
      const part = parts[params.dataIndex];
      const edge = (key) => part.map((point) => api.coord([point.x, point[key] ?? point.y]));
      return { type: "polygon", shape: { points: [...edge("high"), ...edge("low").reverse()] }, style: { fill } };
    },
  }];
}

function symbol(point, line, colour, isLast, view) {
  const pointed = view.marks && point.verdict in marks;
  const itemStyle = line.imported ? { color: css("surface"), borderColor: colour, borderWidth: 1.6 }
    : isLast ? { color: colour, borderColor: css("surface"), borderWidth: 2 } : { color: colour };
  const size = pointed ? 8 : 5;
  return { symbol: pointed ? "triangle" : "circle", symbolRotate: pointed ? marks[point.verdict] : 0, symbolSize: isLast ? size + 4 : line.imported ? size + 2 : size, itemStyle };
}

function cloud(points, colour, view, axis) {
  const common = { type: "scatter", yAxisIndex: axis, silent: true, animation: false, tooltip: { show: false }, z: 6 };
  const judged = (word) => points.filter((point) => point.verdict === word).map((point) => [point.x, point.y]);
  const turned = (word) => ({ ...common, symbol: "triangle", symbolRotate: marks[word], symbolSize: 6, itemStyle: { color: colour }, data: judged(word) });
  return [
    { ...common, large: true, largeThreshold: 1, symbolSize: 2.5, itemStyle: { color: fade(colour, 0.55) }, data: points.map((point) => [point.x, point.y]) },
    ...(view.marks ? ["gain", "loss"].map(turned) : []),
  ];
}

function markLine(layer, points, isLatest, colour, extra) {
  const data = [];
  if (layer.isMain && isLatest && layer.chance !== null && extra.chance) {
    data.push({
      yAxis: layer.chance, lineStyle: { color: css("ink-faint"), type: [3, 4], width: 1 },
      label: { show: true, formatter: extra.chanceText(layer), position: "insideEndTop", ...textStyle() },
    });
  }
  for (const pin of extra.pins ?? []) {
    data.push({
      xAxis: pin.x, lineStyle: { color: css(pin.kind === "incident" ? "danger" : "ink-faint"), type: [2, 3], width: 1 },
      label: { show: true, formatter: pin.kind === "incident" ? "⚠" : "✎", position: "end", distance: 1, color: css(pin.kind === "incident" ? "danger" : "ink-faint"), fontSize: 11 },
    });
  }
  // A band around a single point has no width, so its interval is a whisker.
  for (const point of points.length === 1 ? points : []) {
    if (point.low !== null) data.push([{ coord: [point.x, point.low], lineStyle: { color: fade(colour, 0.5), type: "solid", width: 2 } }, { coord: [point.x, point.high] }]);
  }
  return data.length ? { silent: true, symbol: "none", animation: false, label: { show: false }, data } : undefined;
}

function lineSeries(layer, number, view, axis, extra) {
  const line = layer.lines[number];
  const isLatest = line === latest(layer);
  const colour = css(line.isGone ? "ink-faint" : layer.colour);
  const isDense = line.points.length > dense;
  const isLoose = layer.isLoose && line.points.length < 4;
  const last = line.points[line.points.length - 1];
  const type = line.isGone ? [2, 3] : isLatest ? layer.dash : [5, 4];
  const data = line.parts.flatMap((part, at) => [
    ...(at ? [{ value: [null, null] }] : []),
    // ECharts clones what it is given, so a point is known by its place, not by itself.
    ...part.map((point) => ({ value: [point.x, point.y], place: [layer.key, number, point.at], ...(isDense && point !== last ? { symbol: "none" } : symbol(point, line, colour, isLatest && point === last, view)) })),
  ]);
  const isSmooth = view.smooth > 0 && line.points.length > 2;
  const raw = {
    type: "line", id: `raw:${layer.key}:${number}`, name: layer.label, yAxisIndex: axis, z: isLatest ? 5 : 4, data, showSymbol: true, animation: extra.animate, animationDuration: 600,
    lineStyle: { width: isSmooth ? 1 : isLatest ? (isDense ? 1.4 : 2.2) : 1.3, type, color: colour, opacity: isLoose ? 0 : isSmooth ? 0.3 : isLatest ? 1 : 0.8 },
    emphasis: { scale: 1.5 },
    endLabel: extra.endLabels && isLatest ? { show: true, formatter: layer.label, color: colour, fontSize: 11, fontFamily: css("sans"), distance: 6, width: 130, overflow: "truncate" } : undefined,
    labelLayout: extra.endLabels ? { moveOverlap: "shiftY" } : undefined,
    markLine: markLine(layer, line.points, isLatest, colour, extra),
  };
  const smooth = { type: "line", id: `smooth:${layer.key}:${number}`, yAxisIndex: axis, silent: true, symbol: "none", animation: false, tooltip: { show: false }, z: 6, lineStyle: { width: 2.4, type, color: colour }, data: line.parts.flatMap((part, at) => [...(at ? [[null, null]] : []), ...smoothed(part, view.smooth)]) };
  return [
    ...(view.band && !isLoose ? band(layer, line, colour, axis) : []),
    raw,
    ...(isDense ? cloud(line.points, colour, view, axis) : []),
    ...(isSmooth ? [smooth] : []),
  ];
}

function failureSeries(layer, edge, axis) {
  if (!layer.isMain || !layer.failures.length) return [];
  // At the foot of the chart: a failed evaluation has no score, and 0 would be one.
  const data = layer.failures.map((failure, at) => ({ value: [failure.x, edge.min], failure: [layer.key, at] }));
  return [{ type: "scatter", id: `failed:${layer.key}`, yAxisIndex: axis, symbol: "path://M0,0L10,10M10,0L0,10", symbolSize: 7, symbolOffset: [0, -6], itemStyle: { color: "transparent", borderColor: css("danger"), borderWidth: 1.6 }, animation: false, z: 7, data }];
}

// A single place stands in the middle; else the axis begins at nothing where the points nearly do.
function lowest(view) {
  return ({ min, max }) => (min === max ? Math.min(0, 2 * min) : view.x !== "loss" && min >= 0 && min < 0.1 * max ? 0 : min);
}

function highest({ min, max }) {
  return min === max ? Math.max(2 * max, 1) : max;
}

function axisOfX(view, words, small) {
  const isLog = view.scale === "log";
  return {
    type: isLog ? "log" : "value", inverse: view.x === "loss",
    min: isLog ? "dataMin" : lowest(view), max: isLog ? "dataMax" : highest,
    name: small ? "" : words[`axis_${view.x}`], nameLocation: "middle", nameGap: 26, nameTextStyle: textStyle(12),
    axisLabel: { ...textStyle(), formatter: (value) => axisX(view.x, value), hideOverlap: true, showMinLabel: isLog ? undefined : true, showMaxLabel: isLog ? undefined : false },
    axisLine: { lineStyle: { color: css("line-strong") } }, axisTick: { show: false }, minorTick: { show: isLog && !small }, splitLine: { show: false }, splitNumber: small ? 3 : 7,
    axisPointer: { show: true, snap: true, label: { show: false }, lineStyle: { color: css("line-strong"), type: "solid" } },
  };
}

function axisOfY(layers, percent, small, position, name) {
  return {
    type: "value", ...bounds(layers), position, splitNumber: small ? 3 : 6,
    name, nameTextStyle: { ...textStyle(), align: position }, nameGap: 8,
    axisLabel: { ...textStyle(), formatter: (value) => axisY(percent, value), showMinLabel: false, showMaxLabel: false },
    splitLine: { show: position === "left", lineStyle: { color: css("line"), width: 1 } }, axisLine: { show: false }, axisTick: { show: false },
  };
}

// extra: {small, animate, endLabels, pins, words, warned}
export function options(layers, view, extra) {
  const shares = layers.filter(isPercent);
  const others = layers.filter((layer) => !isPercent(layer));
  const sides = shares.length && others.length ? [shares, others] : [layers];
  const yAxis = sides.map((side, at) => axisOfY(side, isPercent(side[0]), extra.small, at ? "right" : "left", sides.length > 1 ? side[0].series.metric_name : ""));
  const sideOf = (layer) => Math.max(0, sides.findIndex((side) => side.includes(layer)));
  const pins = view.posts ? extra.pins : [];
  const series = layers.flatMap((layer, at) => [
    ...layer.lines.flatMap((_, number) => lineSeries(layer, number, view, sideOf(layer), {
      ...extra, pins: at === 0 && number === layer.lines.length - 1 ? pins : [], chance: sides.length === 1,
      chanceText: (one) => (extra.small || layers.length === 1 ? `${extra.words.guessing}: ${axisY(isPercent(one), one.chance)}` : extra.words.guessing),
    })),
    ...failureSeries(layer, yAxis[sideOf(layer)], sideOf(layer)),
  ]);
  const zoom = view.zoom.split("~").map(Number);
  return {
    aria: { enabled: false },
    grid: { left: 4, right: extra.endLabels ? 140 : 14, top: sides.length > 1 ? 34 : pins?.length ? 20 : 12, bottom: extra.small ? 4 : 58, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
    xAxis: axisOfX(view, extra.words, extra.small), yAxis,
    dataZoom: extra.small ? [] : [
      { type: "slider", height: 16, bottom: 4, start: view.zoom ? zoom[0] : 0, end: view.zoom ? zoom[1] : 100, filterMode: "none", showDetail: false, borderColor: css("line"), backgroundColor: css("sunk"), fillerColor: fade(css("accent"), 0.12), dataBackground: { lineStyle: { opacity: 0 }, areaStyle: { opacity: 0 } }, selectedDataBackground: { lineStyle: { opacity: 0 }, areaStyle: { opacity: 0 } }, handleStyle: { color: css("surface"), borderColor: css("line-strong") }, moveHandleSize: 0 },
      { type: "inside", filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, moveOnMouseMove: "shift" },
    ],
    tooltip: {
      trigger: "axis", confine: true, enterable: touch.matches, className: "chart-tip", backgroundColor: css("surface"), borderColor: css("line-strong"), borderWidth: 1,
      padding: [8, 12], textStyle: { color: css("ink"), fontSize: 12, fontFamily: css("sans") },
      formatter: (items) => tooltip(items, layers, view, extra),
    },
    series,
  };
}
