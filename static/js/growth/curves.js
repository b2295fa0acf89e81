// From the answer of the API to what is drawn: points by line, as the view wants them.

// Above guessing: 0 is chance, 1 is perfect.
function above(value, chance) {
  return value === null ? null : (value - chance) / (1 - chance);
}

function points(series, line, view) {
  const chance = view.y === "above_chance" && series.percent && series.chance !== null ? series.chance : null;
  const at = (value) => (chance === null ? value : above(value, chance));
  const found = [];
  for (let i = 0; i < line.x.length; i++) {
    if (view.scale === "log" && !(line.x[i] > 0)) continue;
    found.push({
      x: line.x[i], y: at(line.value[i]), low: at(line.low[i]), high: at(line.high[i]), n: line.n[i], step: line.step[i],
      tokens: line.tokens[i], verdict: line.verdict[i], evaluation: line.evaluation[i],
    });
  }
  return found;
}

// Stretches of a line between failures: what lies on the two sides of one is not joined.
function stretches(found, failures) {
  const parts = [];
  let part = [];
  for (const point of found) {
    const before = part[part.length - 1];
    if (before && failures.some((failure) => before.step < failure.step && failure.step < point.step)) {
      parts.push(part);
      part = [];
    }
    part.push(point);
  }
  if (part.length) parts.push(part);
  return parts;
}

// A layer is one task of one source with its look: {label, colour, dash, isMain, series, lines}.
export function shape(series, view, source) {
  const lines = series.lines.flatMap((line) => {
    const { until = Infinity } = source;
    const goneAfter = source.goneAfter ?? Infinity;
    const found = points(series, line, view).filter((point) => point.step <= until);
    const made = (isGone, chosen) => ({ summary: line.protocol, differs: line.differs, imported: line.imported, isGone, points: chosen, parts: stretches(chosen, series.failures) });
    const gone = found.filter((point) => point.step > goneAfter);
    return [made(true, gone), made(false, found.slice(0, found.length - gone.length))];
  }).filter((line) => line.points.length);
  for (const line of lines) line.points.forEach((point, at) => { point.at = at; });
  const isAbove = view.y === "above_chance" && series.percent && series.chance !== null;
  return { lines, chance: isAbove ? 0 : series.chance, failures: view.scale === "log" ? series.failures.filter((failure) => failure.x > 0) : series.failures, isAbove };
}

export function latest(layer) {
  return layer.lines[layer.lines.length - 1];
}

// Exponential moving average without the bias towards its start, as TensorBoard draws it.
export function smoothed(part, weight) {
  let mean = 0;
  let debias = 0;
  return part.map((point) => {
    mean = mean * weight + (1 - weight) * point.y;
    debias = debias * weight + (1 - weight);
    return [point.x, mean / debias];
  });
}
