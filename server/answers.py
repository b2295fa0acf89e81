"""A chat model's answer as a page shows it: Markdown, tables, code in colours, formulas; safe, whoever wrote it.

Formulas become MathML, which browsers draw without a script. Everything goes through nh3 at the
end. What would take long to lay out is shown as the plain text that it is.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape, unescape
from typing import Any
from xml.etree import ElementTree

import nh3
from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from server.plain import visible

MAX_CHARS = 30_000
"""Longer answers are plain text: laying this much out takes up to a fifth of a second."""
MAX_CODE_CHARS = 5_000
MAX_FORMULA_CHARS = 1_000
MAX_FORMULAS = 300
MAX_DELIMITERS = 4_000
"""Of characters with a meaning in Markdown; texts of nothing else are what takes its parsers long."""
DELIMITERS = "*_[]`$\\<>|&!~"
MATHML = {
    "math", "mrow", "mi", "mo", "mn", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder", "mover",
    "munderover", "mtable", "mtr", "mtd", "mtext", "mspace", "mstyle", "mpadded", "mphantom", "menclose",
}  # fmt: skip
PROSE = {
    "p", "br", "hr", "em", "strong", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h3", "h4", "h5", "h6",
    "a", "table", "thead", "tbody", "tr", "th", "td", "span", "div",
}  # fmt: skip
COLOURED = {
    "python", "py", "pycon", "javascript", "js", "typescript", "ts", "json", "html", "css", "bash", "sh", "shell", "c",
    "cpp", "c++", "csharp", "java", "kotlin", "go", "rust", "sql", "yaml", "toml", "diff", "xml", "latex", "tex", "r",
    "julia", "ruby", "php", "lua", "swift", "haskell", "scala", "docker", "dockerfile",
}  # fmt: skip
"""Languages whose lexers stay quick on hostile code; others have no colours."""
REPETITIVE = re.compile(r"\s{200}|(.)\1{200}")
"""What makes lexers quadratic."""
ATTRIBUTES = {
    "math": {"display"},
    "mo": {"stretchy", "fence", "separator", "minsize", "maxsize", "lspace", "rspace"},
    "mi": {"mathvariant"},
    "mn": {"mathvariant"},
    "mtext": {"mathvariant"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mspace": {"width"},
    "mfrac": {"linethickness"},
    "mtable": {"columnalign", "rowspacing", "columnspacing"},
    "mtd": {"columnalign"},
    "a": {"href", "title"},
    "ol": {"start"},
    "div": {"class"},
    "span": {"class"},
    "code": {"class"},
    "th": {"class"},
    "td": {"class"},
}
SCHEMES = {"http", "https", "mailto"}


def answer(text: str) -> Markup:
    """An answer as safe HTML."""
    plain = visible(text)
    if len(plain) > MAX_CHARS or sum(map(plain.count, DELIMITERS)) > MAX_DELIMITERS:
        return Markup('<p class="plain">%s</p>') % plain
    return _laid_out(plain)


@lru_cache(maxsize=256)  # the same answers are shown again and again
def _laid_out(text: str) -> Markup:
    html = _parser().render(text, {"num_formulas": 0, "num_code_chars": 0})
    clean = nh3.clean(
        html, tags=PROSE | MATHML, attributes=ATTRIBUTES, url_schemes=SCHEMES, link_rel="nofollow noopener noreferrer"
    )
    return Markup(clean)  # nh3 has let through only what stands above


@lru_cache
def _parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True})
    made.enable(["table", "strikethrough"]).disable("image")
    made.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
    made.use(amsmath_plugin).use(texmath_plugin, delimiters="brackets")
    for name in ("math_inline", "math_single"):
        made.add_render_rule(name, _inline_formula)
    for name in ("math_inline_double", "math_block", "math_block_label", "math_block_eqno", "amsmath"):
        made.add_render_rule(name, _display_formula)
    for name in ("fence", "code_block"):
        made.add_render_rule(name, _code)
    for name in ("heading_open", "heading_close"):
        made.add_render_rule(name, _heading)
    return made


# Rules of markdown-it-py's renderer: (renderer, tokens, place, options, environment).
def _inline_formula(_self: Any, tokens: Sequence[Token], at: int, _options: Any, env: dict[str, Any]) -> str:
    return _formula(tokens[at].content, "inline", env)


def _display_formula(_self: Any, tokens: Sequence[Token], at: int, _options: Any, env: dict[str, Any]) -> str:
    return f'<div class="formula-block">{_formula(tokens[at].content, "block", env)}</div>'


def _formula(latex: str, display: str, env: dict[str, Any]) -> str:
    env["num_formulas"] += 1
    latex = latex.strip()
    plain = f'<code class="formula">{escape(latex)}</code>'
    if len(latex) > MAX_FORMULA_CHARS or env["num_formulas"] > MAX_FORMULAS:
        return plain
    try:
        made = convert_to_element(latex, display=display)
    except Exception:  # whatever the library stumbles over, its own errors and others: the source is shown instead
        return plain
    for element in made.iter():
        element.text = unescape(element.text) if element.text else None  # the library writes entities into its texts
    return ElementTree.tostring(made, encoding="unicode")


def _code(_self: Any, tokens: Sequence[Token], at: int, _options: Any, env: dict[str, Any]) -> str:
    code, words = tokens[at].content, tokens[at].info.split()
    language = words[0][:30] if words else ""
    env["num_code_chars"] += len(code)
    is_coloured = language.lower() in COLOURED and len(code) <= MAX_CODE_CHARS and not REPETITIVE.search(code)
    if is_coloured and env["num_code_chars"] <= 4 * MAX_CODE_CHARS:
        body = highlight(code, get_lexer_by_name(language.lower(), stripnl=False), HtmlFormatter(nowrap=True))
    else:
        body = escape(code)
    name = f'<span class="code-language">{escape(language)}</span>'
    return f'<div class="code-block"><div class="code-head">{name}</div><pre><code>{body}</code></pre></div>'


def _heading(_self: Any, tokens: Sequence[Token], at: int, _options: Any, _env: dict[str, Any]) -> str:
    level = min(6, int(tokens[at].tag[1]) + 2)  # below the page's own headings
    return f"<h{level}>" if tokens[at].nesting == 1 else f"</h{level}>\n"
