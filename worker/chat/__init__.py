"""Talking to one model at home: `python -m worker.chat`, which `grow chat` becomes."""
