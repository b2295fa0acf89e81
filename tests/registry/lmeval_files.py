"""Files as lm-eval writes them, by hand: a benchmark `piqa` whose items have two choices."""

import json
from pathlib import Path
from typing import Any


def write_results(folder: Path, **parts: Any) -> Path:
    path = folder / "results_2026-01-02T03-04-05.678901.json"
    path.write_text(json.dumps({"results": {"piqa": {"acc,none": 0.5, "acc_stderr,none": 0.1}}, **parts}))
    return path


def entry(number: int, **fields: Any) -> dict[str, Any]:
    """A logged item of two choices, the second of which is right and wins."""
    return {
        "doc_id": number,
        "doc": {"goal": f"Question {number}"},
        "target": "1",
        "arguments": {
            f"gen_args_{choice}": {"arg_0": f"Question {number}", "arg_1": f" choice {choice}"} for choice in range(2)
        },
        "resps": [[["-2.5", "False"]], [["-1.5", "True"]]],
        "filter": "none",
        "acc": 1.0,
        **fields,
    }


def write_log(folder: Path, *entries: Any, task: str = "piqa") -> Path:
    path = folder / f"samples_{task}_2026-01-02T03-04-05.678901.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    return path
