// Numbers as the reader's language writes them.
const lang = document.documentElement.lang || "en";
const compact = new Intl.NumberFormat(lang, { notation: "compact", maximumSignificantDigits: 3 });
const plain = new Intl.NumberFormat(lang, { maximumFractionDigits: 3 });
const fixed = new Intl.NumberFormat(lang, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const share = new Intl.NumberFormat(lang, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const tick = new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: 1 });

export function compactText(value) {
  return value >= 1e15 ? value.toExponential(1) : compact.format(value);
}

// Two digits, since ticks of one may stand at 1 and at 1.5 of the same tiny unit.
export function axisNumber(value) {
  return value !== 0 && Math.abs(value) < 0.001 ? Number(value.toPrecision(2)).toExponential() : compactText(value);
}

export function axisX(axis, value) {
  if (axis === "loss") return plain.format(value);
  if (axis !== "time") return compactText(value);
  if (value >= 172800) return `${plain.format(Math.round(value / 8640) / 10)} d`;
  if (value >= 5400) return `${plain.format(Math.round(value / 360) / 10)} h`;
  return value >= 90 ? `${Math.round(value / 60)} min` : `${Math.round(value)} s`;
}

export function axisY(percent, value) {
  if (percent) return tick.format(value);
  return axisNumber(value);
}

export function valueText(percent, value) {
  if (value === null || Number.isNaN(value)) return "–";
  return percent ? share.format(value) : fixed.format(value);
}

export function changeText(percent, change) {
  const sign = change > 0 ? "+" : "−";
  const size = percent ? plain.format(Math.round(Math.abs(change) * 1000) / 10) : fixed.format(Math.abs(change));
  return Number(size.replace(/[^\d.]/g, "")) === 0 ? size : sign + size;
}

export function whole(value) {
  return new Intl.NumberFormat(lang).format(value);
}
