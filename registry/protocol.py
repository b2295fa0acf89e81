"""What makes two evaluations comparable: the protocol, and its key.

Points of one task and one key form one line of the chart; another key begins another line.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SCORING_REVISION = 1
"""Raise when a change of our own code moves scores: the git revision is recorded beside it, but a line
that began anew with each commit would show nothing."""

IDENTITY = (
    "task_version",
    "template",
    "num_fewshot",
    "items",
    "engine",
    "engine_version",
    "dtype",
    "lm_eval",
    "tokenizer",
    "context_length",
    "begin_token",
    "chat_template",
    "scoring_revision",
    "source",
)
"""The fields that numbers depend on. The rest of a protocol is for the reader: `revision`, `imported` …"""


def protocol_key(protocol: Mapping[str, Any]) -> str:
    """16 hexadecimal digits over the fields of `IDENTITY`."""
    identity = {name: protocol[name] for name in IDENTITY if name in protocol}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields of the identity in which two protocols differ, for the sentence on the page."""
    return [name for name in IDENTITY if one.get(name) != other.get(name)]
