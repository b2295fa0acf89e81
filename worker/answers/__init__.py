"""A question-answering API for one checkpoint, without a database: `python -m worker.answers`; see deploy/."""
