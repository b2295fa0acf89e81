"""Programs that take a checkpoint home: each is whole, and a test runs it.

A model is a repository of the Hugging Face Hub protocol: its run's name, and `step-…` as the revision. What stands in
the texts is safe to paste: names of runs and revisions hold no quotes, and the address is checked.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from server.i18n import N_

ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]{1,255}(?:/[A-Za-z0-9._~/-]{0,200})?")
PYTHON, SHELL = "python", "shell"
PROMPT = {"pretrained": "Once upon a time", "chat": "Who are you?"}


@dataclass(frozen=True)
class Repo:
    """Where a checkpoint is to be had."""

    address: str
    """Of the site, without a slash at its end."""
    run: str
    revision: str
    is_chat: bool
    label: str
    files: Sequence[tuple[str, str]] = ()
    """Names and sha256."""
    four_bit: str = ""
    """The revision in 4 bit; empty where there is none."""

    def __post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.address):
            raise ValueError("The site's address cannot stand in a program.")

    @property
    def prompt(self) -> str:
        """Something to say to it."""
        return PROMPT["chat" if self.is_chat else "pretrained"]


@dataclass(frozen=True)
class Snippet:
    """One program."""

    id: str
    title: str
    language: str
    text: str
    note: str = ""
    """What to install, or what to know; marked for translation."""


def snippets(repo: Repo) -> list[Snippet]:
    """All of them, in the order in which people ask for them."""
    found = [
        Snippet("transformers", "transformers", PYTHON, transformers_text(repo), "pip install transformers torch"),
        Snippet("vllm-serve", N_("vLLM, as a server"), SHELL, vllm_serve_text(repo), "pip install vllm"),
        Snippet("vllm", N_("vLLM, in a program"), PYTHON, vllm_text(repo), "pip install vllm"),
        Snippet("gradio", "gradio", PYTHON, gradio_text(repo), "pip install gradio transformers torch"),
        Snippet("grow-chat", "grow chat", SHELL, chat_text(repo)),
        Snippet("docker", "Docker", SHELL, docker_text(repo)),
        Snippet("curl", "curl", SHELL, curl_text(repo)),
    ]
    if repo.four_bit:
        old = N_("As programs of 2023 do; auto-gptq itself needs transformers 4 and a GPU.")
        found[3:3] = [
            Snippet("gptqmodel", N_("GPTQModel, 4 bit"), PYTHON, gptqmodel_text(repo), "pip install gptqmodel"),
            Snippet("auto-gptq", N_("AutoGPTQ, 4 bit"), PYTHON, auto_gptq_text(repo), old),
        ]
    return found


def transformers_text(repo: Repo) -> str:
    """Load and generate."""
    return f"""\
import os

os.environ["HF_ENDPOINT"] = "{repo.address}"  # before transformers is imported

from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo.run}", revision="{repo.revision}")
model = AutoModelForCausalLM.from_pretrained("{repo.run}", revision="{repo.revision}", dtype="auto")

{_inputs(repo)}
output = model.generate(**inputs, max_new_tokens=64, do_sample=True, temperature=0.8, top_p=0.95)
print(tokenizer.decode(output[0], skip_special_tokens=True))
"""


def _inputs(repo: Repo) -> str:
    if repo.is_chat:
        return f"""\
messages = [{{"role": "user", "content": "{repo.prompt}"}}]
text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)"""
    return f'inputs = tokenizer("{repo.prompt}", return_tensors="pt", return_token_type_ids=False)'


def vllm_serve_text(repo: Repo) -> str:
    """An OpenAI-compatible server, and a question to it."""
    body = _body(repo)
    return f"""\
HF_ENDPOINT={repo.address} vllm serve {repo.run} --revision {repo.revision} --served-model-name {repo.label}

curl http://127.0.0.1:8000/v1/{_path(repo)} \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "{repo.label}", {body}, "max_tokens": 64}}'
"""


def vllm_text(repo: Repo) -> str:
    """Many prompts at once."""
    call = (
        f'llm.chat([{{"role": "user", "content": "{repo.prompt}"}}], sampling, use_tqdm=False)'
        if repo.is_chat
        else f'llm.generate(["{repo.prompt}"], sampling, use_tqdm=False)'
    )
    return f"""\
import os

os.environ["HF_ENDPOINT"] = "{repo.address}"  # before vllm is imported

from vllm import LLM, SamplingParams

if __name__ == "__main__":
    llm = LLM(model="{repo.run}", revision="{repo.revision}", tokenizer_revision="{repo.revision}")
    sampling = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=64)
    for answer in {call}:
        print(answer.outputs[0].text)
"""


def gptqmodel_text(repo: Repo) -> str:
    """The 4-bit form by the library that went on from AutoGPTQ."""
    return f"""\
import os

os.environ["HF_ENDPOINT"] = "{repo.address}"

from gptqmodel import GPTQModel
from huggingface_hub import snapshot_download

folder = snapshot_download("{repo.run}", revision="{repo.four_bit}")
model = GPTQModel.load(folder)
inputs = model.tokenizer("{repo.prompt}", return_tensors="pt", return_token_type_ids=False).to(model.device)
print(model.tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))
"""


def auto_gptq_text(repo: Repo) -> str:
    """The historic call: the files are in AutoGPTQ's format."""
    return f"""\
import os

os.environ["HF_ENDPOINT"] = "{repo.address}"

from auto_gptq import AutoGPTQForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo.run}", revision="{repo.four_bit}")
model = AutoGPTQForCausalLM.from_quantized(
    "{repo.run}", revision="{repo.four_bit}", use_safetensors=True, device="cuda:0"
)
inputs = tokenizer("{repo.prompt}", return_tensors="pt", return_token_type_ids=False).to("cuda:0")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))
"""


def gradio_text(repo: Repo) -> str:
    """A page of one's own, with a streamed answer."""
    if repo.is_chat:
        encode = """\
    messages = [{"role": one["role"], "content": text_of(one["content"])} for one in history]
    messages.append({"role": "user", "content": message})
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)"""
        helper = '''

def text_of(content):
    """What a message says: gradio keeps it as text, or as a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
'''
    else:
        encode = '    inputs = tokenizer(message, return_tensors="pt", return_token_type_ids=False)'
        helper = ""
    return f"""\
import os
from threading import Thread

os.environ["HF_ENDPOINT"] = "{repo.address}"

import gradio as gr
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

tokenizer = AutoTokenizer.from_pretrained("{repo.run}", revision="{repo.revision}")
model = AutoModelForCausalLM.from_pretrained("{repo.run}", revision="{repo.revision}", dtype="auto")
{helper}

def answer(message, history):
{encode}
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    Thread(target=model.generate, kwargs=dict(inputs, streamer=streamer, max_new_tokens=128, do_sample=True)).start()
    text = ""
    for piece in streamer:
        text += piece
        yield text


gr.ChatInterface(answer, title="{repo.label}").launch()
"""


def chat_text(repo: Repo) -> str:
    """Our own command: a page, or the terminal."""
    return f"""\
grow chat {repo.label}
grow chat {repo.label} --terminal
grow chat {repo.label} --site {repo.address}   # {_THERE}
"""


_THERE = "computed there; GROW_KEY holds a key of that site"


def docker_text(repo: Repo) -> str:
    """The question-answering API of this one checkpoint."""
    return f"""\
docker build -f deploy/answers.Dockerfile -t grow-answers .
docker run --rm -p 8080:8080 \\
  -e HF_ENDPOINT={repo.address} -e GROW_MODEL={repo.run} -e GROW_REVISION={repo.revision} grow-answers

curl "http://127.0.0.1:8080/ask?question={repo.prompt.replace(" ", "%20")}"
"""


def curl_text(repo: Repo) -> str:
    """Every file; each goes on where it stopped, and is checked at the end."""
    names = " ".join(_quoted(name) for name, _ in repo.files)
    sums = "\n".join(f"{sha}  {name}" for name, sha in repo.files)
    return f"""\
mkdir -p {repo.run}-{repo.revision} && cd {repo.run}-{repo.revision}
for file in {names}; do
  curl --fail --location --continue-at - --create-dirs --output "$file" \\
    "{repo.address}/{repo.run}/resolve/{repo.revision}/$file"
done
sha256sum --check <<'END'
{sums}
END
"""


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "'\\''") + "'"


def _path(repo: Repo) -> str:
    return "chat/completions" if repo.is_chat else "completions"


def _body(repo: Repo) -> str:
    if repo.is_chat:
        return f'"messages": [{{"role": "user", "content": "{repo.prompt}"}}]'
    return f'"prompt": "{repo.prompt}"'
