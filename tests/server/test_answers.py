"""A chat model's answer on a page: Markdown, code, tables, formulas; harmless and quick whatever it holds."""

import time

import pytest

from server import answers
from server.plain import one_line, visible

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "![x](http://elsewhere.example/track.png)",
    "```<script>\n<script>alert(1)</script>\n```",
    "```python\n</code></pre><script>alert(1)</script>\n```",
    r"$\text{<img src=x onerror=alert(1)>}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"\[ \text{</math><script>alert(1)</script>} \]",
    "| <svg onload=alert(1)> |\n|---|\n| <a href=javascript:alert(1)>x</a> |",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    shown = str(answers.answer(text))
    for tag in ("<script", "<img", "<svg", "<style", "<mglyph", 'href="javascript', 'href="data'):
        assert tag not in shown


def test_tables_code_and_formulas_are_drawn() -> None:
    shown = str(
        answers.answer("# One\n\n|a|b|\n|-|-|\n|1|2|\n\n```python\ndef f(): pass\n```\n\n$x^2$ and \\(y_1\\)\n\n$$z$$")
    )
    assert "<h3>One</h3>" in shown
    assert "<td>1</td>" in shown
    assert '<span class="k">def</span>' in shown
    assert '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>' in shown
    assert "<msub><mi>y</mi><mn>1</mn></msub>" in shown
    assert '<math display="block"><mrow><mi>z</mi></mrow></math>' in shown


def test_prices_are_no_formulas_and_broken_ones_stand_as_written() -> None:
    assert "$5 and $6" in answers.answer("It costs $5 and $6.")
    assert '<code class="formula">\\frac{</code>' in answers.answer("$\\frac{$")


@pytest.mark.parametrize(
    "piece",
    [
        "**a",
        "[",
        "- a\n",
        "  - a\n",
        "\\(x ",
        "$x$ ",
        "|a|b|\n|-|-|\n",
        ">",
        "`a``b",
        "[a](b) ",
        "```c\n\n\n",
        "w",
        "<a ",
        "{",
    ],
)
def test_no_answer_takes_long(piece: str) -> None:
    text = (piece * answers.MAX_CHARS)[: answers.MAX_CHARS]
    started = time.process_time()
    answers.answer(text)
    assert time.process_time() - started < 10, "of processor time: what is not linear in the length takes minutes"


def test_a_huge_answer_is_shown_as_it_is() -> None:
    shown = answers.answer("**a** " * 20_000)
    assert shown.startswith('<p class="plain">**a** ')


def test_what_would_act_on_the_screen_is_shown_instead() -> None:
    assert visible("\x1b[2J\u202eexe.\tok\r\nline\x00") == "␛[2J⟨U+202E⟩exe.\tok\nline␀"
    assert one_line("a\n\u2066b") == "a ⟨U+2066⟩b"
