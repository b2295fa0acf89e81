// What one chart shows: a layer for each task and each source, with a colour and a dash that tell them apart.
import { load, sources } from "./data.js";
import { shape } from "./curves.js";
import { dashes, overlays, palette } from "../theme.js";

export function sourceName(source, words) {
  const bits = source.precision === 16 ? "" : words.bits.replace("{bits}", source.precision);
  const mean = /^avg(\d+)$/.exec(source.kind);
  const kind = source.kind === "chat" ? words.chat : mean ? words.average.replace("{num}", mean[1]) : "";
  return [source.run, kind, bits].filter(Boolean).join(" ");
}

// What a run goes on from looks as the run itself: the sources count from the first that is no past.
function look(source, found, taskAt, ability, numTasks) {
  const sourceAt = source.isPast ? 0 : found.filter((one) => !one.isPast).indexOf(source);
  if (numTasks > 1) return { colour: palette[taskAt % palette.length], dash: dashes[sourceAt % dashes.length] };
  return { colour: sourceAt ? overlays[(sourceAt - 1) % overlays.length] : ability, dash: dashes[sourceAt % dashes.length] };
}

// Resolves to {layers, posts, warned}; a source that lacks the task gives no layer.
export async function layersOf(run, view, tasks, words, { ability, isLoose } = {}) {
  const found = sources(run, view);
  const jobs = tasks.flatMap((task, taskAt) => found.map(async (source, sourceAt) => {
    const { series, posts, warned } = await load(source, view, task);
    const isOne = found.filter((one) => !one.isPast).length === 1 && !source.isPast;
    const label = [tasks.length > 1 || isOne ? series.title : "", isOne ? "" : sourceName(source, words)].filter(Boolean).join(", ");
    return {
      key: `${task}:${sourceAt}`, task, source, series, posts, warned, label, isMain: sourceAt === 0, isLoose: isLoose ?? false,
      ...look(source, found, taskAt, ability ?? colourOf(series), tasks.length), ...shape(series, view, source),
    };
  }));
  const layers = await Promise.all(jobs);
  return { layers, posts: layers[0]?.posts ?? [], warned: layers[0]?.warned ?? [] };
}

export function colourOf(series) {
  return ["chinese", "english", "code", "maths", "reasoning", "knowledge"].includes(series.ability) ? series.ability : "accent";
}
