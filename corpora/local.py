"""Benchmarks whose items may not be shipped and are in no package: folders that the site's owner has.

`GROW_BENCHMARKS_DIR` names the folder that holds `ceval`, `cmmlu`, `clue` and `gaokao`; `docs/benchmarks.md` shows
the files in each.
"""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

VARIABLE = "GROW_BENCHMARKS_DIR"


def find_benchmark(name: str) -> Path:
    """The folder of a benchmark.

    Raises:
        FileNotFoundError: with what to set, or which folder is missing.
    """
    given = os.environ.get(VARIABLE, "")
    if not given:
        raise FileNotFoundError(f"{VARIABLE} is not set: it names the folder that holds '{name}'.")
    folder = (Path(unquote(urlsplit(given).path)) if given.startswith("file://") else Path(given)) / name
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{name}' in {VARIABLE}.")
    return folder
