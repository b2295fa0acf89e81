"""A checkpoint's card: made from what is known of it, in Chinese or English, as Markdown with the Hub's YAML header.

A card is the README.md of a model. It says what the rows say now: scores that are still to come are missing from it,
so it changes while a checkpoint is being evaluated. Who serves it under a commit that must not change keeps the text.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from analysis.memory import Shape
from registry import checkpoints, comparisons, evaluations, runs
from registry.models import Checkpoint, CheckpointParent, Evaluation
from registry.models.base import FINISHED, READY
from registry.quantized import parse
from registry.settings import get_settings
from registry.shelf import revision_of
from server import architecture, compare, hardware, i18n, lineage, render, scores, snippets
from server.figures import metric_name, task_title
from server.growth import checkpoint_href, checkpoint_rows
from server.i18n import gettext
from server.limitations import limitations
from server.render import label, number, size

LANGUAGE_TAGS = {"zh": "zh", "en": "en"}
SOURCE_LANGUAGES = {"zh": "chinese", "en": "english", "code": "code"}
SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~"})
PLACEHOLDER = "http://127.0.0.1:8000"
"""In snippets of a card that nobody asked over HTTP, where GROW_PUBLIC_URL is not set."""


@dataclass(frozen=True)
class Fact:
    """A line of a table."""

    name: str
    value: str


@dataclass(frozen=True)
class DataSource:
    """A text that the run learns from."""

    name: str
    licence: str
    """Empty where it was not recorded."""


@dataclass(frozen=True)
class LanguageShare:
    """How much of what was read is in a language."""

    name: str
    planned: float | None
    """Share of the mixture, 0 to 1."""
    tokens: float | None
    """Read until this step."""


@dataclass(frozen=True)
class Citation:
    """How to cite a checkpoint."""

    plain: str
    bibtex: str


@dataclass(frozen=True)
class Card:
    """Context of models/card.md."""

    checkpoint: Checkpoint
    title: str
    revision: str
    address: str
    page: str
    """Address of its model page."""
    evidence: str
    """Address of the page with all scores and answers."""
    facts: Sequence[Fact]
    training: Sequence[Fact]
    languages: Sequence[LanguageShare]
    sources: Sequence[DataSource]
    groups: Sequence[scores.ScoreGroup]
    against: Checkpoint | None
    against_is_released: bool
    gains: Sequence[scores.ScoreRow]
    losses: Sequence[scores.ScoreRow]
    num_open: int
    limitations: Sequence[str]
    memory: Sequence[tuple[int, int, str]]
    """Precision, longest context, and what it needs there."""
    use: str
    """The program that loads it."""
    licence: str
    citation: Citation
    origin: str
    parents: Sequence[tuple[str, str]]
    """Label and role of what it was made from."""


def card_markdown(session: Session, checkpoint: Checkpoint, language: str, address: str = "") -> str:
    """The card as a README.md: YAML header, then the text in `en` or `zh`. `address` is the site's, for its links."""
    with i18n.speaking(language):
        card = _gather(session, checkpoint, address)
        return f"---\n{_header(session, card)}---\n\n{_text(card)}"


def card_text(session: Session, checkpoint: Checkpoint, language: str, address: str = "") -> str:
    """The card without its header."""
    with i18n.speaking(language):
        return _text(_gather(session, checkpoint, address))


def card_html(session: Session, checkpoint: Checkpoint, language: str, address: str = "") -> Markup:
    """The card for a page that has the title already: its headings one step lower, its tables free to scroll."""
    text = card_text(session, checkpoint, language, address).partition("\n")[2]
    html = str(render.markdown(text)).replace("<h2>", "<h3>").replace("</h2>", "</h3>")
    html = html.replace("<pre>", '<pre tabindex="0">')
    html = html.replace("<table>", '<div class="table-wrap" tabindex="0"><table>').replace("</table>", "</table></div>")
    return Markup(html)  # safe: nh3 made it, and only whole tags were exchanged


def citation_cff(checkpoint: Checkpoint, address: str = "") -> str:
    """CITATION.cff, which GitHub, Zotero and Zenodo read (citation-file-format 1.2.0)."""
    site = address or _address("")
    content = {
        "cff-version": "1.2.0",
        "message": "If you use these weights, please cite them.",
        "type": "software",
        "title": f"{checkpoint.run.name}, {revision_of(checkpoint)}",
        "version": revision_of(checkpoint),
        "authors": [{"name": get_settings().site_name}],
        "date-released": f"{checkpoint.created_at:%Y-%m-%d}",
        "url": site + model_href(checkpoint),
        "license": licence_of(checkpoint),
        "identifiers": [{"type": "other", "value": f"sha256:{checkpoint.digest}", "description": "Its files"}],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def model_href(checkpoint: Checkpoint) -> str:
    """Address of a checkpoint's model page."""
    return f"/models/{checkpoint.run.name}/{revision_of(checkpoint)}"


def licence_of(checkpoint: Checkpoint) -> str:
    """What the run says, else what the site says of what it trains; `other` for what came from elsewhere."""
    own = checkpoint.run.config.get("license")
    if isinstance(own, str) and own:
        return own[:80]
    return get_settings().model_license if checkpoint.run.kind == "training" else "other"


def before_of(session: Session, checkpoint: Checkpoint) -> Checkpoint | None:
    """What a card holds it against: for a quantized one its 16-bit form, else the release before, else the one before.

    Of the same run, kind and precision.
    """
    if checkpoint.precision != 16:
        same = select(Checkpoint).where(
            Checkpoint.run_id == checkpoint.run_id,
            Checkpoint.step == checkpoint.step,
            Checkpoint.kind == checkpoint.kind,
            Checkpoint.precision == 16,
        )
        return session.scalar(same)
    earlier = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision == checkpoint.precision,
        Checkpoint.state == READY,
        Checkpoint.is_released,
        Checkpoint.step < checkpoint.step,
    )
    released = session.scalar(earlier.order_by(Checkpoint.step.desc()).limit(1))
    return released or checkpoints.previous(session, checkpoint)


def escape(text: object) -> str:
    """Text as Markdown shows it, in one line."""
    return " ".join(str(text).split()).translate(SPECIAL)


def repo_of(session: Session, checkpoint: Checkpoint, address: str = "") -> snippets.Repo:
    """What the programs need to know of a checkpoint."""
    four = select(Checkpoint).where(
        Checkpoint.run_id == checkpoint.run_id,
        Checkpoint.step == checkpoint.step,
        Checkpoint.kind == checkpoint.kind,
        Checkpoint.precision == 4,
        Checkpoint.state == READY,
    )
    packed = session.scalar(four)
    return snippets.Repo(
        address=_address(address),
        run=checkpoint.run.name,
        revision=revision_of(checkpoint),
        is_chat=checkpoint.kind == "chat",
        label=checkpoint.label,
        files=[(name, entry["sha256"]) for name, entry in sorted(checkpoint.manifest.get("files", {}).items())],
        four_bit=revision_of(packed) if packed is not None else "",
    )


def _gather(session: Session, checkpoint: Checkpoint, address: str) -> Card:
    before = before_of(session, checkpoint)
    own = evaluations.for_checkpoint(session, checkpoint)
    against = compare.against(comparisons.compare(session, before, checkpoint), before) if before is not None else None
    groups = scores.score_groups(session, own, against or scores.Against({}, {}))
    rows = [row for group in groups for row in group.rows]
    shape, config = architecture.shape_of(checkpoint), architecture.config_of(checkpoint)
    languages = _languages(session, checkpoint)
    repo = repo_of(session, checkpoint, address)
    shares = {share.name: share.planned for share in languages if share.planned is not None}
    return Card(
        checkpoint=checkpoint,
        title=title_of(checkpoint),
        revision=repo.revision,
        address=repo.address,
        page=repo.address + model_href(checkpoint),
        evidence=repo.address + checkpoint_href(checkpoint),
        facts=_facts(checkpoint, shape, config),
        training=_training(checkpoint, shape),
        languages=languages,
        sources=_sources(checkpoint),
        groups=groups,
        against=before,
        against_is_released=before is not None and before.is_released,
        gains=[row for row in rows if row.change is not None and row.change.verdict == "gain"],
        losses=[row for row in rows if row.change is not None and row.change.verdict == "loss"],
        num_open=scores.num_open(own),
        limitations=limitations(checkpoint, own, rows, shares, shape),
        memory=_memory(shape, config),
        use=snippets.transformers_text(repo),
        licence=licence_of(checkpoint),
        citation=_citation(checkpoint, repo.address),
        origin=lineage.lineage_of(session, checkpoint, checkpoint_rows(session, checkpoint.run)).origin,
        parents=_parents(session, checkpoint),
    )


def title_of(checkpoint: Checkpoint) -> str:
    """`demo · step 1,500 · chat model · 4 bit`."""
    words = [checkpoint.run.name, gettext("step %(step)s", step=number(checkpoint.step))]
    words += [label(checkpoint.kind)] if checkpoint.kind != "pretrained" else []
    words += [gettext("%(bits)s bit", bits=checkpoint.precision)] if checkpoint.precision != 16 else []
    return " · ".join(words)


def _facts(checkpoint: Checkpoint, shape: Shape | None, config: Mapping[str, Any]) -> list[Fact]:
    found = [Fact(gettext("Architecture"), "LLaMA (LlamaForCausalLM)")]
    if shape is not None:
        heads = gettext(
            "%(heads)s, with %(kv)s for keys and values",
            heads=number(shape.num_heads),
            kv=number(shape.num_kv_heads),
        )
        found += [
            Fact(gettext("Parameters"), number(shape.num_parameters)),
            Fact(gettext("Layers"), number(shape.num_layers)),
            Fact(gettext("Width"), number(shape.hidden_size)),
            Fact(gettext("Feed-forward width"), number(shape.intermediate_size)),
            Fact(gettext("Attention heads"), heads),
            Fact(gettext("Vocabulary"), number(shape.vocab_size)),
            Fact(gettext("Context"), gettext("%(count)s tokens", count=number(shape.context_length))),
        ]
    elif checkpoint.num_parameters:
        found.append(Fact(gettext("Parameters"), number(checkpoint.num_parameters)))
    found.append(Fact(gettext("Kind"), label(checkpoint.kind)))
    found.append(Fact(gettext("Precision"), _precision(checkpoint, config)))
    found.append(Fact(gettext("Size of its files"), size(checkpoint.size_bytes)))
    return found


def _precision(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str:
    bits = gettext("%(bits)s bit", bits=checkpoint.precision)
    quantization = config.get("quantization_config")
    return f"{bits} ({parse(quantization).name})" if isinstance(quantization, dict) else bits


def _training(checkpoint: Checkpoint, shape: Shape | None) -> list[Fact]:
    run, tokens = checkpoint.run, checkpoint.tokens_seen
    found = [Fact(gettext("Step"), _of_planned(checkpoint.step, run.max_steps))]
    if tokens is not None:
        found.append(Fact(gettext("Tokens read"), number(tokens)))
    if checkpoint.flops is not None:
        found.append(Fact(gettext("Training compute"), f"{checkpoint.flops:.2e} FLOPs"))
    count = shape.num_parameters if shape is not None else checkpoint.num_parameters
    if tokens is not None and count:
        found.append(Fact(gettext("Tokens per parameter"), number(tokens / count, 1)))
    if run.git_revision:
        found.append(Fact(gettext("Code"), run.git_revision[:12]))
    found.append(Fact(gettext("Date"), render.day(checkpoint.created_at)))
    return found


def _of_planned(step: int, planned: int | None) -> str:
    return gettext("%(step)s of %(all)s", step=number(step), all=number(planned)) if planned else number(step)


def _languages(session: Session, checkpoint: Checkpoint) -> list[LanguageShare]:
    """The mixture as it was planned, and as it was read until this step."""
    config = checkpoint.run.config
    corpus = config.get("corpus") if isinstance(config.get("corpus"), dict) else {}
    mixture = (corpus or {}).get("mixture") or config.get("data") or {}
    mixture = {str(name): float(share) for name, share in mixture.items()} if isinstance(mixture, dict) else {}
    total = sum(mixture.values()) or 1.0
    read = runs.values_at(session, checkpoint.run, "data/tokens_", checkpoint.step)
    tokens = {key.removeprefix("data/tokens_"): value for key, value in read.items()}
    names = dict.fromkeys([*mixture, *sorted(tokens)])
    return [LanguageShare(name, mixture[name] / total if name in mixture else None, tokens.get(name)) for name in names]


def language_name(name: str) -> str:
    """Of a language of the mixture."""
    return label(SOURCE_LANGUAGES.get(name, name))


def _sources(checkpoint: Checkpoint) -> list[DataSource]:
    config = checkpoint.run.config
    corpus = config.get("corpus")
    listed = corpus.get("sources") if isinstance(corpus, dict) else None
    licences = config.get("licences")
    licences = licences if isinstance(licences, dict) else {}
    names = [str(one.get("name", "")) for one in listed or () if isinstance(one, dict)]
    return [DataSource(name, str(licences.get(name, ""))) for name in names if name]


def _memory(shape: Shape | None, config: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    if shape is None:
        return []
    group, context = architecture.group_size(config), shape.context_length
    needs = {bits: hardware.need_of(shape, bits, context, 1, hardware.CARD, group) for bits in hardware.PRECISIONS}
    return [(bits, context, f"{number(need.total / 1e9, 2)} GB") for bits, need in needs.items()]


def _citation(checkpoint: Checkpoint, address: str) -> Citation:
    site, year, revision = get_settings().site_name, checkpoint.created_at.year, revision_of(checkpoint)
    url, digest = address + model_href(checkpoint), checkpoint.digest
    tokens = gettext("%(count)s tokens", count=number(checkpoint.tokens_seen)) if checkpoint.tokens_seen else ""
    note = ", ".join(filter(None, (tokens, f"sha256 {digest}" if digest else "")))
    accessed = dt.datetime.now(dt.UTC).date()
    bibtex = (
        f"@misc{{{checkpoint.run.name}-{revision},\n"
        f"  author = {{{{{_tex(site)}}}}},\n"
        f"  title  = {{{_tex(checkpoint.run.name)}, {_tex(revision)}}},\n"
        f"  year   = {{{year}}},\n"
        f"  url    = {{{url}}},\n"
        f"  note   = {{{_tex(note)}}}\n"
        "}"
    )
    plain = f"{site} ({year}). {checkpoint.run.name}, {revision}" + (f" [{note}]. " if note else ". ") + f"{url} "
    return Citation(plain + gettext("(seen on %(date)s)", date=f"{accessed:%Y-%m-%d}"), bibtex)


def _tex(text: str) -> str:
    return "".join(f"\\{character}" if character in "&%$#_{}" else character for character in text)


def _parents(session: Session, checkpoint: Checkpoint) -> list[tuple[str, str]]:
    query = (
        select(Checkpoint, CheckpointParent.role)
        .join(CheckpointParent, CheckpointParent.parent_id == Checkpoint.id)
        .where(CheckpointParent.child_id == checkpoint.id)
    )
    return [(parent.label, role) for parent, role in session.execute(query.order_by(Checkpoint.step))]


def _header(session: Session, card: Card) -> str:
    """What the Hub reads (huggingface.co/docs/hub/model-cards, "Model card metadata")."""
    checkpoint = card.checkpoint
    languages = [LANGUAGE_TAGS[share.name] for share in card.languages if share.name in LANGUAGE_TAGS]
    tags = ["llama", "text-generation", f"step-{checkpoint.step}"]
    tags += ["conversational"] if checkpoint.kind == "chat" else []
    tags += [f"{checkpoint.precision}-bit"] if checkpoint.precision != 16 else []
    tags += ["code"] if any(share.name == "code" for share in card.languages) else []
    content: dict[str, Any] = {"language": languages} if languages else {}
    content |= {
        "license": card.licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    if card.parents and checkpoint.precision != 16:
        content |= {"base_model": checkpoint.run.name, "base_model_relation": "quantized"}
    results = [_entry(one, card.evidence) for one in evaluations.for_checkpoint(session, checkpoint)]
    found = [entry for entry in results if entry is not None]
    if found:
        content["model-index"] = [{"name": f"{checkpoint.run.name} {card.revision}", "results": found}]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _entry(evaluation: Evaluation, url: str) -> dict[str, Any] | None:
    """A result as the Hub's `model-index` has it; None where there is no score."""
    task, now = evaluation.task, scores.headline(evaluation)
    if evaluation.status != FINISHED or now is None or task.is_probe:
        return None
    metric: dict[str, Any] = {"type": task.metric, "value": round(now.value, 6), "name": metric_name(task.metric)}
    if now.stderr is not None:
        metric["args"] = {"stderr": round(now.stderr, 6), "low": _rounded(now.low), "high": _rounded(now.high)}
    return {
        "task": {"type": "text-generation", "name": label(task.ability)},
        "dataset": {"type": task.name, "name": task_title(task)},
        "metrics": [metric],
        "source": {"name": get_settings().site_name, "url": url},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _text(card: Card) -> str:
    context = {field.name: getattr(card, field.name) for field in fields(card)}
    context["site_name"] = get_settings().site_name
    return _plain_environment().get_template("models/card.md").render(context).strip() + "\n"


def _plain_environment() -> Environment:
    """As for pages, without HTML's escapes: the card is Markdown, and becomes HTML through `render.markdown`."""
    made = render.environment().overlay(autoescape=False)
    made.filters |= {"md": escape, "language_name": language_name}
    return made


def has_public_url() -> bool:
    """Whether the operator says where people reach the site."""
    return bool(get_settings().public_url)


def _address(given: str) -> str:
    return (given or get_settings().public_url or PLACEHOLDER).rstrip("/")
