"""What follows when a checkpoint is ready: its card may name what it was fine-tuned from, its place ask for a mean."""

from pathlib import Path
from typing import Any

import structlog
import yaml
from huggingface_hub.repocard import metadata_load
from sqlalchemy.orm import Session

from registry import averages, lineage
from registry.models import Checkpoint

CARD = "README.md"
MAX_CARD_BYTES = 2**20
MAX_BASES = 8

log = structlog.get_logger(__name__)


def follow_up(session: Session, checkpoint: Checkpoint, folder: Path) -> None:
    """Link a checkpoint that has just become ready with its bases, and ask for the average of a milestone."""
    lineage.note_base_of_card(session, checkpoint, read_bases(folder))
    averages.plan_for_milestone(session, checkpoint)


def read_bases(folder: Path) -> list[str]:
    """The `base_model` entries of a card, as Hugging Face writes them; none where it cannot be read."""
    card = folder / CARD
    if not card.is_file() or card.stat().st_size > MAX_CARD_BYTES:
        return []
    try:
        found: Any = (metadata_load(card) or {}).get("base_model")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        log.warning("The head of a card cannot be read.", folder=folder.name, error=str(error)[:200])
        return []
    names = found if isinstance(found, list) else [found]
    return [name for name in names if isinstance(name, str)][:MAX_BASES]
