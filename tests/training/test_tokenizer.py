"""The byte-level tokenizer."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from training.tokenizer import BEGIN, END, PAD, save_tokenizer, train_tokenizer

TEXTS = [
    "中华人民共和国民法典 第一条 为了保护民事主体的合法权益。" * 20,
    "def add(a, b):\n    return a + b\n" * 20,
    "To be, or not",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 400)


@pytest.mark.parametrize(
    "text",
    [
        "中华人民共和国",
        "龘靐齉爩 𠀀𪚥 𰻝",  # rare characters, and some outside the basic plane
        "emoji 👩‍👩‍👧‍👦 🇨🇳 ✊🏽",
        "tabs\tand\r\nline ends\x00\x07\x7f",
        "e\u0301 é \u200b\u202e mixed العربية עברית",
        "  spaces   in   rows  ",
        "1234567890 3.14",
        "",
    ],
)
def test_any_text_goes_there_and_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_every_byte_is_a_token(tokenizer: Tokenizer) -> None:
    text = "".join(chr(number) for number in range(0x80, 0x800))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_it_learns_what_is_frequent(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("中华人民共和国", add_special_tokens=False).ids) < 7


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("2026", add_special_tokens=False).ids) == 4


def test_transformers_loads_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path, context_length=64)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (BEGIN, END, PAD)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 1, 2)
    ids = loaded("第一条 🎋").input_ids
    assert ids[0] == loaded.bos_token_id
    assert loaded.decode(ids, skip_special_tokens=True) == "第一条 🎋"
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
