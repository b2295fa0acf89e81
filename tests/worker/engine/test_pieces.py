"""The texts of tokens add up to the text of all of them."""

import pytest

from worker.engine.pieces import token_texts
from worker.engine.tokenizer import load_tokenizer

TEXTS = ("To be, or not to be", "春眠不觉晓，处处闻啼鸟", "a 😀 b", "  two  spaces\n\nand lines", "\u202ecafé ñ")


@pytest.mark.parametrize("text", TEXTS)
def test_they_add_up(make_checkpoint, text):
    tokenizer = load_tokenizer(make_checkpoint("tied-a", seed=1))
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    texts = token_texts(tokenizer, token_ids)
    assert len(texts) == len(token_ids)
    assert "".join(texts) == tokenizer.decode(token_ids)


def test_half_a_character_at_the_end_is_told_as_such(make_checkpoint):
    tokenizer = load_tokenizer(make_checkpoint("tied-a", seed=1))
    token_ids = tokenizer.encode("不", add_special_tokens=False)
    assert len(token_ids) > 1
    assert token_texts(tokenizer, token_ids[:-1])[-1].startswith("\ufffd")
    assert token_texts(tokenizer, []) == []
