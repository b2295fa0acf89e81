// The large chart as a file: the same option drawn once more, with its title, address and day on it.
import { options } from "./options.js";
import { css, textStyle } from "../theme.js";

const size = { width: 1200, height: 675 };

function option(run, layers, view, extra) {
  const titled = options(layers, view, { ...extra, animate: false, small: false, endLabels: layers.length > 1 });
  const title = [...new Set(layers.map((layer) => layer.series.title))].join(" · ");
  return {
    ...titled, dataZoom: titled.dataZoom.slice(1).map((zoom) => ({ ...zoom, ...(view.zoom ? { start: Number(view.zoom.split("~")[0]), end: Number(view.zoom.split("~")[1]) } : {}) })),
    backgroundColor: css("surface"),
    grid: { ...titled.grid, left: 28, top: 84, bottom: 52, right: layers.length > 1 ? 160 : 36 },
    title: { text: `${run}: ${title}`, subtext: `${location.href} · ${new Date().toISOString().slice(0, 10)}`, left: 24, top: 14, textStyle: { color: css("ink"), fontSize: 18, fontFamily: css("sans") }, subtextStyle: textStyle(11) },
  };
}

function save(href, name) {
  const link = document.createElement("a");
  link.href = href;
  link.download = name;
  link.click();
}

export function savePng(run, layers, view, extra) {
  const box = document.createElement("div");
  Object.assign(box.style, { width: `${size.width}px`, height: `${size.height}px`, position: "fixed", left: "-9999px" });
  document.body.append(box);
  const chart = echarts.init(box, null, { devicePixelRatio: 2 });
  chart.setOption(option(run, layers, view, extra));
  save(chart.getDataURL({ pixelRatio: 2, backgroundColor: css("surface") }), `${run}.png`);
  chart.dispose();
  box.remove();
}

export function saveSvg(run, layers, view, extra) {
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, ...size });
  chart.setOption(option(run, layers, view, extra));
  const address = URL.createObjectURL(new Blob([chart.renderToSVGString()], { type: "image/svg+xml" }));
  save(address, `${run}.svg`);
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  chart.dispose();
}

// Several runs are several answers of the API: one file with all their rows.
export async function saveText(addresses, name, join) {
  const texts = await Promise.all(addresses.map(async (address) => (await fetch(address)).text()));
  const address = URL.createObjectURL(new Blob([join(texts)], { type: "text/plain" }));
  save(address, name);
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
