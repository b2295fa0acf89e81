// The learn-and-forget ledger: <figure data-ledger data-src="…"> with a canvas of items by checkpoints.
// Only what is in view is drawn, straight into pixels, so the number of items and checkpoints does not matter.
import { css, touch } from "./theme.js";
import { compactText } from "./numbers.js";

const viewHeight = 520; // css pixels; fewer rows than fill it make a lower map
const tallestRow = 18;
const largestCell = 36;
const gapFrom = 7; // cells smaller than this stand without a gap

function rgb(name) {
  const hex = css(name).slice(1);
  const full = hex.length === 3 ? [...hex].map((digit) => digit + digit).join("") : hex;
  return [0, 2, 4].map((at) => parseInt(full.slice(at, at + 2), 16));
}

// A colour for each byte: nothing, then from the palest to the fullest. One hue that only gains in depth
// is read alike by people who see colours differently.
function palette() {
  const [paper, pale, full] = [rgb("surface"), rgb("ledger-pale"), rgb("ledger-full")];
  const colours = new Uint32Array(257);
  const pack = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  colours[0] = pack(rgb("ledger-none"));
  for (let byte = 1; byte < 256; byte += 1) {
    const share = (byte - 1) / 254;
    colours[byte] = pack(pale.map((from, at) => Math.round(from + (full[at] - from) * share)));
  }
  colours[256] = pack(paper);
  return colours;
}

class Ledger {
  constructor(figure) {
    this.figure = figure;
    this.view = figure.querySelector(".ledger-view");
    this.space = figure.querySelector(".ledger-space");
    this.canvas = figure.querySelector("canvas");
    this.readout = figure.querySelector("[data-readout]");
    this.words = JSON.parse(figure.querySelector("[data-words]").textContent);
    this.zoom = 1;
    this.selected = null;
    this.colours = palette();
    this.listen();
    this.load();
  }

  async load() {
    try {
      const answer = await fetch(this.figure.dataset.src, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      this.data = await answer.json();
    } catch {
      this.readout.textContent = this.words.failed;
      return;
    }
    const text = atob(this.data.cells);
    this.cells = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at += 1) this.cells[at] = text.charCodeAt(at);
    this.rows = this.data.items.length;
    this.columns = this.data.checkpoints.length;
    if (this.selected && (this.selected.row >= this.rows || this.selected.column >= this.columns)) this.selected = null;
    this.lay();
    this.figure.dataset.drawn = `${this.rows}x${this.columns}`;
  }

  listen() {
    this.view.addEventListener("scroll", () => this.drawSoon(), { passive: true });
    this.view.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") this.choose(this.cellAt(event)); });
    this.view.addEventListener("pointerdown", (event) => { this.finger = event.pointerType === "touch"; });
    this.view.addEventListener("click", (event) => this.onClick(event));
    this.view.addEventListener("keydown", (event) => this.onKey(event));
    this.figure.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => this.zoomBy(button.dataset.zoom === "in" ? 2 : 0.5)));
    this.figure.addEventListener("refresh", () => this.load()); // a board event: site.js
    this.observer = new ResizeObserver(() => this.data && this.lay());
    this.observer.observe(this.figure);
  }

  // Sizes of a cell, and of all of them; the place in the middle of the view stays there.
  lay() {
    const middle = this.width ? [(this.view.scrollLeft + this.view.clientWidth / 2) / this.width, (this.view.scrollTop + this.view.clientHeight / 2) / this.height] : [0, 0];
    this.view.style.height = `${Math.min(viewHeight, this.rows * tallestRow)}px`;
    const [w, h] = [this.view.clientWidth, this.view.clientHeight];
    this.cellWidth = Math.max(w / this.columns, Math.min(largestCell, (w / this.columns) * this.zoom));
    this.cellHeight = Math.max(h / this.rows, Math.min(largestCell, (h / this.rows) * this.zoom));
    this.width = Math.max(w, this.cellWidth * this.columns);
    this.height = Math.max(h, this.cellHeight * this.rows);
    this.space.style.width = `${this.width}px`;
    this.space.style.height = `${this.height}px`;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(w * ratio));
    this.canvas.height = Math.max(1, Math.round(h * ratio));
    this.canvas.style.width = `${w}px`;
    this.canvas.style.height = `${h}px`;
    this.view.scrollLeft = middle[0] * this.width - w / 2;
    this.view.scrollTop = middle[1] * this.height - h / 2;
    const atLargest = this.cellWidth >= largestCell && this.cellHeight >= largestCell;
    this.figure.querySelector("[data-zoom=in]").disabled = atLargest || (this.cellHeight >= tallestRow && this.cellWidth >= largestCell);
    this.figure.querySelector("[data-zoom=out]").disabled = this.zoom <= 1;
    this.draw();
  }

  zoomBy(factor) {
    if (!this.data || (factor > 1 && this.figure.querySelector("[data-zoom=in]").disabled)) return;
    this.zoom = Math.max(1, this.zoom * factor);
    this.lay();
    if (this.selected) this.show(this.selected);
  }

  drawSoon() {
    if (this.waiting || !this.data) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  // For each pixel of one side of the canvas, the number of its cell; -1 where the gap between two is.
  places(pixels, from, size, number, ratio) {
    const found = new Int32Array(pixels);
    const gap = size >= gapFrom ? 1 : 0;
    for (let at = 0; at < pixels; at += 1) {
      const place = from + (at + 0.5) / ratio;
      const cell = Math.min(number - 1, Math.floor(place / size));
      found[at] = gap && (cell + 1) * size - place < gap ? -1 : cell;
    }
    return found;
  }

  draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const ratio = window.devicePixelRatio || 1;
    const across = this.places(width, this.view.scrollLeft, this.cellWidth, this.columns, ratio);
    const down = this.places(height, this.view.scrollTop, this.cellHeight, this.rows, ratio);
    const blank = this.colours[256];
    for (let y = 0; y < height; y += 1) {
      const begin = y * width;
      if (down[y] < 0) pixels.fill(blank, begin, begin + width);
      else if (y > 0 && down[y] === down[y - 1]) pixels.copyWithin(begin, begin - width, begin);
      else {
        const row = down[y] * this.columns;
        for (let x = 0; x < width; x += 1) pixels[begin + x] = across[x] < 0 ? blank : this.colours[this.cells[row + across[x]]];
      }
    }
    context.putImageData(image, 0, 0);
    if (this.selected) this.mark(context, ratio);
    this.axis();
  }

  mark(context, ratio) {
    const [left, top] = [this.selected.column * this.cellWidth - this.view.scrollLeft, this.selected.row * this.cellHeight - this.view.scrollTop];
    const [w, h] = [Math.max(this.cellWidth, 5), Math.max(this.cellHeight, 5)];
    context.save();
    context.scale(ratio, ratio);
    context.strokeStyle = css("warm");
    context.lineWidth = 1;
    context.globalAlpha = 0.55;
    context.strokeRect(left - 0.5, -2, this.cellWidth + 1, this.canvas.height + 4);
    context.strokeRect(-2, top - 0.5, this.canvas.width + 4, this.cellHeight + 1);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeRect(left + this.cellWidth / 2 - w / 2, top + this.cellHeight / 2 - h / 2, w, h);
    context.restore();
  }

  axis() {
    const last = Math.min(this.columns - 1, Math.ceil((this.view.scrollLeft + this.view.clientWidth) / this.cellWidth) - 1);
    const first = Math.min(last, Math.floor(this.view.scrollLeft / this.cellWidth + 0.001));
    this.figure.querySelector("[data-from]").textContent = this.columnText(first);
    this.figure.querySelector("[data-to]").textContent = last > first ? this.columnText(last) : "";
  }

  columnText(column) {
    const { step, tokens_seen: tokens } = this.data.checkpoints[column];
    return tokens === null ? this.stepText(step) : this.words.tokens.replace("{count}", compactText(tokens));
  }

  stepText(step) {
    return this.words.step.replace("{step}", step.toLocaleString("en"));
  }

  cellAt(event) {
    if (!this.data) return null;
    const box = this.view.getBoundingClientRect();
    const x = event.clientX - box.left - this.view.clientLeft + this.view.scrollLeft;
    const y = event.clientY - box.top - this.view.clientTop + this.view.scrollTop;
    const [column, row] = [Math.floor(x / this.cellWidth), Math.floor(y / this.cellHeight)];
    return column >= 0 && row >= 0 && column < this.columns && row < this.rows ? { row, column } : null;
  }

  choose(cell) {
    if (!cell || (this.selected && cell.row === this.selected.row && cell.column === this.selected.column)) return;
    this.selected = cell;
    this.drawSoon();
    clearTimeout(this.saying);
    this.saying = setTimeout(() => this.say(), 60); // one sentence for a sweep of the pointer, not a hundred
  }

  // Scrolls until a cell is in view.
  show({ row, column }) {
    const { view } = this;
    const within = (start, size, from, length) => (start < from ? start : start + size > from + length ? start + size - length : from);
    view.scrollLeft = within(column * this.cellWidth, this.cellWidth, view.scrollLeft, view.clientWidth);
    view.scrollTop = within(row * this.cellHeight, this.cellHeight, view.scrollTop, view.clientHeight);
  }

  valueText(byte) {
    if (byte === 0) return this.words.nothing;
    const percent = `${Math.round((byte - 1) / 0.254) / 10}%`;
    if (this.data.view !== "right") return `${this.words.likelihood} ${percent}`;
    return byte === 255 ? this.words.right : byte === 1 ? this.words.wrong : percent;
  }

  say() {
    const { row, column } = this.selected;
    const item = this.data.items[row];
    const checkpoint = this.data.checkpoints[column];
    const value = document.createElement("strong");
    value.textContent = this.valueText(this.cells[row * this.columns + column]);
    const where = document.createElement("span");
    where.className = "muted num";
    const at = checkpoint.tokens_seen === null ? "" : ` · ${this.columnText(column)}`;
    const state = item.state ? ` · ${this.words.states[item.state]}${item.age ? `, ${item.age}` : ""}` : "";
    where.textContent = ` · ${this.stepText(checkpoint.step)}${at}${state}`;
    const text = document.createElement("q");
    text.textContent = item.text;
    const links = document.createElement("span");
    links.className = "ledger-links";
    links.append(this.link(this.itemHref(row), this.words.open_item), " · ", this.link(this.checkpointHref(column), this.words.open_checkpoint));
    this.readout.replaceChildren(value, where, document.createElement("br"), text, document.createElement("br"), links);
  }

  link(href, words) {
    const made = document.createElement("a");
    made.href = href;
    made.textContent = words;
    return made;
  }

  itemHref(row) {
    return this.data.item_path.replace("{item}", this.data.items[row].item);
  }

  checkpointHref(column) {
    return `/evaluations/${this.data.checkpoints[column].evaluation_id}`;
  }

  open(withCheckpoint) {
    if (!this.selected) return;
    if (withCheckpoint) location.assign(this.checkpointHref(this.selected.column));
    else if (this.data.items[this.selected.row].item) location.assign(this.itemHref(this.selected.row));
  }

  // A finger has only the tap to see a cell with, so there the links below open it.
  onClick(event) {
    const cell = this.cellAt(event);
    if (!cell) return;
    this.choose(cell);
    if (!this.finger && !touch.matches) this.open(event.shiftKey);
  }

  onKey(event) {
    if (!this.data || event.ctrlKey || event.metaKey || event.altKey) return;
    const { row, column } = this.selected ?? { row: 0, column: -1 };
    const moves = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      PageUp: [row - 10, column], PageDown: [row + 10, column], Home: [row, 0], End: [row, this.columns - 1],
    };
    if (event.key === "+" || event.key === "=") this.zoomBy(2);
    else if (event.key === "-") this.zoomBy(0.5);
    else if (event.key === "Enter") this.open(event.shiftKey);
    else if (moves[event.key]) {
      const [toRow, toColumn] = moves[event.key];
      const cell = { row: Math.max(0, Math.min(this.rows - 1, toRow)), column: Math.max(0, Math.min(this.columns - 1, toColumn)) };
      this.choose(cell);
      this.show(cell);
    } else return;
    event.preventDefault();
  }

  repaint() {
    this.colours = palette();
    if (this.data) this.draw();
  }
}

const ledgers = [...document.querySelectorAll("[data-ledger]")].map((figure) => new Ledger(figure));
const repaint = () => ledgers.forEach((ledger) => ledger.repaint());
document.addEventListener("themechange", repaint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

// A filter is applied when it is chosen; the button is for those without scripts and for the search.
document.querySelector("[data-filters]")?.addEventListener("change", (event) => {
  if (event.target.matches("select")) event.currentTarget.requestSubmit();
});
// What is empty stays out of the address.
document.querySelector("[data-filters]")?.addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});
