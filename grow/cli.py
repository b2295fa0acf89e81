"""The `grow` command."""

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from grow import doctor as checks
from grow import services
from grow.prepare import migrate as migrate_database
from grow.prepare import new_password, prepare
from grow.push import push_folder
from grow.supervise import Supervisor, running_supervisor
from grow.watch import Progress
from registry import accounts, events
from registry.db import transaction
from registry.errors import RegistryError
from registry.settings import Settings, get_settings

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


@app.command()
def demo(
    config: Annotated[str, typer.Option(help="Training configuration.")] = "demo",
    run: Annotated[str, typer.Option(help="Name of the run; the same name goes on where it stopped.")] = "demo",
    steps: Annotated[int | None, typer.Option(help="Stop after this step.")] = None,
) -> None:
    """Train a small model on this machine, test every checkpoint, and show it all on the site."""
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
) -> None:
    """Add a checkpoint from a folder of this machine; it is verified and tested like any other."""
    try:
        label = push_folder(folder, run=run, step=step, tokens_seen=tokens, kind=kind)
    except RegistryError as error:
        _fail(str(error))
    console.print(f"{label} is registered; a worker verifies it now.", highlight=False)


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


def _fail(sentence: str) -> None:
    console.print(f"[red]{sentence}[/red]", highlight=False)
    raise typer.Exit(1)
