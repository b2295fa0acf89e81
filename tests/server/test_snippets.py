"""The programs of a model page: each is taken from the page of a tiny model, and run against a real server."""

import ast
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from registry import checkpoints, db, intake
from registry.models import Checkpoint
from server import cards, snippets
from server.snippets import PYTHON, SHELL, Repo, Snippet
from tests.browser.talker import TEMPLATE
from tests.browser.tiny import write_folder
from tests.conftest import ROOT
from tests.server.live import serve

SITE = "https://grow.example"
BASE = Repo(
    SITE, "demo", "step-8", is_chat=False, label="demo@8", files=[("a b's.json", "0" * 64)], four_bit="step-8-4bit"
)
CHAT = Repo(SITE, "demo", "step-8-chat", is_chat=True, label="demo@8-chat", four_bit="step-8-chat-4bit")
EVERY = [(repo.label, one) for repo in (BASE, CHAT) for one in snippets.snippets(repo)]
IDS = [f"{label}-{one.id}" for label, one in EVERY]


@pytest.mark.parametrize("one", [one for _, one in EVERY], ids=IDS)
def test_every_program_is_whole(one: Snippet) -> None:
    if one.language == PYTHON:
        tree = ast.parse(one.text)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        assert names
        lint = [sys.executable, "-m", "ruff", "check", "--select", "F,E9", "--isolated", "-"]
        done = subprocess.run(lint, input=one.text, capture_output=True, text=True)
    else:
        assert one.language == SHELL
        done = subprocess.run(["bash", "-n"], input=one.text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step-8" in one.text or "demo@8" in one.text


@pytest.mark.parametrize("address", ['http://a"b', "http://a b", "javascript:alert(1)", "http://a$(x)", "http://a'"])
def test_an_address_that_could_do_something_stands_in_no_program(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Repo(address, "demo", "step-8", is_chat=False, label="demo@8")


def admit(folder: Path, kind: str) -> Checkpoint:
    made = intake.admit(folder, run="tiny", step=8, tokens_seen=10, kind=kind)
    with db.transaction() as session:
        checkpoint = checkpoints.get_by_id(session, made.id)
        checkpoints.mark_ready(session, checkpoint, 20_000)
        session.info.pop("deferred_jobs", None)
    return made


@pytest.fixture
def site(database: Path, redis_url: str) -> Iterator[str]:
    """A real server with a tiny base model and a tiny chat model."""
    uploads = database / "uploads"
    base = write_folder(uploads / "base")
    config = base / "config.json"
    one_head = {
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }  # vLLM on processors has no kernel for narrower ones
    config.write_text(json.dumps({**json.loads(config.read_text()), **one_head}))
    admit(base, "pretrained")
    folder = write_folder(uploads / "chat", seed=2)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    admit(folder, "chat")
    with serve() as address:
        yield address


def from_page(site: str, revision: str) -> dict[str, str]:
    """The programs as a reader copies them."""
    page = httpx.get(f"{site}/models/tiny/{revision}", headers={"accept": "text/html"}).text
    found = re.findall(r'<code id="snippet-([a-z-]+)">(.*?)</code>', page, re.DOTALL)
    return {name: html.unescape(text) for name, text in found}


def run(command: list[str], text: str, folder: Path, seconds: float = 240) -> str:
    """What a program prints, in an environment without anything of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GROW_", "HF_", "TRANSFORMERS_"))}
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    done = subprocess.run(
        command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


TALK = """
SAID = [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]
gr.ChatInterface.launch = lambda self: print(len(list(self.fn("To be", SAID))), "pieces")
"""
"""Instead of serving until somebody comes, the program's own function is asked once."""


def test_programs_from_the_page_load_the_model_and_answer(site: str, tmp_path: Path) -> None:
    base, chat = from_page(site, "step-8"), from_page(site, "step-8-chat")
    assert run([sys.executable, "-"], base["transformers"], tmp_path).startswith("Once upon a time")
    # One process for both: importing torch and gradio is most of the time.
    gradio = chat["gradio"].replace("gr.ChatInterface(", f"{TALK}gr.ChatInterface(")
    said = run([sys.executable, "-"], f"{gradio}\n{chat['transformers']}", tmp_path)
    assert re.search(r"^\d+ pieces$", said, re.MULTILINE)
    assert "user: Who are you?" in said
    checked = run(["bash", "-e"], base["curl"], tmp_path)
    assert "model.safetensors: OK" in checked
    folder = tmp_path / "tiny-step-8"
    with db.read_session() as session:
        known = checkpoints.path(checkpoints.by_label(session, "tiny@8")) / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == known.read_bytes()


def test_the_container_fetches_its_model_from_the_site(site: str, tmp_path: Path) -> None:
    program = (
        "from worker.answers.__main__ import Options, find_model\n"
        "folder, name = find_model(Options(model='tiny', revision='step-8'))\n"
        "print(name, sorted(path.name for path in folder.iterdir()))"
    )
    said = run([sys.executable, "-"], f"import os\nos.environ['HF_ENDPOINT'] = {site!r}\n{program}", tmp_path)
    assert said.startswith("tiny@step-8 ['config.json', 'model.safetensors', 'tokenizer")


@pytest.mark.engine
def test_the_vllm_program_from_the_page_answers(site: str, tmp_path: Path) -> None:
    text = from_page(site, "step-8")["vllm"].replace("LLM(", "LLM(enforce_eager=True, kv_cache_memory_bytes=67108864, ")
    program = tmp_path / "program.py"
    program.write_text(text.replace('tokenizer_revision="step-8")', 'tokenizer_revision="step-8", max_model_len=128)'))
    assert run([sys.executable, str(program)], "", tmp_path, 500).strip()


def test_the_card_of_a_page_names_the_site_that_was_asked(site: str) -> None:
    with db.read_session() as session:
        checkpoint = checkpoints.by_label(session, "tiny@8")
        assert cards.model_href(checkpoint) == "/models/tiny/step-8"
    assert site in httpx.get(f"{site}/models/tiny/step-8/README.md").text
