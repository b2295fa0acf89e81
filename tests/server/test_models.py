"""The models page: what is ready, by run, with what it needs."""

from fastapi.testclient import TestClient


def test_ready_checkpoints_are_listed_by_run_and_kind(seeded: TestClient) -> None:
    page = seeded.get("/models").text
    assert "Chat models" in page
    assert "/runs/demo/checkpoints/1750?kind=chat" in page
    assert "≈ 17.6 MB" in page


def test_a_rejected_checkpoint_is_no_model(seeded: TestClient) -> None:
    assert "/runs/uploads" not in seeded.get("/models").text


def test_an_empty_shelf_says_when_a_model_appears(client: TestClient) -> None:
    assert "No model is ready yet." in client.get("/models").text
