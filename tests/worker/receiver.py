"""A receiver of webhooks as a process of its own, with the standard library alone: `receiver.py PORT FILE`.

How it answers is the path it is asked under; what it was sent is a line of JSON in FILE.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Receiver(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        with Path(sys.argv[2]).open("a") as file:
            file.write(json.dumps({"headers": headers, "raw": raw, "body": json.loads(raw)}) + "\n")
        getattr(self, self.path.strip("/").replace("-", "_"))()

    def say(self, status: int, text: str = "ok", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def ok(self) -> None:
        self.say(200)

    def error(self) -> None:
        self.say(500, "oh no")

    def redirect(self) -> None:
        self.say(302, "", Location="/ok")

    def feishu(self) -> None:
        self.say(200, '{"StatusCode": 0, "StatusMessage": "success", "code": 0, "data": {}, "msg": "success"}')

    def wecom_refuses(self) -> None:
        self.say(200, '{"errcode": 93000, "errmsg": "invalid webhook url"}')

    def slow(self) -> None:
        time.sleep(3)
        self.close_connection = True

    def drip(self) -> None:
        for letter in "HTTP/1.1 200 OK\r\nX-Slow: 1\r\n" * 2:
            self.wfile.write(letter.encode())
            self.wfile.flush()
            time.sleep(0.1)
        self.close_connection = True

    def hang_up(self) -> None:
        self.close_connection = True

    def nonsense(self) -> None:
        self.wfile.write(b"I speak no HTTP\r\n\r\n")
        self.close_connection = True

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(2_000):
                self.wfile.write(b"x" * 65_536)
        except OSError:
            self.close_connection = True  # it has heard enough

    def log_message(self, *_: Any) -> None:
        """Nothing on the error stream."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver) as server:
        print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
        server.serve_forever()
