"""Whether a mirror has what it should: one request for the head of one file."""

import httpx

from registry.errors import Invalid
from registry.mirrors import Sample

TIMEOUT_SECONDS = 10.0
MAX_REDIRECTS = 3


def check(sample: Sample) -> None:
    """Ask for the head of a file and compare its size.

    Raises:
        Invalid: the mirror does not answer, has no such file, or one of another size.
    """
    try:
        with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True, max_redirects=MAX_REDIRECTS) as client:
            answer = client.head(sample.url, headers={"Accept-Encoding": "identity"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise Invalid("%(address)s cannot be reached: %(error)s.", address=sample.url, error=reason) from error
    if answer.status_code != httpx.codes.OK:
        raise Invalid(
            "%(address)s was answered with the status %(status)s.", address=sample.url, status=answer.status_code
        )
    found = answer.headers.get("content-length", "?")
    if found != str(sample.size):
        raise Invalid(
            "%(address)s has %(found)s bytes there, and %(size)s here.",
            address=sample.url,
            found=found,
            size=sample.size,
        )
