// Colours of css/tokens.css for a canvas, which cannot read them itself.

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function fade(colour, share) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${share})`;
}

export function textStyle(size = 11) {
  return { color: css("ink-faint"), fontSize: size, fontFamily: css("sans") };
}

// Of runs and precisions laid over a curve that has its ability's colour; no ability has one of these.
export const overlays = ["ink", "warm", "accent", "ink-faint"];
export const dashes = ["solid", [7, 4], [2, 3], [10, 3, 2, 3], [1, 2]];
export const dashNames = ["solid", "dashed", "dotted", "dashed", "dotted"];
export const palette = ["accent", "warm", "english", "reasoning", "maths", "chinese", "code", "knowledge"];
export const still = matchMedia("(prefers-reduced-motion: reduce)");
export const touch = matchMedia("(hover: none)");
