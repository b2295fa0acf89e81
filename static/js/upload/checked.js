// Requests of tus-js-client whose chunks carry a checksum. While one chunk is sent the next one is hashed.

export const canCheck = Boolean(globalThis.crypto?.subtle);

export class CheckedStack {
  constructor(file) {
    this.inner = new tus.DefaultHttpStack();
    this.file = file;
    this.ahead = null; // {start, end, checksum}: of the chunk that most likely comes next
  }

  createRequest(method, url) {
    const request = this.inner.createRequest(method, url);
    if (method === "PATCH" && canCheck) {
      const send = request.send.bind(request);
      let stopped = false;
      const abort = request.abort.bind(request);
      request.abort = () => {
        stopped = true;
        return abort();
      };
      request.send = async (body) => {
        const start = Number(request.getHeader("Upload-Offset"));
        const checksum = await this.checksum(start, start + body.size);
        if (stopped) return new Promise(() => {}); // as a request that is aborted: neither sent nor failed
        request.setHeader("Upload-Checksum", `sha256 ${checksum}`);
        const next = Math.min(start + 2 * body.size, this.file.size);
        if (next > start + body.size) this.hashAhead(start + body.size, next);
        return send(body);
      };
    }
    return request;
  }

  getName() {
    return "CheckedStack";
  }

  checksum(start, end) {
    const ahead = this.ahead;
    this.ahead = null;
    return ahead?.start === start && ahead.end === end ? ahead.checksum : hash(this.file.slice(start, end));
  }

  hashAhead(start, end) {
    const checksum = hash(this.file.slice(start, end));
    checksum.catch(() => {}); // whoever waits for it is told
    this.ahead = { start, end, checksum };
  }
}

async function hash(blob) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return btoa(String.fromCharCode(...digest));
}
