"""The console: checkpoints, jobs, workers, suites, limits, disk, roles, planned news and webhooks."""

import datetime as dt
from pathlib import Path

import pytest
from sqlalchemy import select

from registry import checkpoints, db, events, inventory, joblog, limits, news, webhooks
from registry.models import ApiKey, AuditEntry, Checkpoint, Evaluation, Post, Task, User, Webhook, WebhookDelivery
from registry.models.base import FAILED, QUEUED, READY, REJECTED, VERIFYING, utcnow
from registry.settings import get_settings
from server import pulse
from tests.factories import finish_evaluation, make_checkpoint, make_run, make_task
from tests.server.visitors import Visitor, member

PAGES = (
    "/admin",
    "/admin/checkpoints",
    "/admin/jobs",
    "/admin/workers",
    "/admin/suites",
    "/admin/limits",
    "/admin/disk",
    "/admin/webhooks",
    "/admin/news",
    "/admin/people",
)
DEEDS = (
    ("/admin/checkpoints", {"action": "delete", "one": "1", "sure": "yes"}),
    ("/admin/jobs/1/cancel", {}),
    ("/admin/jobs/1/retry", {}),
    ("/admin/jobs/evaluations", {"one": "1"}),
    ("/admin/workers/forget", {"worker": "w"}),
    ("/admin/suites/1/schedule", {"schedule": "panel"}),
    ("/admin/suites/1/retire", {}),
    ("/admin/limits/chat_limit", {"value": "1/minute"}),
    ("/admin/people/1/role", {"role": "admin"}),
    ("/admin/prompts", {"text": "Once"}),
    ("/admin/news/1", {"title": "x"}),
    ("/admin/news/1/resolve", {}),
    ("/admin/webhooks", {"name": "x", "url": "https://example.com/", "event": "job.failed"}),
    ("/admin/webhooks/1", {"name": "x"}),
    ("/admin/webhooks/1/ping", {}),
    ("/admin/webhooks/1/secret", {}),
    ("/admin/webhooks/1/delete", {}),
)


@pytest.fixture
def admin(database: Path, redis_url: str) -> Visitor:
    """An administrator who is logged in, before a site with a broker."""
    pulse.forget()
    return member("keeper", role="admin")


def deeds() -> list[tuple[str, str]]:
    with db.read_session() as session:
        return [(one.action, one.subject) for one in session.scalars(select(AuditEntry).order_by(AuditEntry.id))]


def test_nobody_else_sees_or_does_any_of_it(database: Path, redis_url: str) -> None:
    mei, leo = member("mei"), member("leo", role="publisher")
    for visitor in (mei, leo):
        assert {address: visitor.get(address).status_code for address in PAGES} == dict.fromkeys(PAGES, 403)
        for address, fields in DEEDS:
            assert visitor.post(address, fields).status_code == 403, address
    assert deeds() == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_opens_on_an_empty_site_in_both_languages(admin: Visitor, language: str) -> None:
    admin.client.headers["accept-language"] = language
    for address in PAGES:
        answer = admin.get(address)
        assert answer.status_code == 200, address
        assert ('lang="zh-CN"' in answer.text) is (language == "zh")


class TestCheckpoints:
    def test_they_are_found_filtered_and_counted(self, admin: Visitor) -> None:
        with db.transaction() as session:
            run, other = make_run(session), make_run(session, "other")
            leo = session.scalars(select(User)).one()
            for step in range(60):
                make_checkpoint(session, run, step)
            brought = make_checkpoint(session, other, 7)
            brought.origin, brought.user_id, brought.is_released = "upload", leo.id, True
        first = admin.get("/admin/checkpoints").text
        assert "61 checkpoints" in first
        assert "Page 1 of 2" in first
        assert first.count('name="one"') == inventory.PAGE_SIZE
        assert admin.get("/admin/checkpoints?page=2").text.count('name="one"') == 11
        for query in ("search=other@7", "search=keeper", "origin=upload", "released=yes", "run=other", "search=OTHER"):
            page = admin.get(f"/admin/checkpoints?{query}").text
            assert page.count('name="one"') == 1, query
            assert "other@7" in page
        assert admin.get("/admin/checkpoints?search=%25").text.count('name="one"') == 0
        for nonsense in ("page=-3", "page=99", "precision=x", "order=x", "released=maybe", "state=x' OR 1=1"):
            assert admin.get(f"/admin/checkpoints?{nonsense}").status_code == 200

    def test_several_are_released_and_what_cannot_be_is_named(self, admin: Visitor) -> None:
        with db.transaction() as session:
            run = make_run(session)
            good, waiting = make_checkpoint(session, run, 1), make_checkpoint(session, run, 2, ready=False)
        sent = {"action": "release", "one": [str(good.id), str(waiting.id)]}
        page = admin.post("/admin/checkpoints", sent).text
        assert "demo@2 is not ready" in page
        with db.read_session() as session:
            assert session.get_one(Checkpoint, good.id).is_released
        again = admin.post("/admin/checkpoints", {"action": "unrelease", "one": str(good.id), "query": "state=ready"})
        assert again.headers["location"] == "/admin/checkpoints?state=ready&done=unrelease&num=1"
        assert [one for one, _ in deeds()] == ["checkpoint_released", "checkpoint_unreleased"]

    def test_a_rejected_one_is_deleted_with_its_files_after_a_second_question(self, admin: Visitor) -> None:
        with db.transaction() as session:
            checkpoint = make_checkpoint(session, make_run(session), 1, ready=False)
            folder = get_settings().checkpoints_dir / checkpoint.folder
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
            checkpoints.mark_rejected(session, checkpoint, "It holds NaN.")
        aside = get_settings().checkpoints_dir / checkpoint.folder
        assert aside.is_dir()
        question = admin.post("/admin/checkpoints", {"action": "delete", "one": str(checkpoint.id)})
        assert "It holds NaN." in question.text
        assert aside.is_dir()
        admin.post("/admin/checkpoints", {"action": "delete", "one": str(checkpoint.id), "sure": "yes"})
        assert not aside.exists()
        with db.read_session() as session:
            assert session.get(Checkpoint, checkpoint.id) is None
        assert deeds()[-1] == ("checkpoint_deleted", f"checkpoint:{checkpoint.id}")

    def test_one_that_is_in_use_is_not(self, admin: Visitor) -> None:
        with db.transaction() as session:
            task = make_task(session)
            good, lost = (make_checkpoint(session, make_run(session, name), 1) for name in ("a", "b"))
            finish_evaluation(session, lost, task, 0.5)
            lost.state = REJECTED
        sent = {"action": "delete", "one": [str(good.id), str(lost.id)], "sure": "yes"}
        page = admin.post("/admin/checkpoints", sent).text
        assert "a@1 is not rejected" in page
        assert "b@1 has results" in page
        assert deeds() == []

    def test_it_is_verified_again_and_its_evaluations_are_queued_again(self, admin: Visitor) -> None:
        with db.transaction() as session:
            make_task(session)
            checkpoint = make_checkpoint(session, make_run(session), 1, ready=False)
            (get_settings().checkpoints_dir / checkpoint.folder).mkdir(parents=True)
            [evaluation] = inventory.evaluations.plan(session, checkpoint)
            checkpoints.mark_rejected(session, checkpoint, "No.")
            inventory.evaluations.cancel_for(session, checkpoint)
        admin.post("/admin/checkpoints", {"action": "verify", "one": str(checkpoint.id)})
        with db.read_session() as session:
            again = session.get_one(Checkpoint, checkpoint.id)
            assert (again.state, again.reason, again.folder) == (VERIFYING, "", "demo/step-1-pretrained")
            assert session.get_one(Evaluation, evaluation.id).status == QUEUED
        assert (get_settings().checkpoints_dir / "demo/step-1-pretrained").is_dir()
        with db.transaction() as session:
            session.get_one(Checkpoint, checkpoint.id).state = READY
        assert "done=cancel" in admin.post("/admin/checkpoints", {"action": "cancel", "one": "1"}).headers["location"]
        assert "No evaluation of it is open" in admin.post("/admin/checkpoints", {"action": "cancel", "one": "1"}).text
        assert "done=requeue" in admin.post("/admin/checkpoints", {"action": "requeue", "one": "1"}).headers["location"]

    def test_nonsense_is_refused(self, admin: Visitor) -> None:
        assert admin.post("/admin/checkpoints", {"action": "explode", "one": "1"}).status_code == 422
        assert admin.post("/admin/checkpoints", {"action": "release"}).status_code == 422

    def test_a_page_of_many_takes_few_queries(self, admin: Visitor, queries: list[str]) -> None:
        with db.transaction() as session:
            run = make_run(session)
            for step in range(120):
                make_checkpoint(session, run, step)
        admin.get("/admin/checkpoints")
        queries.clear()
        admin.get("/admin/checkpoints")
        assert len(queries) <= 12


class TestJobs:
    def test_a_job_is_watched_cancelled_and_tried_again(self, admin: Visitor) -> None:
        with db.transaction() as session:
            checkpoint = make_checkpoint(session, make_run(session), 1)
            job = joblog.plan(session, joblog.QUANTIZE, checkpoint=checkpoint, args={"bits": 4, "token": "s3cret"})
            fence = joblog.claim(session, job.id, "worker:1")
            assert fence is not None
            joblog.report(session, job.id, fence, progress=0.42, line="Layer 3 <b>of</b> 8")
        assert "Quantization · demo@1" in admin.get("/admin/jobs").text
        page = admin.get(f"/admin/jobs/{job.id}").text
        assert "42%" in page
        assert "Layer 3 &lt;b&gt;of&lt;/b&gt; 8" in page
        assert "s3cret" not in page
        assert 'data-live="job:*"' in page
        assert admin.post(f"/admin/jobs/{job.id}/retry", {}).status_code == 409
        assert admin.post(f"/admin/jobs/{job.id}/cancel", {}).status_code == 303
        assert "is being cancelled" in admin.get(f"/admin/jobs/{job.id}/state").text
        with db.transaction() as session:
            joblog.finish(session, job.id, fence, FAILED, "The disk is full.")
        assert "The disk is full." in admin.get("/admin/jobs?status=failed").text
        assert admin.post(f"/admin/jobs/{job.id}/retry", {}).status_code == 303
        assert [one for one, _ in deeds()] == ["job_cancelled", "job_retried"]
        assert admin.get("/admin/jobs/99").status_code == 404

    def test_failed_evaluations_go_back_in_line_which_is_shown(self, admin: Visitor) -> None:
        with db.transaction() as session:
            make_task(session)
            checkpoint = make_checkpoint(session, make_run(session), 1)
            [evaluation] = inventory.evaluations.plan(session, checkpoint)
            inventory.evaluations.fail(session, evaluation.id, "The engine went down.")
        assert "The engine went down." in admin.get("/admin/jobs").text
        assert admin.post("/admin/jobs/evaluations", {"one": str(evaluation.id)}).status_code == 303
        page = admin.get("/admin/jobs/list").text
        assert "The engine went down." not in page
        assert f"evaluation {evaluation.id}" in page
        assert admin.post("/admin/jobs/evaluations", {"one": str(evaluation.id)}).status_code == 422


class TestWorkers:
    def test_who_lives_what_each_holds_and_who_is_silent(
        self, admin: Visitor, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with db.transaction() as session:
            checkpoint = make_checkpoint(session, make_run(session), 1)
        about = {
            "version": "abc123",
            "began_at": utcnow().isoformat(),
            "queues": ["cpu", "gpu"],
            "engine": "vllm 0.11",
            "is_engine_up": True,
            "checkpoint_id": checkpoint.id,
            "tickets": [{"ticket_id": 5, "lane": "evaluation", "evaluation_id": 9, "seconds": 3.5}],
            "tokens_per_second": 81.5,
        }
        events.worker_beat("gone:1", "1 answers", {}, {**about, "version": "old999"})
        monkeypatch.setattr(events, "WORKER_SILENT_SECONDS", -1)
        assert "Silent" in admin.get("/admin/workers").text
        monkeypatch.setattr(events, "WORKER_SILENT_SECONDS", 30)
        events.worker_beat("gpu:1", "0 answers, 1 evaluations", {"load_seconds": 1.5}, about)
        page = admin.get("/admin/workers").text
        for said in (
            "demo@1",
            "vllm 0.11",
            "81.5 tokens/s",
            "cpu, gpu",
            "abc123",
            "/evaluations/9",
            "different versions",
        ):
            assert said in page
        admin.post("/admin/workers/forget", {"worker": "gone:1"})
        assert "gone:1" not in admin.get("/admin/workers").text

    def test_without_a_broker_it_says_so(self, admin: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events, "known_workers", lambda: None)
        assert "cannot be reached" in admin.get("/admin/workers").text


def test_a_task_is_rescheduled_retired_and_brought_back(admin: Visitor) -> None:
    with db.transaction() as session:
        task = make_task(session)
    assert admin.post(f"/admin/suites/{task.id}/schedule", {"schedule": "milestone"}).status_code == 303
    assert admin.post(f"/admin/suites/{task.id}/schedule", {"schedule": "idle"}).status_code == 409
    assert admin.post(f"/admin/suites/{task.id}/retire", {}).status_code == 303
    with db.read_session() as session:
        now = session.get_one(Task, task.id)
        assert (now.schedule, now.own_schedule, now.retired, now.is_shelved) == ("milestone", "milestone", True, True)
    assert "Bring it back" in admin.get("/admin/suites").text
    assert admin.post(f"/admin/suites/{task.id}/restore", {}).status_code == 303
    assert [one for one, _ in deeds()] == ["task_rescheduled", "task_retired", "task_restored"]
    assert admin.post("/admin/suites/99/retire", {}).status_code == 404


def test_a_prompt_of_the_administrators_own_is_accepted_at_once(admin: Visitor) -> None:
    answer = admin.post("/admin/prompts", {"text": "In the beginning"})
    assert "done=accepted" in answer.headers["location"]
    assert "In the beginning" in admin.get("/admin/prompts").text
    assert admin.post("/admin/prompts", {"text": "In the beginning"}).status_code == 422


class TestLimits:
    def test_a_changed_limit_holds_at_once_and_goes_back(self, admin: Visitor) -> None:
        assert admin.post("/admin/limits/film_frames", {"value": "7"}).status_code == 303
        assert get_settings().film_frames == 7
        page = admin.get("/admin/limits").text
        assert "keeper" in page
        assert admin.post("/admin/limits/film_frames", {"default": "yes"}).status_code == 303
        assert get_settings().film_frames == 40
        assert [one for one, _ in deeds()] == ["limit_changed", "limit_reset"]

    def test_another_process_hears_of_it_with_its_next_page(
        self, admin: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with db.transaction() as session:
            limits.change(session, session.scalars(select(User)).one(), "chat_limit", "3/hour")
        monkeypatch.setattr(limits, "FRESH_SECONDS", 0.0)
        admin.get("/")
        assert get_settings().chat_limit == "3/hour"

    def test_nonsense_stays_in_the_form_with_what_would_be_right(self, admin: Visitor) -> None:
        answer = admin.post("/admin/limits/film_frames", {"value": "many"})
        assert answer.status_code == 422
        assert "whole number from 2" in answer.text
        assert 'value="many"' in answer.text
        assert admin.post("/admin/limits/secret_key", {"value": "x"}).status_code == 404


def test_the_disk_shows_what_takes_space_and_warns_when_it_is_tight(
    admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as session:
        lost = make_checkpoint(session, make_run(session), 1, ready=False)
        lost.user_id = session.scalars(select(User)).one().id
        checkpoints.mark_rejected(session, lost, "No.")
    page = admin.get("/admin/disk").text
    assert "/admin/checkpoints?run=demo&amp;state=rejected" in page
    assert "nothing is taken in" not in page
    monkeypatch.setenv("GROW_FREE_DISK_BYTES", str(10**18))
    get_settings.cache_clear()
    assert "nothing is taken in" in admin.get("/admin/disk").text


class TestRoles:
    def test_somebody_becomes_a_publisher_and_is_found_as_one(self, admin: Visitor) -> None:
        member("mei")
        with db.read_session() as session:
            mei = session.scalars(select(User).where(User.name == "mei")).one()
        assert admin.post(f"/admin/people/{mei.id}/role", {"role": "publisher"}).status_code == 303
        page = admin.get("/admin/people?role=publisher").text
        assert "mei" in page
        assert f"/admin/people/{mei.id}/role" in page
        assert deeds() == [("role_changed", f"user:{mei.id}")]
        assert admin.post(f"/admin/people/{mei.id}/role", {"role": "queen"}).status_code == 422

    def test_the_last_administrator_stays_one(self, admin: Visitor) -> None:
        with db.read_session() as session:
            keeper = session.scalars(select(User)).one()
        answer = admin.post(f"/admin/people/{keeper.id}/role", {"role": "member"})
        assert answer.status_code == 422
        assert "last administrator" in answer.text
        member("second", role="admin")
        assert admin.post(f"/admin/people/{keeper.id}/role", {"role": "member"}).status_code == 303
        assert admin.get("/admin").status_code == 403


class TestPlannedNews:
    def test_a_planned_post_is_hidden_until_its_time(self, admin: Visitor) -> None:
        at = (utcnow() + dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
        answer = admin.post("/admin/news", {"title": "Tomorrow", "body": "x", "publish_at": at})
        assert "done=planned" in answer.headers["location"]
        with db.read_session() as session:
            post = session.scalars(select(Post)).one()
        assert "Tomorrow" in admin.get("/admin/news").text
        assert "Tomorrow" not in admin.get("/news").text
        assert "Tomorrow" not in admin.get("/").text
        assert admin.get(f"/news/{post.id}").status_code == 404
        assert at in admin.get(f"/admin/news/{post.id}").text
        with db.transaction() as session:
            session.get_one(Post, post.id).published_at = utcnow() - dt.timedelta(seconds=1)
        with db.transaction() as session:
            assert list(news.announce_due(session)) == [post.id]
        with db.transaction() as session:
            assert list(news.announce_due(session)) == []
        assert "Tomorrow" in admin.get("/news").text

    def test_a_post_is_edited_and_bad_times_are_refused(self, admin: Visitor) -> None:
        admin.post("/admin/news", {"title": "First", "body": "x"})
        assert admin.post("/admin/news/1", {"title": "Second", "body": "y"}).status_code == 303
        assert "Second" in admin.get("/news").text
        for at in ("soon", "2999-01-01T00:00"):
            answer = admin.post("/admin/news", {"title": "x", "publish_at": at})
            assert answer.status_code == 422, at
        assert admin.post("/admin/news/1", {"title": ""}).status_code == 422
        assert admin.get("/admin/news/99").status_code == 404
        assert [one for one, _ in deeds()] == ["post_written", "post_edited"]

    def test_an_incident_that_lasts_is_on_every_page_until_it_is_over(self, admin: Visitor) -> None:
        admin.post("/admin/news", {"title": "The disk failed", "kind": "incident", "lasts": "yes"})
        stranger = Visitor()
        assert "The disk failed" in stranger.get("/about/models").text
        assert admin.post("/admin/news/1/resolve", {}).status_code == 303
        assert "The disk failed" not in stranger.get("/about/models").text
        assert admin.post("/admin/news/1/resolve", {}).status_code == 409
        assert admin.post("/admin/news/1/reopen", {}).status_code == 303
        assert "The disk failed" in stranger.get("/about/models").text

    def test_one_about_the_past_raises_no_banner(self, admin: Visitor) -> None:
        admin.post("/admin/news", {"title": "The loss spiked", "kind": "incident"})
        assert "The loss spiked" not in Visitor().get("/about/models").text


class TestWebhooks:
    FORM = {"name": "Ops", "url": "https://hooks.example.com/T0/abcdef", "format": "json", "event": ["job.failed"]}  # noqa: RUF012

    def test_it_is_added_tested_paused_changed_and_deleted(self, admin: Visitor) -> None:
        page = admin.post("/admin/webhooks", self.FORM)
        with db.read_session() as session:
            webhook = session.scalars(select(Webhook)).one()
            secret = webhooks.sealing.unseal(webhook.sealed_secret)
        assert secret in page.text
        assert page.headers["cache-control"] == "no-store"
        for address in ("/admin/webhooks", f"/admin/webhooks/{webhook.id}", "/admin/audit"):
            later = admin.get(address).text
            assert secret not in later
            assert "abcdef" not in later
        at = f"/admin/webhooks/{webhook.id}"
        assert admin.post(f"{at}/ping", {}).status_code == 303
        assert "Test" in admin.get(f"{at}/log").text
        assert admin.post(f"{at}/pause", {}).status_code == 303
        assert admin.post(f"{at}/resume", {}).status_code == 303
        assert secret not in admin.post(f"{at}/secret", {}).text
        assert admin.post(at, {"name": "Night", "event": ["job.failed"]}).status_code == 303
        assert "Night" in admin.get("/admin/webhooks").text
        assert admin.post(f"{at}/delete", {}).status_code == 303
        assert admin.get(at).status_code == 404

    def test_a_refused_one_does_not_send_its_secrets_back(self, admin: Visitor) -> None:
        fields = {**self.FORM, "url": "http://10.0.0.1/abcdef", "secret": "s3cret"}
        answer = admin.post("/admin/webhooks", fields)
        assert answer.status_code == 422
        assert "https://" in answer.text
        assert "abcdef" not in answer.text
        assert "s3cret" not in answer.text
        assert 'value="Ops"' in answer.text

    def test_one_that_the_site_paused_is_told_on_the_overview_and_sent_again_by_hand(self, admin: Visitor) -> None:
        admin.post("/admin/webhooks", self.FORM)
        with db.transaction() as session:
            webhooks.tell(session, "job.failed", {"kind": "average", "error": "No."})
        with db.transaction() as session:
            sending = webhooks.claim(session, 1)
            assert sending is not None
            gone = webhooks.Outcome("The receiver answered 410.", 410, "<b>gone</b>", 0.1)
            webhooks.settle(session, sending.delivery_id, sending.fence, gone)
            session.get_one(WebhookDelivery, sending.delivery_id).status = FAILED
        assert "was paused" in admin.get("/admin").text
        page = admin.get("/admin/webhooks/1").text
        assert "&lt;b&gt;gone&lt;/b&gt;" in page
        assert admin.post(f"/admin/webhooks/1/deliveries/{sending.delivery_id}/resend", {}).status_code == 303
        assert admin.post(f"/admin/webhooks/1/deliveries/{sending.delivery_id}/resend", {}).status_code == 409


def test_keys_that_bring_checkpoints_in_are_offered_to_publishers_alone(database: Path, redis_url: str) -> None:
    mei, leo = member("mei"), member("leo", role="publisher")
    assert 'value="push"' not in mei.get("/account/api").text
    assert 'value="push"' in leo.get("/account/api").text
    for visitor, scopes in ((mei, "models"), (leo, "models,push")):
        visitor.post("/account/api/keys", {"name": "trainer", "scope": ["models", "push"]}, page="/account/api")
        with db.read_session() as session:
            assert session.scalars(select(ApiKey).order_by(ApiKey.id.desc())).first().scopes == scopes  # type: ignore[union-attr]
