"""What the pages say about names and retention: why a checkpoint stays, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry import retention
from registry.models import Checkpoint
from registry.retention import DryRun, Reason
from server import growth
from server.i18n import gettext, ngettext
from server.render import number

MAX_NAMES = 3


@dataclass(frozen=True)
class Verdict:
    """A checkpoint in a dry run."""

    checkpoint: Checkpoint
    href: str
    goes: bool
    reasons: Sequence[str]


@dataclass(frozen=True)
class Trial:
    """A dry run, as its page shows it."""

    going: Sequence[Verdict]
    staying: Sequence[Verdict]
    num_bytes: int


def trial_of(found: DryRun) -> Trial:
    """What a rule would do, in words."""
    verdicts = [
        Verdict(one.checkpoint, growth.checkpoint_href(one.checkpoint), one.goes, [reason_text(r) for r in one.reasons])
        for one in found.judgements
    ]
    return Trial([one for one in verdicts if one.goes], [one for one in verdicts if not one.goes], found.num_bytes)


def reason_text(reason: Reason) -> str:
    """Why a checkpoint stays, in a few words."""
    names = _some(reason.names)
    if reason.kind == retention.CHATS:
        text = ngettext("%(num)s conversation", "%(num)s conversations", reason.number)
        return text % {"num": number(reason.number)}
    if reason.kind == retention.VOTES:
        text = ngettext("%(num)s vote", "%(num)s votes", reason.number)
        return text % {"num": number(reason.number)}
    if reason.kind == retention.UNEVALUATED and not names:
        return gettext("not evaluated yet")
    return {
        retention.RELEASED: gettext("released"),
        retention.MILESTONE: gettext("milestone"),
        retention.NEWEST: gettext("among the newest"),
        retention.BEST: gettext("best in %(names)s", names=names),
        retention.ALIAS: gettext("named %(names)s", names=names),
        retention.BRANCH: gettext("%(names)s went on from it", names=names),
        retention.PARENT: gettext("%(names)s was made from it", names=names),
        retention.OPEN: gettext("work waits for it"),
        retention.UNEVALUATED: gettext("not evaluated yet: %(names)s", names=names),
    }[reason.kind]


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" (+{more})" if more > 0 else "")
