"""A tus client for tests: it announces a checkpoint and sends its files in chunks, as the page's script does."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import httpx

from server.tus import CHUNK_TYPE, VERSION
from tests.server.visitors import Visitor

Files = Mapping[str, bytes]
ADDRESS = "/api/uploads"


class Sender:
    """Somebody who uploads."""

    def __init__(self, visitor: Visitor) -> None:
        self.client = visitor.client
        self.token = visitor.token("/account")

    def headers(self, **more: str) -> dict[str, str]:
        """What each request carries; names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"x-csrf-token": self.token, "accept": "application/json", "tus-resumable": VERSION, **named}

    def announce(self, sizes: Mapping[str, int], **fields: str) -> httpx.Response:
        """Say what is to come."""
        listed = [{"name": name, "size": size} for name, size in sizes.items()]
        content = {"run": "given", "step": "5", "files": listed, **fields}
        return self.client.post(ADDRESS, json=content, headers=self.headers())

    def begin(self, files: Files, **fields: str) -> dict[str, Any]:
        """Announce these files; returns what the server knows of the upload."""
        answer = self.announce({name: len(content) for name, content in files.items()}, **fields)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def patch(self, url: str, content: bytes, offset: int = 0, **headers: str) -> httpx.Response:
        """Send a chunk with its checksum."""
        named = {"content_type": CHUNK_TYPE, "upload_offset": str(offset), "upload_checksum": checksum(content)}
        return self.client.patch(url, content=content, headers=self.headers(**{**named, **headers}))

    def offset(self, url: str) -> int:
        """Where the file goes on."""
        return int(self.client.head(url, headers=self.headers()).headers["upload-offset"])

    def send(self, upload: Mapping[str, Any], files: Files) -> None:
        """Send everything that is not there yet, in two chunks a file."""
        for listed in upload["files"]:
            content = files[listed["name"]]
            middle = max(listed["received"], len(content) // 2)
            for start, end in ((listed["received"], middle), (middle, len(content))):
                if end > start:
                    answer = self.patch(listed["url"], content[start:end], start)
                    assert answer.status_code == 204, answer.text

    def state(self, upload: Mapping[str, Any]) -> dict[str, Any]:
        """What the server says of it now."""
        return dict(self.client.get(f"{ADDRESS}/{upload['id']}", headers=self.headers()).json())


def checksum(content: bytes, algorithm: str = "sha256") -> str:
    """The header of a chunk."""
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"
