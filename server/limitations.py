"""What a model cannot do, in sentences worked out from what is known of it."""

from collections.abc import Mapping, Sequence

from analysis.memory import Shape
from registry.models import Checkpoint, Evaluation
from registry.models.base import FAILED
from server.figures import task_title
from server.i18n import gettext, ngettext
from server.render import compact, label, number
from server.scores import ScoreRow, headline

OPTIMAL_TOKENS = 20
"""Tokens for each parameter at which a training budget is spent best (Hoffmann et al. 2022, "Chinchilla")."""
SMALL_PARAMETERS = 1_000_000_000
WORDS_PER_TOKEN = 0.75
"""Of English; a rule of thumb."""
LANGUAGES = {"zh": "chinese", "en": "english", "code": "code"}
NAMED = 8
"""Tasks that a sentence names."""


def limitations(
    checkpoint: Checkpoint,
    own: Sequence[Evaluation],
    rows: Sequence[ScoreRow],
    shares: Mapping[str, float],
    shape: Shape | None,
) -> list[str]:
    """Sentences, the most general first; `shares` is the mixture of what it has read."""
    found = [
        gettext("It invents facts, and what it writes may be wrong, offensive or harmful. Nobody checks it."),
        _alignment(checkpoint),
        *_size(checkpoint, shape),
        *_languages(shares),
        *_context(shape),
        *_chance(own),
        *_losses(rows),
        *_cut(own),
        *_unmeasured(own),
        *_warnings(checkpoint),
    ]
    if checkpoint.precision != 16:
        found.append(gettext("Its weights are rounded: it may be somewhat worse than in 16 bit; see the changes."))
    return found


def _alignment(checkpoint: Checkpoint) -> str:
    if checkpoint.kind == "chat":
        return gettext("It was tuned to converse. No training for safety or honesty is on record, so expect none.")
    return gettext(
        "It is a base model: it goes on with a text. It was not taught to follow instructions, converse or refuse."
    )


def _size(checkpoint: Checkpoint, shape: Shape | None) -> list[str]:
    count = shape.num_parameters if shape is not None else checkpoint.num_parameters
    if not count:
        return []
    found = []
    if count < SMALL_PARAMETERS:
        found.append(
            gettext(
                "With %(count)s parameters it is small: expect little knowledge and no reasoning.", count=compact(count)
            )
        )
    tokens = checkpoint.tokens_seen
    if tokens is not None and tokens < OPTIMAL_TOKENS * count:
        found.append(
            gettext(
                "It has read %(ratio)s tokens for each parameter; about %(optimal)s make the best use of compute "
                "(Hoffmann et al. 2022), so it is undertrained.",
                ratio=number(tokens / count, 1),
                optimal=OPTIMAL_TOKENS,
            )
        )
    return found


def _languages(shares: Mapping[str, float]) -> list[str]:
    if not shares:
        return [gettext("What it has read is not on record here.")]
    parts = [
        gettext("%(share)s %(language)s", share=f"{100 * share:.0f}%", language=label(LANGUAGES.get(name, name)))
        for name, share in sorted(shares.items(), key=lambda one: -one[1])
        if share > 0
    ]
    return [
        gettext("It has read %(parts)s, and hardly anything else; other languages are noise to it.", parts=_join(parts))
    ]


def _context(shape: Shape | None) -> list[str]:
    if shape is None:
        return []
    return [
        gettext(
            "It reads at most %(count)s tokens at once, about %(words)s English words; what came before is forgotten.",
            count=number(shape.context_length),
            words=number(round(shape.context_length * WORDS_PER_TOKEN)),
        )
    ]


def _chance(own: Sequence[Evaluation]) -> list[str]:
    """Tasks whose interval holds what guessing scores, or lies below it."""
    titles = []
    for evaluation in own:
        now, task = headline(evaluation), evaluation.task
        if now is None or now.low is None or task.chance is None or not task.higher_is_better or task.is_probe:
            continue
        if now.low <= task.chance:
            titles.append(task_title(evaluation.task))
    if not titles:
        return []
    return [
        ngettext(
            "In %(num)s task it cannot be told from guessing: %(tasks)s.",
            "In %(num)s tasks it cannot be told from guessing: %(tasks)s.",
            len(titles),
        )
        % {"num": number(len(titles)), "tasks": _some(titles)}
    ]


def _losses(rows: Sequence[ScoreRow]) -> list[str]:
    titles = [row.title for row in rows if row.change is not None and row.change.verdict == "loss"]
    if not titles:
        return []
    return [gettext("It became worse than the one it is compared with in: %(tasks)s.", tasks=_some(titles))]


def _cut(own: Sequence[Evaluation]) -> list[str]:
    number_cut = sum(one.num_truncated for one in own)
    if not number_cut:
        return []
    return [
        ngettext(
            "%(num)s question was longer than it can read; its beginning was left out.",
            "%(num)s questions were longer than it can read; their beginnings were left out.",
            number_cut,
        )
        % {"num": number(number_cut)}
    ]


def _unmeasured(own: Sequence[Evaluation]) -> list[str]:
    if not any(headline(one) is not None for one in own):
        return [gettext("Nothing has been measured of it yet.")]
    failed = [task_title(one.task) for one in own if one.status == FAILED and not one.task.is_probe]
    return [gettext("Without a score because the evaluation failed: %(tasks)s.", tasks=_some(failed))] if failed else []


def _warnings(checkpoint: Checkpoint) -> list[str]:
    sentences = {
        "same_weights": gettext("Another step of its run holds the very same weights: one of the two is mislabelled."),
        "twin": gettext("Another step of its run answers the fingerprint in the same way: one may be mislabelled."),
        "tokenizer": gettext("Its tokenizer is not the one of its run."),
    }
    kinds = dict.fromkeys(str(found.get("kind", "")) for found in checkpoint.warnings)
    return [sentences[kind] for kind in kinds if kind in sentences]


def _some(titles: Sequence[str]) -> str:
    shown = list(dict.fromkeys(titles))
    more = len(shown) - NAMED
    text = gettext("; ").join(shown[:NAMED])
    return text + (gettext(" and %(count)s more", count=number(more)) if more > 0 else "")


def _join(parts: Sequence[str]) -> str:
    return gettext(", ").join(parts)
