"""Sending to an address that somebody typed in: only where it may go, only so long, and only so much is read.

A name is looked up once, every address that it stands for is judged, and the connection is made to a judged address: a
name that means something else a moment later changes nothing. Redirects are not followed, and proxies of the
environment are not used, which would look the name up again.
"""

import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import certifi
import httpcore

from registry import webhooks
from registry.errors import Invalid

SECONDS = 10.0
"""For everything together: a receiver that says one letter a second is not waited for."""
MAX_BYTES = 4_096
"""Of an answer; the rest is not read."""


class Answer(NamedTuple):
    """What a receiver said."""

    status: int
    text: str


def post(url: str, body: bytes, headers: Mapping[str, str], *, seconds: float = SECONDS) -> Answer:
    """Send a body once.

    Raises:
        Invalid: nothing is sent to such an address, or nobody took it there; in a sentence.
    """
    webhooks.check_url(url)
    deadline = time.monotonic() + seconds
    sent = [("User-Agent", "grow-webhooks/1"), ("Connection", "close"), *headers.items()]
    limits = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=_trust(), network_backend=_Guarded(deadline)) as pool,
            pool.stream("POST", url, headers=sent, content=body, extensions=limits) as response,
        ):
            return Answer(response.status, _beginning(response))
    except httpcore.TimeoutException:
        raise Invalid(f"The receiver did not answer within {seconds:.0f} seconds.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise Invalid(f"The receiver cannot be reached: {_words(error)}.") from None


class _Guarded(httpcore.NetworkBackend):
    """Connects to judged addresses only, until a deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a name that answers.

        Raises:
            Invalid: one of its addresses belongs to this machine or a private network.
            ConnectError: none answers.
        """
        addresses = _look_up(host, port)
        for address in addresses:
            webhooks.check_address(address)
        failed: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = self._backend.connect_tcp(
                    address, port, _left(self._deadline, timeout), local_address, socket_options
                )
                return _Bounded(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class _Bounded(httpcore.NetworkStream):
    """A connection whose every step ends at one deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived."""
        return self._stream.read(max_bytes, _left(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        self._stream.write(buffer, _left(self._deadline, timeout))

    def close(self) -> None:
        """End it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Go on encrypted; the certificate must be the name's, not the address's."""
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline, timeout))
        return _Bounded(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """What the library asks of the connection."""
        return self._stream.get_extra_info(info)


@lru_cache
def _trust() -> ssl.SSLContext:
    """Certificates of the usual authorities, and of those that this machine trusts besides."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


def _look_up(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise httpcore.ConnectError(f"the name {host} cannot be looked up") from error
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _left(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(left, timeout)


def _beginning(response: httpcore.Response) -> str:
    read = b""
    for part in response.iter_stream():
        read += part
        if len(read) >= MAX_BYTES:
            break
    return read[:MAX_BYTES].decode(errors="replace").replace("\x00", "")


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
