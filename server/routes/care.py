"""Routes of administrators about a run's checkpoints: names, averages, and the rule of which keep their files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry import aliases, averages, checkpoints, db, retention, runs
from registry.aliases import Named
from registry.errors import Invalid, RegistryError
from registry.models import Alias, Checkpoint, Job, RetentionRule, Run
from registry.models.base import READY
from server import auth, csrf, growth, keeping, render
from server.deps import ReadSession, RunInPath
from server.i18n import error_text

router = APIRouter(prefix="/admin/care", route_class=csrf.FormRoute, include_in_schema=False)
MAX_STEP = 10**18
NEWEST, BEST = 3, 1
"""What the form of a run without a rule begins with."""
MAX_JOBS = 5
Number = Annotated[int, Form(ge=0, le=retention.MAX_KEPT)]


class Kept(NamedTuple):
    """A run in the list."""

    run: Run
    num_ready: int
    size_bytes: int
    names: Sequence[str]
    rule: RetentionRule | None


@dataclass(frozen=True)
class CarePage:
    """Context of admin/care.html."""

    runs: Sequence[Kept]


@dataclass(frozen=True)
class Rule:
    """The numbers of a rule as they stand in its form."""

    keep_newest: int
    keep_best: int
    keep_milestones: bool
    is_scheduled: bool


@dataclass(frozen=True)
class RunCarePage:
    """Context of admin/care_run.html."""

    run: Run
    names: Sequence[Named]
    hrefs: Mapping[int, str]
    steps: Sequence[str]
    """What checkpoints call themselves, for the field that takes one."""
    saved: RetentionRule | None
    rule: Rule
    is_tried: bool
    """The rule shown is not saved: it was only tried."""
    trial: keeping.Trial | None
    jobs: Sequence[Job]
    done: str
    undo: Mapping[str, str]
    """For the name that was just changed: what it pointed at before."""
    typed: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    max_kept: int = retention.MAX_KEPT
    min_last: int = averages.MIN_LAST
    max_last: int = averages.MAX_LAST


@router.get("")
def show_runs(request: Request, session: ReadSession, _admin: auth.Admin) -> HTMLResponse:
    """Every run with what its checkpoints take, its names and its rule."""
    ready = select(Checkpoint.run_id, func.count(), func.sum(Checkpoint.size_bytes)).where(Checkpoint.state == READY)
    sizes = {run_id: (number, size) for run_id, number, size in session.execute(ready.group_by(Checkpoint.run_id))}
    names: dict[int, list[str]] = {}
    for run_id, name in session.execute(select(Alias.run_id, Alias.name).order_by(Alias.name)):
        names.setdefault(run_id, []).append(name)
    rules = {rule.run_id: rule for rule in session.scalars(select(RetentionRule))}
    found = [
        Kept(run, *sizes.get(run.id, (0, 0)), names.get(run.id, []), rules.get(run.id))
        for run in runs.list_runs(session)
    ]
    return render.page(request, "admin/care.html", CarePage(found))


@router.get("/{run}")
def show_run(
    request: Request,
    session: ReadSession,
    _admin: auth.Admin,
    run: RunInPath,
    done: str = "",
    name: str = "",
    before: str = "",
    keep_newest: Annotated[int | None, Query(ge=0, le=retention.MAX_KEPT)] = None,
    keep_best: Annotated[int, Query(ge=0, le=retention.MAX_KEPT)] = 0,
    keep_milestones: bool = False,
    is_scheduled: bool = False,
) -> HTMLResponse:
    """The names and the rule of a run, and what it would do; with numbers in the address another rule is tried."""
    tried = None if keep_newest is None else Rule(keep_newest, keep_best, keep_milestones, is_scheduled)
    return _page(request, session, run, tried=tried, done=done, undo={"name": name, "before": before} if name else {})


@router.post("/{run}/names")
def set_name(
    request: Request,
    admin: auth.Admin,
    run: str,
    name: Annotated[str, Form(max_length=200)] = "",
    checkpoint: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Let a name point at a checkpoint of the run."""
    name, checkpoint = name.strip(), checkpoint.strip()
    try:
        with db.transaction() as session:
            owner = runs.get_run(session, run)
            label = checkpoint if "@" in checkpoint else f"{run}@{checkpoint}"
            before = aliases.set_alias(session, owner, name, checkpoints.by_label(session, label), admin)
    except RegistryError as error:
        return _refused(request, run, error, {"name": name, "checkpoint": checkpoint})
    return _back(run, done="named", name=name, before=before.label if before is not None else "")


@router.post("/{run}/names/remove")
def remove_name(
    request: Request, admin: auth.Admin, run: str, name: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """Take a name away."""
    try:
        with db.transaction() as session:
            before = aliases.remove_alias(session, runs.get_run(session, run), name, admin)
    except RegistryError as error:
        return _refused(request, run, error, {})
    return _back(run, done="unnamed", name=name, before=before.label)


@router.post("/{run}/averages")
def ask_average(
    request: Request,
    admin: auth.Admin,
    run: str,
    last: Annotated[int, Form(ge=0, le=MAX_STEP)] = 5,
    until: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Ask for the mean of the last checkpoints."""
    typed = {"last": str(last), "until": until}
    try:
        with db.transaction() as session:
            owner = runs.get_run(session, run)
            job = averages.plan(session, owner, last=last, until=_step(until), user=admin)
    except RegistryError as error:
        return _refused(request, run, error, typed)
    return _back(run, done="average", name=f"{run}@{job.args['until']}-{averages.kind_of(last)}")


@router.post("/{run}/rule")
def save_rule(
    request: Request,
    admin: auth.Admin,
    run: str,
    keep_newest: Number = NEWEST,
    keep_best: Number = BEST,
    keep_milestones: Annotated[bool, Form()] = False,
    is_scheduled: Annotated[bool, Form()] = False,
) -> Response:
    """Give the run a rule; nothing is deleted by that alone."""
    try:
        with db.transaction() as session:
            retention.set_rule(
                session,
                runs.get_run(session, run),
                keep_newest=keep_newest,
                keep_best=keep_best,
                keep_milestones=keep_milestones,
                is_scheduled=is_scheduled,
                user=admin,
            )
    except RegistryError as error:
        return _refused(request, run, error, {})
    return _back(run, done="saved")


@router.post("/{run}/rule/try")
def try_rule(
    _admin: auth.Admin,
    run: str,
    keep_newest: Number = NEWEST,
    keep_best: Number = BEST,
    keep_milestones: Annotated[bool, Form()] = False,
    is_scheduled: Annotated[bool, Form()] = False,
) -> Response:
    """Show what a rule would do, at an address that can be kept; a form by GET would put its CSRF token there."""
    numbers = {"keep_newest": keep_newest, "keep_best": keep_best}
    ticks = {"keep_milestones": keep_milestones, "is_scheduled": is_scheduled}
    query = urlencode(numbers | {name: "true" for name, ticked in ticks.items() if ticked})
    return RedirectResponse(f"/admin/care/{run}?{query}#dry-run", 303)


@router.post("/{run}/rule/remove")
def remove_rule(admin: auth.Admin, run: str) -> Response:
    """Everything of the run stays."""
    with db.transaction() as session:
        retention.remove_rule(session, runs.get_run(session, run), admin)
    return _back(run, done="removed")


@router.post("/{run}/apply")
def apply_rule(
    request: Request, admin: auth.Admin, run: str, only: Annotated[str, Form(max_length=200_000)] = ""
) -> Response:
    """Ask for the rule to be applied to those checkpoints that the dry run showed, and to no others."""
    shown = [int(one) for one in only.split(",") if one.isascii() and one.isdecimal() and len(one) < 10]
    try:
        with db.transaction() as session:
            retention.plan(session, runs.get_run(session, run), only=shown, user=admin)
    except RegistryError as error:
        return _refused(request, run, error, {})
    return _back(run, done="asked")


def _step(text: str) -> int | None:
    """The step that a field names; None where it is empty.

    Raises:
        Invalid: it is no step.
    """
    text = text.strip().replace(",", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Invalid("'%(text)s' is no step: give a whole number.", text=text)
    return int(text)


def _page(
    request: Request,
    session: Session,
    run: Run,
    *,
    tried: Rule | None = None,
    done: str = "",
    undo: Mapping[str, str] | None = None,
    typed: Mapping[str, str] | None = None,
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    saved = retention.get_rule(session, run)
    rule = tried or _rule_of(saved)
    trial = None
    if tried is not None or saved is not None:
        trial = keeping.trial_of(retention.dry_run(session, run, RetentionRule(run_id=run.id, **vars(rule))))
    names = aliases.list_aliases(session, run)
    query = select(Job).where(Job.kind.in_(("retention", "average"))).order_by(Job.id.desc()).limit(100)
    own = [job for job in session.scalars(query) if run.name in (job.args.get("run"), _run_of(job))]
    context = RunCarePage(
        run=run,
        names=names,
        hrefs={one.checkpoint.id: growth.checkpoint_href(one.checkpoint) for one in names},
        steps=[one.label.partition("@")[2] for one in checkpoints.list_checkpoints(session, run)][::-1],
        saved=saved,
        rule=rule,
        is_tried=tried is not None and (saved is None or tried != _rule_of(saved)),
        trial=trial,
        jobs=own[:MAX_JOBS],
        done=done,
        undo=undo or {},
        typed=typed or {},
        error=error,
    )
    return render.page(request, "admin/care_run.html", context, status_code=status)


def _run_of(job: Job) -> str:
    return job.checkpoint.run.name if job.checkpoint is not None else ""


def _rule_of(saved: RetentionRule | None) -> Rule:
    if saved is None:
        return Rule(NEWEST, BEST, keep_milestones=True, is_scheduled=False)
    return Rule(saved.keep_newest, saved.keep_best, saved.keep_milestones, saved.is_scheduled)


def _refused(request: Request, run: str, error: RegistryError, typed: Mapping[str, str]) -> Response:
    with db.read_session() as session:
        owner = runs.get_run(session, run)
        return _page(request, session, owner, typed=typed, error=error_text(error), status=422)


def _back(run: str, **told: str) -> Response:
    return RedirectResponse(f"/admin/care/{run}?{urlencode({key: value for key, value in told.items() if value})}", 303)
