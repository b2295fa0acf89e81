"""A chat model for tests in a browser: a tiny folder whose tokenizer has a template, published as `grow push` does."""

import json

from grow.push import push_folder
from registry import checkpoints, db
from registry.errors import NotFound
from registry.models.base import READY, RETIRED
from tests.browser.conftest import Site, wait_for
from tests.browser.tiny import write_folder

RUN, STEP = "talker", 3
LABEL = f"{RUN}@{STEP}-chat"
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""The scripted engine says what it reads, so an answer shows all of this."""


def publish(site: Site) -> None:
    """Until the site's worker has found it whole."""
    folder = write_folder(site.folders / f"{RUN}-{STEP}-chat", seed=33)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    site.use(lambda: push_folder(folder, run=RUN, step=STEP, tokens_seen=STEP * 4096, kind="chat"))
    wait_for(lambda: site.use(_is_ready), 60, "the chat model", site.home)


def retire(site: Site) -> None:
    """The pages of other tests choose no chat model by themselves afterwards."""

    def close() -> None:
        with db.transaction() as session:
            checkpoints.by_label(session, LABEL).state = RETIRED

    site.use(close)


def _is_ready() -> bool:
    with db.read_session() as session:
        try:
            return checkpoints.by_label(session, LABEL).state == READY
        except NotFound:
            return False
