"""The `grow` command."""

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from grow import backup as backups
from grow import doctor as checks
from grow import evaluate as evaluations_by_hand
from grow import services
from grow.folders import Place
from grow.prepare import migrate as migrate_database
from grow.prepare import new_password, prepare
from grow.progress import Progress
from grow.push import check_names, push_folder
from grow.remote import push_remote, read_site
from grow.supervise import Supervisor, running_supervisor
from grow.watch import SETTLE_SECONDS, Push, Watcher
from registry import accounts, averages, events, imports, joblog, runs
from registry.db import transaction
from registry.errors import RegistryError
from registry.settings import Settings, get_settings

SiteOption = Annotated[str, typer.Option(help="Address of a site on another machine; without it, this GROW_HOME.")]
TokenFileOption = Annotated[
    Path | None, typer.Option(help="File with an API key of that site, scope push; else HF_TOKEN is taken.")
]
TokenizerOption = Annotated[
    Path | None, typer.Option(help="Folder whose tokenizer is taken where the checkpoint brings none.")
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A model-growth observatory: train a language model in the open and let everybody watch it grow.",
)
admin = typer.Typer(no_args_is_help=True, help="Accounts.")
app.add_typer(admin, name="admin")
console = Console()

STOP_SECONDS = 90

DEMO_PANEL = "starter_bpb_*,starter_pairs_*,starter_skills_*,starter_probes,maths_arithmetic_panel"
"""What moves within the first million tokens (suites/*/README.md)."""


@app.command()
def demo(
    config: Annotated[str, typer.Option(help="Training configuration.")] = "demo",
    run: Annotated[str, typer.Option(help="Name of the run; the same name goes on where it stopped.")] = "demo",
    steps: Annotated[int | None, typer.Option(help="Stop after this step.")] = None,
) -> None:
    """Train a small model on this machine, test every checkpoint, and show it all on the site."""
    # On a small machine everything would take longer than the training: every checkpoint gets what a small model
    # learns first, every eighth all else, as far as three minutes of engine time go.
    os.environ.setdefault("GROW_PANEL", DEMO_PANEL)
    os.environ.setdefault("GROW_MILESTONE_EVERY", "8")
    os.environ.setdefault("GROW_EVALUATION_BUDGET_SECONDS", "180")
    get_settings.cache_clear()
    _run_services([services.trainer(config, run, steps)])


@app.command()
def up() -> None:
    """Start the site and its worker; Ctrl-C or `grow down` stops them."""
    _run_services([])


def _run_services(more: list[services.Service]) -> None:
    settings = get_settings()
    if (pid := running_supervisor(settings)) is not None:
        _fail(f"Another grow command (process {pid}) runs with this GROW_HOME. Stop it with: grow down")
    if checks.port_taken(settings.host, settings.port):
        _fail(
            f"Port {settings.port} is in use. Choose another one, for example: GROW_PORT={settings.port + 1} make demo"
        )
    password = prepare(settings)
    broker = [] if settings.redis_url else [services.embedded_broker(settings)]
    address = f"http://{'127.0.0.1' if settings.host == '0.0.0.0' else settings.host}:{settings.port}"
    _greet(settings, address, password)
    progress = Progress(console, address)
    progress.say("engine", checks.engine_sentence(settings))
    with Supervisor(settings, [*broker, services.web_server(), services.worker(), *more], progress.say) as supervisor:
        supervisor.run(progress.poll)
    console.print("Stopped. All data is kept; the same command goes on from here.")


def _greet(settings: Settings, address: str, password: str | None) -> None:
    console.print(f"\n[bold]{settings.site_name}[/bold]  {address}", highlight=False)
    if password is not None:
        console.print(f"Log in as [bold]admin[/bold] with [bold]{password}[/bold]  (shown only now)", highlight=False)
    console.print(f"Data: {settings.home}   Logs: {settings.home / 'logs'}   Stop: Ctrl-C\n", highlight=False)


@app.command()
def down() -> None:
    """Stop what `grow up` or `grow demo` started with this GROW_HOME."""
    settings = get_settings()
    pid = running_supervisor(settings)
    if pid is None:
        console.print("Nothing runs with this GROW_HOME.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_supervisor(settings) is not None:
        if time.monotonic() > deadline:
            _fail(f"Process {pid} has not stopped within {STOP_SECONDS} s; see {settings.home / 'logs'}.")
        time.sleep(0.2)
    console.print("Stopped.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context) -> None:
    """Run training alone; options as in `python -m training --help`."""
    _become([sys.executable, "-m", "training", *context.args])


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def worker(context: typer.Context) -> None:
    """Run one worker alone; options as in `python -m worker --help`."""
    _become([sys.executable, "-m", "worker", *context.args])


@app.command("worker-alive", hidden=True)
def worker_alive() -> None:
    """For health checks: fails unless a worker of this host gave a sign of life in the last half minute."""
    here = socket.gethostname()
    if not any(name.split(":")[0] == here for name in events.live_workers() or {}):
        _fail(f"No worker of {here} has been heard from lately.")


@app.command()
def chat(
    target: Annotated[str, typer.Argument(help="RUN@STEP, or a folder with a config.json.")],
    terminal: Annotated[bool, typer.Option("--terminal", help="Here instead of on a page in a browser.")] = False,
    site: Annotated[str, typer.Option(help="Let a site compute; GROW_KEY holds a key of it.")] = "",
    engine: Annotated[str, typer.Option(help="auto, transformers or vllm.")] = "auto",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the page.")] = 7860,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Talk to one model: on a local page, or with --terminal here."""
    options = ["--engine", engine, "--port", str(port)]
    options += ["--terminal"] if terminal else []
    options += ["--site", site] if site else []
    options += [] if browser else ["--no-browser"]
    _become([sys.executable, "-m", "worker.chat", *options, "--", target])


@app.command()
def server() -> None:
    """Run the web server alone."""
    _become([sys.executable, "-m", "server"])


@app.command()
def migrate() -> None:
    """Bring the database to the newest tables, and the tasks in line with suites/."""
    prepare_without_admin()
    console.print("The database is up to date.")


def prepare_without_admin() -> None:
    """Tables and tasks only: a deployment makes its administrator by hand."""
    from registry import suites  # noqa: PLC0415 - keeps `grow --help` quick

    get_settings().home.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrate_database()
    with transaction() as session:
        suites.sync(session)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder: config.json, *.safetensors, tokenizer.")],
    run: Annotated[str, typer.Option(help="Run that the checkpoint belongs to; made if it is new.")],
    step: Annotated[int, typer.Option(min=0, help="Training step.")],
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens seen until this step.")] = None,
    kind: Annotated[str, typer.Option(help="pretrained or chat.")] = "pretrained",
    tokenizer: TokenizerOption = None,
    site: SiteOption = "",
    token_file: TokenFileOption = None,
) -> None:
    """Add a checkpoint from a folder of this machine; it is verified and tested like any other."""
    try:
        send = _pusher(site, token_file, run=run, kind=kind, tokenizer=tokenizer)
        label = send(folder, Place(step, tokens))
    except RegistryError as error:
        _fail(str(error))
    console.print(f"{label} is registered; a worker verifies it now.", highlight=False)


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="Where a trainer writes folders such as checkpoint-500.")],
    run: Annotated[str, typer.Option(help="Run that the checkpoints belong to; made if it is new.")],
    kind: Annotated[str, typer.Option(help="pretrained or chat.")] = "pretrained",
    tokenizer: TokenizerOption = None,
    site: SiteOption = "",
    token_file: TokenFileOption = None,
    settle: Annotated[
        float, typer.Option(min=0.0, help="A folder is done when it has not changed for so many seconds.")
    ] = SETTLE_SECONDS,
    every: Annotated[float, typer.Option(min=0.1, help="Look so often, in seconds.")] = 2.0,
    once: Annotated[bool, typer.Option(help="Push what is there, then end.")] = False,
) -> None:
    """Push every checkpoint that a trainer writes, as soon as it is whole; a restart pushes nothing twice."""
    try:
        if not folder.is_dir():
            _fail(f"{folder} is not a folder.")
        send = _pusher(site, token_file, run=run, kind=kind, tokenizer=tokenizer)
        watcher = Watcher(
            folder, send, lambda sentence: console.print(sentence, highlight=False), settle_seconds=settle
        )
        watcher.poll()
        while not once:
            time.sleep(every)
            watcher.poll()
        time.sleep(settle)
        watcher.poll()
    except RegistryError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from here.")


def _pusher(site: str, token_file: Path | None, *, run: str, kind: str, tokenizer: Path | None) -> Push:
    """What sends a folder: to another machine where a site is given, else into this GROW_HOME."""
    check_names(run, kind)
    where = read_site(site, token_file, os.environ.get("HF_TOKEN", "")) if site else None

    def send(folder: Path, place: Place) -> str:
        facts: dict[str, Any] = {"step": place.step, "tokens_seen": place.tokens_seen, "tokenizer": tokenizer}
        if where is None:
            return push_folder(folder, run=run, kind=kind, **facts)
        return push_remote(folder, where, run=run, kind=kind, **facts)

    return send


@app.command("import-hub")
def import_hub(
    repo: Annotated[str, typer.Argument(help="A model repository, for example EleutherAI/pythia-70m.")],
    run: Annotated[str, typer.Option(help="Run for the checkpoints; by default the repository's name.")] = "",
    endpoint: Annotated[str, typer.Option(help="Another site than the Hugging Face Hub.")] = "",
    revisions: Annotated[str, typer.Option(help="Only the revisions that match, for example 'step1*000'.")] = "*",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be imported, and end.")] = False,
) -> None:
    """Bring in a repository whose revisions are checkpoints; a worker downloads, verifies and tests them."""
    from registry import hubimport  # noqa: PLC0415 - keeps `grow --help` quick

    try:
        wanted = hubimport.Wanted.make(repo, endpoint=endpoint, pattern=revisions, run=run)
        listed = hubimport.list_revisions(wanted)
        for one in listed.chosen:
            tokens = f"{one.tokens_seen:,} tokens" if one.tokens_seen is not None else ""
            console.print(f"{one.revision:<44} {one.run}@{one.step:<12} {tokens}", highlight=False, soft_wrap=True)
        if listed.left_out:
            console.print(f"Left out: {hubimport.in_words(listed.left_out)}", highlight=False, soft_wrap=True)
        if dry_run:
            console.print(f"{len(listed.chosen)} revisions would be imported.")
            return
        with transaction() as session:
            job_id = joblog.plan(session, joblog.IMPORT_HUB, args=wanted.as_args()).id
    except RegistryError as error:
        _fail(str(error))
    console.print(f"{len(listed.chosen)} revisions are queued as job {job_id}; a worker imports them now.")


@app.command()
def evaluate(
    target: Annotated[str, typer.Argument(help="RUN for all its checkpoints, or RUN@STEP.")],
    suite: Annotated[list[str] | None, typer.Option(help="A suite, for example english; may be repeated.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of suites/ or of the lm-eval library; may be repeated.")
    ] = None,
    again: Annotated[bool, typer.Option(help="Also what was run before: a new protocol gives a new line.")] = False,
) -> None:
    """Queue evaluations; a worker runs them coarse to fine, whatever the budget says."""
    try:
        number = evaluations_by_hand.plan(target, suite_names=suite or [], task_names=task or [], again=again)
    except RegistryError as error:
        _fail(str(error))
    console.print(f"{number} evaluations are queued.")


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="lm-eval's result and sample files, or folders of them.")],
    run: Annotated[str, typer.Option(help="Run whose curves they belong to; made if it is new.")],
    step: Annotated[int, typer.Option(min=0, help="Training step that was measured.")],
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens seen until this step.")] = None,
    kind: Annotated[str, typer.Option(help="pretrained or chat.")] = "pretrained",
) -> None:
    """Put results that lm-eval measured elsewhere on the curves, marked as imported; see docs/importing.md."""
    try:
        with transaction() as session:
            runs.find_or_create(session, run)
            found = imports.import_results(session, paths, run=run, step=step, tokens=tokens, kind=kind)
            label, number = found.checkpoint.label, len(found.evaluations)
    except RegistryError as error:
        _fail(str(error))
    known = f"; {len(found.known)} were here already" if found.known else ""
    console.print(f"{number} results of {label} are on the curves{known}.", highlight=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def rescore(context: typer.Context) -> None:
    """Derive results again from the stored answers, without an engine; options: --run, --task."""
    _become([sys.executable, "-m", "worker.rescore", *context.args])


@app.command()
def average(
    run: Annotated[str, typer.Argument(help="The run whose checkpoints are averaged.")],
    last: Annotated[int, typer.Option(min=2, help="How many: the last so many.")] = 5,
    until: Annotated[
        int | None, typer.Option(min=0, help="The last of them; the newest where it is not given.")
    ] = None,
) -> None:
    """Make the mean of the last checkpoints of a run; it is verified and tested like any other."""
    try:
        with transaction() as session:
            job = averages.plan(session, runs.get_run(session, run), last=last, until=until)
            label = f"{run}@{job.args['until']}-{averages.kind_of(last)}"
    except RegistryError as error:
        _fail(str(error))
    console.print(f"{label} is asked for; a worker makes it now.", highlight=False)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A folder of backups, best on another disk; made if it is new.")],
    keep: Annotated[int, typer.Option(min=0, help="Delete all but the newest so many afterwards; 0 keeps all.")] = 0,
    training: Annotated[bool, typer.Option(help="Also the states from which training goes on.")] = False,
    corpus: Annotated[bool, typer.Option(help="Also the text that is trained on.")] = False,
    secret: Annotated[bool, typer.Option(help="Also the key that signs forms and votes.")] = True,
    link: Annotated[
        bool, typer.Option("--link", help="Link files that are on the same disk instead of copying.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Make none: read the newest one and say if it is whole.")
    ] = False,
) -> None:
    """Back up the database, checkpoints and answers while the site runs; what is there already is not copied again."""
    try:
        if check:
            is_whole = backups.check(folder, _say)
        else:
            is_whole = backups.make(
                folder, keep=keep, training=training, corpus=corpus, secret=secret, link=link, say=_say
            )
    except (RegistryError, OSError) as error:
        _fail(str(error))
    raise typer.Exit(0 if is_whole else 1)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A folder of backups, for its newest, or one backup in it.")],
    into: Annotated[Path | None, typer.Option(help="Data folder to restore into, instead of GROW_HOME.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where there is a site: it is put aside.")] = False,
) -> None:
    """Make this site what it was when a backup was made; into SQLite or PostgreSQL, whichever it came from."""
    try:
        backups.bring_back(source, into=into, force=force, say=_say)
    except (RegistryError, OSError) as error:
        _fail(str(error))


@app.command()
def doctor() -> None:
    """Say what works on this machine and what to do about the rest."""
    results = checks.run_checks(get_settings())
    for result in results:
        console.print(
            f"{'[green]ok  [/green]' if result.good else '[red]FAIL[/red]'}  {result.sentence}", highlight=False
        )
    raise typer.Exit(0 if all(result.good for result in results) else 1)


@admin.command("create-user")
def create_user(
    name: Annotated[str, typer.Argument(help="Name to log in with.")],
    administrator: Annotated[
        bool, typer.Option("--admin/--member", help="May upload checkpoints and write news.")
    ] = True,
    password_file: Annotated[
        Path | None, typer.Option(help="Read the password from a file; - is standard input.")
    ] = None,
) -> None:
    """Make an account; without --password-file a password is generated and shown once."""
    if password_file is None:
        password = new_password()
    else:
        text = sys.stdin.read() if str(password_file) == "-" else password_file.read_text()
        password = text.rstrip("\n")
    try:
        with transaction() as session:
            make = accounts.create_admin if administrator else accounts.register
            user = make(session, name, password)
            made = user.name
    except RegistryError as error:
        _fail(str(error))
    console.print(
        f"{made} may log in" + (f" with {password}  (shown only now)" if password_file is None else "."),
        highlight=False,
    )


def _become(command: list[str]) -> None:
    os.execv(shutil.which(command[0]) or command[0], command)


def _say(sentence: str) -> None:
    console.print(sentence, highlight=False)


def _fail(sentence: str) -> None:
    console.print(f"[red]{sentence}[/red]", highlight=False)
    raise typer.Exit(1)
