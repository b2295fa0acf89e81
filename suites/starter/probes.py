"""Eight beginnings of texts that every checkpoint goes on with, word by word greedily: what the time-lapse shows."""

from typing import Any

from datasets import Dataset

PROMPTS = (
    "中华人民共和国教育法 第一章 总则\n第一条 为了",
    "国家鼓励和支持",
    "人民法院审理案件，应当",
    "To be, or not to be",
    "KING.\nMy lord, I come to ask",
    "Once upon a time there was a little",
    'def add(a, b):\n    """Return the sum of a and b."""\n',
    "import os\n\nclass ",
)


def prompts(**_metadata: Any) -> dict[str, Dataset]:
    """The prompts as items."""
    return {"test": Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])}
