// Sends the files of one upload, one after another, each by the tus protocol; goes on through lost connections.
import { CheckedStack } from "./checked.js";

const MiB = 2 ** 20;
const chunks = { most: 32 * MiB, least: MiB }; // a line that breaks loses at most one chunk, so a bad line gets small ones
const delays = [0, 1000, 2000, 4000, 8000, 15000, 30000];
const corrupted = 460;
const retried = [0, 408, 409, 423, 429, corrupted, 500, 502, 503, 504]; // 0: no answer at all

export class Sender extends EventTarget {
  // `parts`: [{file, url, size, received}] in the order they are sent.
  // Events: progress, trouble (it tries again), unreadable (a file was changed), stopped (it was refused), done.
  constructor(parts, token) {
    super();
    this.parts = parts;
    this.token = token;
    this.current = null;
    this.isPaused = false;
    this.chunk = chunks.most;
    this.wake = () => this.resume();
  }

  get sent() {
    return this.parts.reduce((sum, part) => sum + part.received, 0);
  }

  start() {
    this.isPaused = false;
    const part = this.parts.find((one) => one.received < one.size);
    if (!part) return this.say("done");
    this.current = this.send(part);
    this.current.start();
  }

  send(part) {
    const upload = new tus.Upload(part.file, {
      uploadUrl: new URL(part.url, location.href).href,
      chunkSize: this.chunk,
      retryDelays: delays,
      storeFingerprintForResuming: false,
      headers: { "X-CSRF-Token": this.token, Accept: "application/json" },
      httpStack: new CheckedStack(part.file),
      onShouldRetry: (error) => {
        const again = !isUnreadable(error) && retried.includes(status(error));
        if (again) {
          this.resize(upload, this.chunk / 2);
          this.say("trouble");
        }
        return again;
      },
      onProgress: (bytes) => {
        part.received = bytes;
        this.say("progress");
      },
      onChunkComplete: () => this.resize(upload, this.chunk * 2),
      onSuccess: () => {
        part.received = part.size;
        this.say("progress");
        if (!this.isPaused) this.start();
      },
      onError: (error) => this.fail(error),
    });
    return upload;
  }

  resize(upload, bytes) {
    this.chunk = Math.min(chunks.most, Math.max(chunks.least, bytes));
    upload.options.chunkSize = this.chunk;
  }

  fail(error) {
    this.current = null;
    if (isUnreadable(error)) return this.say("unreadable");
    if (retried.includes(status(error))) {
      // Every try has failed. The next one is made when the line is back, or somebody asks for it.
      this.isPaused = true;
      addEventListener("online", this.wake, { once: true });
      clearTimeout(this.timer);
      this.timer = setTimeout(this.wake, delays.at(-1));
      return this.say("trouble");
    }
    this.say("stopped", { status: status(error), reason: reason(error) });
  }

  pause() {
    this.isPaused = true;
    this.rest();
    return this.current?.abort();
  }

  resume() {
    if (!this.isPaused) return;
    this.rest();
    this.start();
  }

  rest() {
    clearTimeout(this.timer);
    removeEventListener("online", this.wake);
  }

  say(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

// The browser gives a file that was changed since it was chosen to nobody any more.
function isUnreadable(error) {
  return ["NotReadableError", "NotFoundError"].includes(error.causingError?.name);
}

function status(error) {
  return error.originalResponse ? error.originalResponse.getStatus() : 0;
}

function reason(error) {
  try {
    return JSON.parse(error.originalResponse.getBody()).detail;
  } catch {
    return error.message;
  }
}
