"""Room for checkpoints: the site's, each person's, and the disk's."""

import pytest
from sqlalchemy.orm import Session

from registry import quota
from registry.errors import NoRoom
from registry.models.base import READY, RETIRED
from registry.settings import get_settings
from tests.factories import make_checkpoint, make_run, make_user


@pytest.fixture
def limits(grow_home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROW_CHECKPOINTS_BYTES", "1000000")
    monkeypatch.setenv("GROW_USER_CHECKPOINTS_BYTES", "600000")
    get_settings.cache_clear()


def test_each_person_and_the_site_have_so_much(session: Session, limits: None) -> None:
    ann, bob, run = make_user(session, "ann"), make_user(session, "bob"), make_run(session)
    for step, (user, size, state) in enumerate(
        [(ann, 500_000, READY), (bob, 300_000, READY), (ann, 9_000_000, RETIRED)]
    ):
        checkpoint = make_checkpoint(session, run, step=step)
        checkpoint.user_id, checkpoint.size_bytes, checkpoint.state = user.id, size, state
    session.flush()
    assert quota.user_usage(session, ann) == (500_000, 600_000), "what was deleted counts no more"
    assert quota.site_usage(session).left == 200_000
    quota.check(session, ann, 100_000)
    quota.check(session, bob, 200_000)
    with pytest.raises(NoRoom, match=r"Your checkpoints may have 600 kB and have 500 kB: .* 101 kB more\."):
        quota.check(session, ann, 101_000)
    with pytest.raises(NoRoom, match=r"this site may have 1 MB and have 800 kB: .* 250 kB more"):
        quota.check(session, bob, 250_000)
    with pytest.raises(NoRoom, match="this site"):
        quota.check(session, None, 250_000)


def test_without_limits_the_disk_is_the_only_one(
    session: Session, grow_home: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota.check(session, make_user(session, "ann"), 10**6)
    assert quota.site_usage(session).left is None
    monkeypatch.setenv("GROW_FREE_DISK_BYTES", str(10**18))
    get_settings.cache_clear()
    with pytest.raises(NoRoom, match=r"^The disk of this site has no room for it: 1 MB are needed and 0 bytes can"):
        quota.check(session, None, 10**6)


def test_one_that_is_larger_than_any_may_be_is_refused(session: Session, grow_home: object) -> None:
    with pytest.raises(NoRoom, match="is too large: at most"):
        quota.check(session, None, get_settings().max_upload_bytes + 1)


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (26_000_000_000, "26 GB")]
)
def test_sizes_are_said_in_few_digits(size: int, said: str) -> None:
    assert quota.readable(size) == said
