"""A real S3 server from a package (SeaweedFS), as a process of its own that checks signatures."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import s3fs
from botocore.exceptions import BotoCoreError

from registry.settings import get_settings
from tests.conftest import free_port

KEY, SECRET = "grow-key", "grow-secret-that-no-message-repeats"
START_SECONDS = 60


class Server(NamedTuple):
    """Where it listens."""

    endpoint: str

    def options(self, **changes: str) -> str:
        return json.dumps({"endpoint_url": self.endpoint, "key": KEY, "secret": SECRET, **changes})

    def files(self) -> s3fs.S3FileSystem:
        """A client of the test's own, that keeps nothing in mind."""
        given = json.loads(self.options())
        return s3fs.S3FileSystem(**given, use_listings_cache=False, skip_instance_cache=True)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started once a test process."""
    folder = tmp_path_factory.mktemp("s3")
    actions = ["Admin", "Read", "Write", "List"]
    known = {"name": "grow", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [known]}))
    port = free_port()
    command = [str(Path(sys.executable).with_name("weed")), "server", "-dir", str(folder), "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    command += [f"-s3.port.grpc={free_port()}"]
    for part in ("master", "volume", "filer"):
        command += [f"-{part}.port={free_port()}", f"-{part}.port.grpc={free_port()}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        server = Server(f"http://127.0.0.1:{port}")
        try:
            _wait(server, process, folder / "log")
            yield server
        finally:
            process.kill()


@pytest.fixture
def blob_store(s3_server: Server, grow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """An empty place in it, set as this test's blob store."""
    monkeypatch.setenv("GROW_BLOB_STORE", f"s3://grow/{uuid.uuid4().hex}")
    monkeypatch.setenv("GROW_BLOB_STORE_OPTIONS", s3_server.options())
    get_settings.cache_clear()
    return s3_server


def _wait(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _takes_files(server):
        assert process.poll() is None, log.read_text()[-2_000:]
        assert time.monotonic() < deadline, log.read_text()[-2_000:]
        time.sleep(0.2)


def _takes_files(server: Server) -> bool:
    """It gets room a moment after it answers."""
    try:
        server.files().makedirs("grow", exist_ok=True)
        server.files().pipe_file("grow/first", b"ready")
    except (OSError, BotoCoreError):
        return False
    return True
