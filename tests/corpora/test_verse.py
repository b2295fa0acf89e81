"""Held-out poems, and which of their clauses were read in training after all."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json
from corpora.sources import SOURCES
from corpora.split import is_held_out
from corpora.verse import FORMS, held_out_poems, is_unseen
held_out = {document.key for document in SOURCES["poetry"].documents() if is_held_out(document)}
poems = [poem for form in FORMS for poem in held_out_poems(form)]
assert {poem.key for poem in poems} == held_out
print(json.dumps([[*poem, is_unseen(poem.lines[0]), is_unseen(poem.lines[1])] for poem in poems]))
"""


def test_a_clause_that_a_training_poem_holds_too_is_not_unseen(tmp_path: Path) -> None:
    """In a process of its own: the held-out poems are read once a process."""
    shared = "同一句话人人都说过，天地玄黄。"
    poems = [
        {
            "rhythmic": "浣溪沙",
            "author": "某人",
            "paragraphs": [shared, f"{chr(0x4E00 + at) * 20}，{chr(0x5E00 + at) * 20}。"],
        }
        for at in range(100)
    ]
    folder = tmp_path / "dist" / "songci"
    folder.mkdir(parents=True)
    (folder / "ci.song.0.json").write_text(json.dumps(poems))
    environment = {"GROW_POETRY_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(shown.stdout)
    assert 1 <= len(found) <= 15
    for _, title, author, lines, shared_is_unseen, own_is_unseen in found:
        assert (title, author, lines[0]) == ("浣溪沙", "某人", shared)
        assert (shared_is_unseen, own_is_unseen) == (False, True)
