"""Prompts that visitors propose: who may, what an administrator decides, and how the accepted ones get in line."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import checkpoints, db, evaluations, prompts, suites, tickets
from registry.errors import Conflict, Invalid, NotFound, Refused
from registry.models import Checkpoint, Evaluation, ProposedPrompt, Ticket, User
from registry.models.base import CANCELLED, FINISHED, QUEUED, RUNNING
from registry.models.prompts import ACCEPTED, DECLINED, WAITING, WITHDRAWN
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task, make_user


def propose(session: Session, text: str = "Once upon a time") -> ProposedPrompt:
    """By somebody who has proposed nothing else."""
    return prompts.propose(session, make_user(session), text)


def evaluations_of(session: Session, prompt: ProposedPrompt) -> list[Evaluation]:
    """Those of an accepted prompt, by checkpoint."""
    query = select(Evaluation).where(Evaluation.task_id == prompt.task_id).order_by(Evaluation.checkpoint_id)
    return list(session.scalars(query))


class TestProposing:
    def test_it_waits_with_its_text_as_it_was_written(self, session: Session) -> None:
        user = make_user(session)
        prompt = prompts.propose(session, user, "  从前有座山，\r\n山里有座庙 {{ 7 * 7 }}\n")
        assert (prompt.state, prompt.text) == (WAITING, "从前有座山，\n山里有座庙 {{ 7 * 7 }}")
        assert prompt.task_id is None
        assert [one.id for one in prompts.of_user(session, user)] == [prompt.id]

    @pytest.mark.parametrize(
        "text",
        ["", " \n ", "x" * 201, "a\n" * 8 + "b", "a\x00b", "a\x1b[31m", "a\u202eb", "a\ud800", "\ue000", "a\x7f"],
    )
    def test_only_short_plain_text_is_accepted(self, session: Session, text: str) -> None:
        with pytest.raises(Invalid):
            propose(session, text)

    def test_two_hundred_characters_and_eight_lines_are_not_too_much(self, session: Session) -> None:
        assert propose(session, "字" * 200).state == WAITING
        assert propose(session, "\n".join("abcdefgh")).state == WAITING

    def test_nobody_has_more_than_three_waiting(self, session: Session) -> None:
        user, admin = make_user(session), make_user(session, role="admin")
        first = prompts.propose(session, user, "one")
        prompts.propose(session, user, "two")
        prompts.propose(session, user, "three")
        with pytest.raises(Refused):
            prompts.propose(session, user, "four")
        prompts.decline(session, first.id, admin, "Too short.")
        prompts.propose(session, user, "four")

    def test_all_together_have_no_more_than_can_be_read(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prompts, "MAX_WAITING", 2)
        propose(session, "one")
        propose(session, "two")
        with pytest.raises(Refused):
            propose(session, "three")

    def test_the_same_text_is_proposed_once_whatever_became_of_it(self, session: Session) -> None:
        prompt, admin = propose(session), make_user(session, role="admin")
        with pytest.raises(Conflict, match="waiting"):
            propose(session, " Once upon a time\n")
        prompts.decline(session, prompt.id, admin, "No.")
        with pytest.raises(Conflict, match="declined"):
            propose(session)
        prompts.accept(session, prompt.id, admin)
        with pytest.raises(Conflict, match="accepted already"):
            propose(session)


class TestDeciding:
    def test_an_accepted_prompt_is_a_probe_task_that_stands_in_no_file(self, session: Session) -> None:
        prompt, admin = propose(session, "{% raw %} " + "word " * 30), make_user(session, role="admin")
        prompts.accept(session, prompt.id, admin)
        task = prompt.task
        assert task is not None
        assert (prompt.state, prompt.decided_by_id) == (ACCEPTED, admin.id)
        assert (task.suite.name, task.schedule, task.is_probe) == (suites.COMMUNITY, suites.IDLE, True)
        assert task.metric == ""
        assert len(task.title) <= 60
        assert prompts.text_of_task(session, task.name) == prompt.text
        assert prompts.text_of_task(session, "starter_probes") is None
        suites.sync(session)
        assert task.retired is False

    def test_it_is_asked_of_every_checkpoint_past_and_to_come(self, session: Session) -> None:
        run, prompt = make_run(session), propose(session)
        past = [make_checkpoint(session, run, step) for step in (1, 2)]
        unverified = make_checkpoint(session, run, 3, ready=False)
        make_checkpoint(session, run, 3, kind="chat")
        assert prompts.accept(session, prompt.id, make_user(session, role="admin")) == 3
        new = make_checkpoint(session, run, 4)
        evaluations.plan(session, new)
        asked = evaluations_of(session, prompt)
        assert [one.checkpoint_id for one in asked] == [one.id for one in (*past, unverified, new)]
        assert all(one.ignore_budget for one in asked)
        lanes = set(session.scalars(select(Ticket.lane).where(Ticket.evaluation_id.in_([one.id for one in asked]))))
        assert lanes == {tickets.IDLE}

    def test_a_chat_checkpoint_is_not_asked(self, session: Session) -> None:
        prompt = propose(session)
        prompts.accept(session, prompt.id, make_user(session, role="admin"))
        evaluations.plan(session, make_checkpoint(session, make_run(session), 1, kind="chat"))
        assert evaluations_of(session, prompt) == []

    def test_a_reason_is_needed_to_decline_and_a_decision_stands(self, session: Session) -> None:
        prompt, admin = propose(session), make_user(session, role="admin")
        for reason in (" ", "x" * 301):
            with pytest.raises(Invalid):
                prompts.decline(session, prompt.id, admin, reason)
        prompts.decline(session, prompt.id, admin, " It names\na person. ")
        assert (prompt.state, prompt.reason) == (DECLINED, "It names a person.")
        with pytest.raises(Conflict):
            prompts.decline(session, prompt.id, admin, "Again.")
        with pytest.raises(Conflict):
            prompts.withdraw(session, prompt.id, admin)

    def test_accepting_twice_is_refused(self, session: Session) -> None:
        prompt, admin = propose(session), make_user(session, role="admin")
        prompts.accept(session, prompt.id, admin)
        with pytest.raises(Conflict):
            prompts.accept(session, prompt.id, admin)

    def test_a_site_carries_so_many_and_no_more(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prompts, "MAX_ACCEPTED", 1)
        admin = make_user(session, role="admin")
        prompts.accept(session, propose(session, "one").id, admin)
        with pytest.raises(Conflict, match="withdraw one"):
            prompts.accept(session, propose(session, "two").id, admin)

    def test_an_unknown_prompt(self, session: Session) -> None:
        with pytest.raises(NotFound):
            prompts.get_prompt(session, 4711)

    def test_the_lists_of_an_administrator(self, session: Session) -> None:
        admin = make_user(session, role="admin")
        one, two, three = (propose(session, text) for text in ("one", "two", "three"))
        prompts.accept(session, three.id, admin)
        assert [prompt.text for prompt in prompts.list_prompts(session, WAITING)] == ["one", "two"]
        assert prompts.list_prompts(session, WAITING)[0].user is not None
        assert prompts.count(session) == {WAITING: 2, ACCEPTED: 1}
        assert [prompt.id for prompt in prompts.accepted(session)] == [three.id]
        assert one.id < two.id


class TestWithdrawing:
    def test_what_is_open_is_cancelled_and_what_was_answered_is_hidden(self, session: Session) -> None:
        run, prompt, admin = make_run(session), propose(session), make_user(session, role="admin")
        first, second = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2)
        prompts.accept(session, prompt.id, admin)
        done, waiting = evaluations_of(session, prompt)
        tickets.cancel(session, evaluation_id=done.id)
        evaluations.finish(session, done.id, results=[], protocol={"engine": "scripted"})
        prompts.withdraw(session, prompt.id, admin, "It was a joke.")
        session.flush()
        assert (prompt.state, prompt.reason) == (WITHDRAWN, "It was a joke.")
        assert (done.status, waiting.status) == (FINISHED, CANCELLED)
        assert tickets.claim(session, "w") is None
        assert evaluations.for_checkpoint(session, first) == []
        with pytest.raises(NotFound):
            evaluations.shown_evaluation(session, done.id)
        evaluations.plan(session, second)
        assert len(evaluations_of(session, prompt)) == 2

    def test_accepting_it_again_asks_only_what_was_not_answered(self, session: Session) -> None:
        run, prompt, admin = make_run(session), propose(session), make_user(session, role="admin")
        for step in (1, 2):
            make_checkpoint(session, run, step)
        prompts.accept(session, prompt.id, admin)
        done, _ = evaluations_of(session, prompt)
        tickets.cancel(session, evaluation_id=done.id)
        evaluations.finish(session, done.id, results=[], protocol={"engine": "scripted"})
        prompts.withdraw(session, prompt.id, admin)
        make_checkpoint(session, run, 3)
        assert prompts.accept(session, prompt.id, admin) == 2
        session.flush()
        assert [one.status for one in evaluations_of(session, prompt)] == [FINISHED, QUEUED, QUEUED]
        claim = tickets.claim(session, "w")
        assert claim is not None
        assert claim.lane == tickets.IDLE


class TestTheLine:
    def test_everything_else_goes_first(self, session: Session) -> None:
        run, prompt = make_run(session), propose(session)
        old = make_checkpoint(session, run, 1)
        prompts.accept(session, prompt.id, make_user(session, role="admin"))
        make_task(session, "panel")
        make_task(session, "full", schedule="milestone")
        old.is_milestone = True
        evaluations.plan(session, old)
        claims = [tickets.claim(session, "w") for _ in range(3)]
        assert [claim.lane for claim in claims if claim] == [tickets.EVALUATION, tickets.MILESTONE, tickets.IDLE]

    def test_the_backlog_goes_coarse_to_fine_and_checkpoint_by_checkpoint(self, session: Session) -> None:
        run = make_run(session)
        known = [make_checkpoint(session, run, step) for step in range(5)]
        admin = make_user(session, role="admin")
        for text in ("one", "two"):
            prompts.accept(session, propose(session, text).id, admin)
        runs_to_its_end(session, known[0])
        order, resident = [], None
        while (claim := tickets.claim(session, "w", resident_id=resident)) is not None:
            resident = claim.checkpoint_id
            order.append(checkpoints.get_by_id(session, resident).step)
        assert order == [0, 0, 4, 4, 2, 2, 1, 1, 3, 3]

    def test_it_counts_neither_among_the_scores_nor_against_the_budget(self, session: Session) -> None:
        run, task = make_run(session), make_task(session)
        checkpoint = make_checkpoint(session, run, 1)
        finish_evaluation(session, checkpoint, task, 0.5)
        prompt = propose(session)
        prompts.accept(session, prompt.id, make_user(session, role="admin"))
        [asked] = evaluations_of(session, prompt)
        evaluations.start(session, asked.id, 1, {"engine": "scripted"})
        evaluations.add_slice(session, asked.id, evaluations.NewSlice(0, 1, "x.parquet", engine_seconds=9.0))
        assert evaluations.progress(session, run) == {checkpoint.id: {FINISHED: 1}}
        assert evaluations.seconds_spent(session, checkpoint.id) == 1.5
        assert prompts.progress(session) == {prompt.task_id: {RUNNING: 1}}

    def test_a_failed_one_can_be_run_again_in_its_lane(self, session: Session) -> None:
        make_checkpoint(session, make_run(session), 1)
        prompt = propose(session)
        prompts.accept(session, prompt.id, make_user(session, role="admin"))
        [asked] = evaluations_of(session, prompt)
        evaluations.fail(session, asked.id, "The engine went down.")
        evaluations.retry(session, asked.id)
        assert session.scalars(select(Ticket.lane).where(Ticket.evaluation_id == asked.id)).one() == tickets.IDLE


def runs_to_its_end(session: Session, checkpoint: Checkpoint) -> None:
    """While a run trains, its newest checkpoint goes first."""
    checkpoint.run.status = FINISHED
    session.flush()


class TestAtTheSameMoment:
    """Two transactions on PostgreSQL, of which the second waits for the first; SQLite has one writer at a time."""

    def second(self, url: str, first: Callable[[Session], object], then: Callable[[Session], object]) -> None:
        """Begin `then` while `first` is done and not committed, and let it go on afterwards."""
        engine = db.get_engine(url)
        with ThreadPoolExecutor(1) as pool, Session(engine) as one:
            first(one)

            def do() -> None:
                with Session(engine) as two:
                    then(two)

            done = pool.submit(do)
            with pytest.raises(TimeoutError):
                done.result(0.5)
            one.commit()
            done.result(10)

    def test_the_same_text_is_proposed_once(self, own_postgres: str) -> None:
        with pytest.raises(Conflict, match="waiting"):
            self.second(own_postgres, propose, propose)

    def test_a_prompt_is_accepted_once(self, own_postgres: str) -> None:
        with Session(db.get_engine(own_postgres)) as session:
            prompt_id, admin = propose(session).id, make_user(session, role="admin").id
            session.commit()

        def accept(session: Session) -> None:
            prompts.accept(session, prompt_id, session.get_one(User, admin))

        with pytest.raises(Conflict, match="accepted already"):
            self.second(own_postgres, accept, accept)
