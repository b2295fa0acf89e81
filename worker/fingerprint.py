"""Before scores count: the weights in the engine must be the ones of this checkpoint.

The first time a checkpoint is in an engine it is asked for the log-probabilities of 64 fixed strings,
its fingerprint. After each later swap a few of them, the canary, are asked again and compared.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from registry import checkpoints, db, fingerprints
from worker.engine.protocol import Engine, EngineDown, EngineError, ScoreRequest
from worker.engine.tokenizer import load_tokenizer

MAX_TOKENS = 48
NUM_CANARIES = 8
CANARY_NATS = 0.05
"""How far a canary may be off, a token: batches of another shape move bf16 sums in the last bits."""

STRINGS = (
    "中华人民共和国的一切权力属于人民。",
    "第一条 为了规范市场秩序，保护当事人的合法权益，制定本法。",
    "人民法院审理民事案件，应当根据自愿和合法的原则进行调解。",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？",
    "今天天气很好，我们一起去公园散步吧。",
    "北京是中国的首都，上海是中国最大的城市。",
    "他昨天晚上没有睡好，所以今天早上起得很晚。",
    "这道题的答案是多少？请写出计算过程。",
    "水在一个大气压下一百摄氏度时沸腾。",
    "从前有座山，山里有座庙，庙里有个老和尚。",
    "经济增长的速度取决于投资、劳动和技术进步。",
    "请把下面这句话翻译成英文：我爱我的祖国。",
    "春、夏、秋、冬是一年的四个季节。",
    "三人行，必有我师焉；择其善者而从之，其不善者而改之。",
    "如果明天下雨，比赛就推迟到下星期。",
    "电脑的内存越大，可以同时运行的程序就越多。",
    "机器学习模型在训练中逐渐学会语言的规律。",
    "一加一等于二，二加二等于四，四加四等于八。",
    "To be, or not to be, that is the question.",
    "Once upon a time there was a little girl who lived in a village.",
    "The quick brown fox jumps over the lazy dog.",
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "Water boils at one hundred degrees Celsius.",
    "In the beginning God created the heaven and the earth.",
    "It is a truth universally acknowledged, that a single man must be in want of a wife.",
    "All happy families are alike; every unhappy family is unhappy in its own way.",
    "He opened the door, looked around, and quietly closed it again.",
    "She has been working at the hospital for more than ten years.",
    "If it rains tomorrow, the match will be postponed until next week.",
    "The theory of evolution explains the diversity of life on Earth.",
    "Shall I compare thee to a summer's day? Thou art more lovely and more temperate.",
    "My lord, I come to tell you that the king is dead.",
    "The cat sat on the mat. The mat was red.",
    "Prices rose by three percent in the last quarter of the year.",
    "I do not know what you mean, but I will do it anyway.",
    "The children were playing in the garden when it started to rain.",
    "A neural network learns by adjusting its weights.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "def add(a, b):\n    return a + b\n",
    "for i in range(10):\n    print(i)\n",
    'import os\nimport sys\n\nif __name__ == "__main__":\n    main()\n',
    "class Stack:\n    def __init__(self):\n        self.items = []\n",
    "try:\n    value = int(text)\nexcept ValueError:\n    value = None\n",
    'with open(path, encoding="utf-8") as file:\n    lines = file.readlines()\n',
    "SELECT name, COUNT(*) FROM users GROUP BY name ORDER BY name;",
    '#include <stdio.h>\nint main(void) { printf("hello\\n"); return 0; }',
    "const sum = (a, b) => a + b;\nconsole.log(sum(1, 2));",
    '{"name": "grow", "version": 1, "tags": ["a", "b"]}',
    "<ul>\n  <li>one</li>\n  <li>two</li>\n</ul>",
    'git commit -m "Fix the bug" && git push origin main',
    "2 + 2 = 4, 3 * 7 = 21, 10 - 6 = 4, 8 / 2 = 4.",
    "The square root of 144 is 12.",
    "x^2 - 5x + 6 = (x - 2)(x - 3)",
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55",
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "January February March April May June July August",
    "https://example.org/path?query=value#fragment",
    "2026-11-25T03:20:00Z INFO server started on port 8000",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "!@#$%^&*()_+-=[]{}|;:,.<>?",
    "Guten Morgen! Wie geht es Ihnen heute?",
    "Bonjour, je m'appelle Marie et j'habite à Lyon.",
)


class _Proof(NamedTuple):
    folder: Path
    num_loads: int
    values: tuple[float, ...] = ()
    """The fingerprint, where this proof took one."""


_proven: dict[int, _Proof] = {}
"""By engine object: which load of weights was proven last."""

log = structlog.get_logger(__name__)


def prove(engine: Engine, folder: Path, checkpoint_id: int) -> None:
    """Take the fingerprint of a checkpoint that has none, or compare its canary; free where nothing was loaded since.

    Raises:
        EngineDown: the engine computes with other weights; it is closed, and the next use starts it again.
    """
    last = _proven.get(id(engine))
    if last is not None and (last.folder, last.num_loads) == (folder, engine.num_loads):
        return
    key = f"{engine.name}/{engine.dtype}"
    with db.read_session() as session:
        checkpoint = checkpoints.get_by_id(session, checkpoint_id)
        known, label = checkpoint.fingerprint.get(key), checkpoint.label
    values: list[float] = []
    if known is None:
        values = _first(engine, folder, last, label)
        with db.transaction() as session:
            fingerprints.record(session, checkpoints.get_by_id(session, checkpoint_id), key, values)
    else:
        _compare(engine, folder, np.array(known), label)
    _proven[id(engine)] = _Proof(folder, engine.num_loads, tuple(values))


def take(engine: Engine, folder: Path, numbers: Sequence[int] = range(len(STRINGS))) -> list[float]:
    """The mean log-probability a token, in nats, of some of the strings; `folder` must be resident.

    Raises:
        EngineError: a number is not finite.
    """
    requests = _requests(folder, numbers)
    means = [float(np.mean(score.token_logprobs)) for score in engine.score(requests)]
    if not np.isfinite(means).all():
        raise EngineError(
            f"The model gives no finite log-probabilities ({folder.name}): its weights are broken, or too large for "
            f"{engine.dtype}."
        )
    return means


def _first(engine: Engine, folder: Path, last: _Proof | None, label: str) -> list[float]:
    """A fingerprint with nothing to compare it to; one like the last checkpoint's is taken again in a fresh engine."""
    values = take(engine, folder)
    if last is None or not last.values or last.folder == folder:
        return values
    if float(np.abs(np.array(values) - np.array(last.values)).max()) > fingerprints.NOISE_NATS:
        return values
    log.warning("It behaves as the checkpoint before; the engine is started again to be sure.", checkpoint=label)
    engine.close()
    engine.use(folder)
    return take(engine, folder)


def _compare(engine: Engine, folder: Path, known: npt.NDArray[np.float64], label: str) -> None:
    numbers = range(0, len(STRINGS), len(STRINGS) // NUM_CANARIES)
    off = float(np.abs(np.array(take(engine, folder, numbers)) - known[list(numbers)]).max())
    if off <= CANARY_NATS:
        return
    log.error("The canary is off: the engine holds other weights.", checkpoint=label, nats=round(off, 4))
    engine.close()
    raise EngineDown(
        f"After loading {label} the engine gave log-probabilities that are off by {off:.3f} a token: it held other "
        "weights. It was stopped before any score counted."
    )


def _requests(folder: Path, numbers: Sequence[int]) -> list[ScoreRequest]:
    tokenizer = load_tokenizer(folder)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    encoded = [tokenizer.encode(STRINGS[number], add_special_tokens=False) for number in numbers]
    return [ScoreRequest([int(begin)], list(ids[:MAX_TOKENS])) for ids in encoded]
