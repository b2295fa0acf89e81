"""Backup and restore by hand, in sentences."""

import os
from pathlib import Path

from grow.prepare import migrate
from grow.supervise import running_supervisor
from registry import backup
from registry.backup import Say
from registry.errors import Conflict
from registry.settings import get_settings

MB = 1e6


def make(folder: Path, *, keep: int, training: bool, corpus: bool, secret: bool, link: bool, say: Say) -> bool:
    """Back the site up; returns whether everything in it was whole.

    Raises:
        Conflict: another backup is being made.
        Invalid: it cannot be made there, or there is no site.
    """
    made = backup.create(
        folder, keep=keep, with_training=training, with_corpus=corpus, with_secret=secret, is_link=link, say=say
    )
    found = made.backup
    say(
        f"{made.folder}: {found.num_rows} rows and {len(found.wanted)} files, of which {made.num_new} "
        f"({made.new_bytes / MB:.1f} MB) were not in {folder} before."
    )
    if backup.SECRET in found.files:
        say("It holds the site's secret key, password hashes and conversations: keep it where only you can read it.")
    if found.absent:
        say(f"Not on this disk, and so not in the backup: {_some(found.absent)}.")
    if found.damaged:
        say(f"Damaged or missing, and so not in the backup: {_some(found.damaged)}. Everything else is.")
    if made.pruned:
        say(f"Deleted old backups: {_some(list(made.pruned))}.")
    return not found.damaged


def check(place: Path, say: Say) -> bool:
    """Read every byte of the newest backup in a folder, or of one; returns whether all is as it was written.

    Raises:
        Invalid: there is no whole backup.
    """
    folder = backup.find(place)
    problems = backup.check(folder)
    for sentence in problems[:20]:
        say(sentence)
    say(f"{folder}: {len(problems)} things are wrong." if problems else f"{folder} is whole and as it was written.")
    return not problems


def bring_back(place: Path, *, into: Path | None, force: bool, say: Say) -> None:
    """Restore the newest backup in a folder, or one, into the site of the settings, or of another data folder.

    Raises:
        Conflict: there is a site already, or it runs.
        Invalid: the backup is damaged.
    """
    place = place.absolute()
    if into is not None:
        os.environ["GROW_HOME"] = str(into.absolute())
        get_settings.cache_clear()
    settings = get_settings()
    if running_supervisor(settings) is not None:
        raise Conflict("The site of %(home)s runs. Stop it first: grow down", home=settings.home)
    found, aside = backup.restore(place, migrate=migrate, is_forced=force, say=say)
    say(f"Restored {found.num_rows} rows and {len(found.wanted)} files of {found.created_at} into {settings.home}.")
    if aside is not None:
        say(f"What was there before is in {aside}. Delete it when you no longer need it.")
    if backup.SECRET not in found.files and not settings.secret_key:
        say(
            "The backup holds no secret key: people log in anew, and votes count as unsigned until the old key is back."
        )


def _some(names: list[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f", … (+{len(names) - limit})" if len(names) > limit else "")
