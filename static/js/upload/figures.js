// Sizes, speed and time left, as people say them.
const units = ["B", "kB", "MB", "GB", "TB"];
const memoryMs = 15000; // the speed is that of the last seconds, not of the whole way

export function size(bytes) {
  let at = 0;
  for (; bytes >= 1000 && at < units.length - 1; at += 1) bytes /= 1000;
  return `${bytes < 10 && at ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

export function duration(seconds, patterns) {
  const [hours, minutes, short] = patterns.split("|");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.round(seconds) % 60];
  const pattern = h ? hours : m ? minutes : short;
  return pattern.replace("{hours}", h).replace("{minutes}", m).replace("{seconds}", s);
}

export class Speed {
  constructor() {
    this.points = [];
  }

  add(bytes, now = performance.now()) {
    this.points.push([now, bytes]);
    while (this.points.length > 2 && this.points[0][0] < now - memoryMs) this.points.shift();
  }

  forget() {
    this.points = [];
  }

  get perSecond() {
    if (this.points.length < 2) return 0;
    const [[began, from], [now, to]] = [this.points[0], this.points.at(-1)];
    return now - began > 500 ? Math.max(0, ((to - from) * 1000) / (now - began)) : 0;
  }
}
