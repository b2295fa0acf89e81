"""Going on with an upload, only with the files that it began with; and what quotas promise to those under way."""

import pytest
from sqlalchemy.orm import Session

from registry import uploads
from registry.errors import Conflict, NoRoom
from registry.models import Upload, User
from registry.settings import get_settings
from registry.uploads import Listed, Place
from tests.factories import make_user

WEIGHTS, CONFIG = Listed("model.safetensors", 1000, 5), Listed("config.json", 100, 5)
TOKENIZER = Listed("tokenizer.json", 100, 5)


def announce(session: Session, user: User, *files: Listed) -> Upload:
    """Begin it, or go on with it."""
    place = Place(run="guest", step=1, tokens_seen=None, kind="pretrained")
    return uploads.announce(session, user, place, files)


def begin(session: Session, user: User) -> Upload:
    """Half of the weights are here, of the rest nothing."""
    upload = announce(session, user, WEIGHTS, CONFIG, TOKENIZER)
    upload.files[0].received = 500
    session.flush()
    return upload


def test_the_same_files_go_on(session: Session) -> None:
    user = make_user(session, role="admin")
    assert begin(session, user) is announce(session, user, WEIGHTS, CONFIG, TOKENIZER)


def test_a_file_that_was_written_anew_is_no_end_of_the_old_one(session: Session) -> None:
    user = make_user(session, role="admin")
    begin(session, user)
    with pytest.raises(Conflict, match=r"'model.safetensors' was changed"):
        announce(session, user, WEIGHTS._replace(modified=6), CONFIG, TOKENIZER)


def test_a_file_of_which_nothing_came_may_have_changed(session: Session) -> None:
    user = make_user(session, role="admin")
    upload = begin(session, user)
    assert announce(session, user, WEIGHTS, CONFIG._replace(modified=6), TOKENIZER) is upload
    assert upload.files[1].modified == 6


def test_a_sender_that_tells_no_times_goes_on(session: Session) -> None:
    user = make_user(session, role="admin")
    upload = begin(session, user)
    files = [file._replace(modified=None) for file in (WEIGHTS, CONFIG, TOKENIZER)]
    assert announce(session, user, *files) is upload


def test_another_size_is_another_upload(session: Session) -> None:
    user = make_user(session, role="admin")
    begin(session, user)
    with pytest.raises(Conflict, match="Another upload"):
        announce(session, user, WEIGHTS._replace(size=2000), CONFIG, TOKENIZER)


def test_a_quota_is_promised_to_the_first_of_two_uploads(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROW_USER_CHECKPOINTS_BYTES", "2000")
    get_settings.cache_clear()
    user, other = make_user(session, role="admin"), make_user(session, role="admin")
    begin(session, user)
    second = Place(run="guest", step=2, tokens_seen=None, kind="pretrained")
    with pytest.raises(NoRoom, match="Your checkpoints may have"):
        uploads.announce(session, user, second, [WEIGHTS, CONFIG, TOKENIZER])
    assert uploads.announce(session, other, second, [WEIGHTS, CONFIG, TOKENIZER]).step == 2, "a quota is each person's"
