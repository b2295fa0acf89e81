"""What came from what: parents, bases that cards name, and the graph of runs and checkpoints."""

import pytest
from sqlalchemy.orm import Session

from registry import aliases, checkpoints, lineage, runs
from registry.errors import Conflict, NotFound
from registry.lineage import Graph
from registry.models import Checkpoint, Run
from registry.models.base import REJECTED
from tests.factories import make_checkpoint, make_half, make_run


def _edges(graph: Graph) -> set[tuple[str, str, str]]:
    names = {node.key: node.label for node in graph.nodes}
    return {(names[edge.source], names[edge.target], edge.role) for edge in graph.edges}


def test_what_was_made_of_what(session: Session) -> None:
    run = make_run(session)
    parents = [make_checkpoint(session, run, step) for step in (2, 1)]
    child = make_checkpoint(session, run, 2, kind="avg2")
    checkpoints.add_parents(session, child, parents, "average")
    checkpoints.add_parents(session, child, parents, "average")  # again is nothing
    session.flush()
    assert lineage.parents(session, child) == [(parents[1], "average"), (parents[0], "average")]
    assert lineage.children(session, parents[0]) == [(child, "average")]


@pytest.mark.parametrize("name", ["demo@1", "grow/demo@1", "demo@stable", "demo", "https://example.org/grow/demo@1"])
def test_a_base_is_found_by_the_name_that_a_card_gives_it(session: Session, name: str) -> None:
    run = make_run(session)
    base = make_checkpoint(session, run, 1)
    aliases.set_alias(session, run, "stable", base, None)
    tuned = make_checkpoint(session, make_run(session, "tuned"), 5, kind="chat")
    assert lineage.note_base_of_card(session, tuned, [name, "meta-llama/Llama-3", "", "x" * 500, "a@b@c"]) == [base]
    assert lineage.parents(session, tuned) == [(base, "fine-tune")]


def test_nothing_comes_from_itself(session: Session) -> None:
    run = make_run(session)
    first, second = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2, kind="chat")
    lineage.set_base(session, second, first.label)
    for label in (second.label, first.label):
        with pytest.raises(Conflict):
            lineage.set_base(session, first, label)
    with pytest.raises(NotFound):
        lineage.set_base(session, first, "nowhere@1")


class TestGraph:
    @pytest.fixture
    def run(self, session: Session) -> Run:
        """Three steps; one was averaged into a mean and quantized, a branch and a rewind begin at others."""
        run = make_run(session)
        found = [make_checkpoint(session, run, step) for step in range(3)]
        checkpoints.add_parents(session, make_checkpoint(session, run, 2, kind="avg2"), found[1:], "average")
        make_half(session, run, 2)  # says nothing of what it was made from
        make_run(session, "branch", origin=runs.Origin(run, 1))
        make_run(session, "rewound", origin=runs.Origin(run, 7, is_rewind=True))  # no checkpoint is there
        session.flush()
        return run

    def at(self, session: Session, run: Run, step: int, kind: str = "pretrained") -> Checkpoint:
        return checkpoints.get_checkpoint(session, run, step, kind)

    def test_of_a_run(self, session: Session, run: Run) -> None:
        assert _edges(lineage.of_run(session, run)) == {
            ("demo", "demo@1", "training"),
            ("demo", "demo@2", "training"),
            ("demo@1", "demo@2-avg2", "average"),
            ("demo@2", "demo@2-avg2", "average"),
            ("demo@2", "demo@2-8bit", "quantization"),
            ("demo@1", "branch", "branch"),
            ("demo", "rewound", "rewind"),
        }
        branch = runs.get_run(session, "branch")
        assert _edges(lineage.of_run(session, branch)) == _edges(lineage.of_run(session, run))

    def test_of_a_checkpoint(self, session: Session, run: Run) -> None:
        average = self.at(session, run, 2, "avg2")
        assert _edges(lineage.of_checkpoint(session, average)) == {
            ("demo", "demo@1", "training"),
            ("demo", "demo@2", "training"),
            ("demo@1", "demo@2-avg2", "average"),
            ("demo@2", "demo@2-avg2", "average"),
        }
        assert _edges(lineage.of_checkpoint(session, self.at(session, run, 1))) == {
            ("demo", "demo@1", "training"),
            ("demo@1", "demo@2-avg2", "average"),
            ("demo@1", "branch", "branch"),
        }
        alone = lineage.of_checkpoint(session, self.at(session, run, 0))
        assert _edges(alone) == {("demo", "demo@0", "training")}

    def test_a_fine_tune_joins_the_graphs_of_two_runs(self, session: Session, run: Run) -> None:
        tuned = make_checkpoint(session, make_run(session, "tuned"), 5, kind="chat")
        lineage.set_base(session, tuned, "demo@0")
        for one in (run, tuned.run):
            assert _edges(lineage.of_run(session, one)) >= {
                ("demo@0", "tuned@5-chat", "fine-tune"),
                ("tuned", "tuned@5-chat", "training"),
                ("demo@1", "branch", "branch"),
            }

    def test_what_was_rejected_is_left_out_and_only_the_newest_are_drawn(
        self, session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.at(session, run, 2, "avg2").state = REJECTED
        session.flush()
        assert not any(role == "average" for _, _, role in _edges(lineage.of_run(session, run)))
        for step in range(2):
            make_checkpoint(session, run, step, kind="chat")
        monkeypatch.setattr(lineage, "MAX_DERIVED", 2)
        graph = lineage.of_run(session, run)
        assert graph.num_left_out == 1
        assert {target for _, target, role in _edges(graph) if role in ("fine-tune", "quantization")} == {
            "demo@0-chat",
            "demo@1-chat",
        }
