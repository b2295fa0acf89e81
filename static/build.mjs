// Copies what pages need from node_modules/ to static/vendor/, which is not committed. Run by `npm run vendor`.
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "..", "node_modules");
const vendor = join(here, "vendor");

const scripts = {
  "htmx.min.js": "htmx.org/dist/htmx.min.js",
  "echarts.min.js": "echarts/dist/echarts.min.js",
  "tus.min.js": "tus-js-client/dist/tus.min.js",
};

// Latin subsets only: Chinese comes from the reader's own fonts.
const latin = "U+0000-00FF,U+0131,U+0152-0153,U+02BB-02BC,U+02C6,U+02DA,U+02DC,U+0304,U+0308,U+0329,U+2000-206F,U+20AC,U+2122,U+2191,U+2193,U+2212,U+2215,U+FEFF,U+FFFD";
const faces = [
  { family: "Inter Variable", from: "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2", weight: "100 900", style: "normal" },
  { family: "Newsreader Variable", from: "@fontsource-variable/newsreader/files/newsreader-latin-wght-normal.woff2", weight: "200 800", style: "normal" },
  { family: "Newsreader Variable", from: "@fontsource-variable/newsreader/files/newsreader-latin-wght-italic.woff2", weight: "200 800", style: "italic" },
];

mkdirSync(join(vendor, "fonts"), { recursive: true });
for (const [name, from] of Object.entries(scripts)) copyFileSync(join(modules, from), join(vendor, name));

const css = faces.map((face) => {
  const name = face.from.split("/").pop();
  copyFileSync(join(modules, face.from), join(vendor, "fonts", name));
  return `@font-face{font-family:"${face.family}";font-style:${face.style};font-display:swap;font-weight:${face.weight};src:url(${name}) format("woff2");unicode-range:${latin}}`;
});
writeFileSync(join(vendor, "fonts", "fonts.css"), css.join("\n") + "\n");
console.log(`static/vendor: ${readdirSync(vendor).join(", ")}`);
