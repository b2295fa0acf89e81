"""What routes ask for by type: database sessions and the nouns that stand in addresses."""

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import Depends
from sqlalchemy.orm import Session

from registry import db, runs
from registry.models import Run


def read_session() -> Iterator[Session]:
    """A session that takes no write lock and commits nothing."""
    with db.read_session() as session:
        yield session


def write_session() -> Iterator[Session]:
    """A session that commits when the route returned without raising, before the response leaves."""
    with db.transaction() as session:
        yield session


# scope="function": the transaction ends before the response is sent, so whoever reads the answer
# and asks again finds what it promised.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]


def run_in_path(run: str, session: ReadSession) -> Run:
    """The run whose name stands in the address."""
    return runs.get_run(session, run)


RunInPath = Annotated[Run, Depends(run_in_path, scope="function")]

XAxis = Literal["tokens", "step", "flops", "time"]
