"""What happens around every request."""

from fastapi.testclient import TestClient
from prometheus_client import REGISTRY


def test_pages_depend_on_cookie_and_language_and_are_asked_for_again(client: TestClient) -> None:
    headers = client.get("/").headers
    assert "Cookie" in headers["vary"]
    assert "Accept-Language" in headers["vary"]
    assert headers["cache-control"] == "no-cache"


def test_an_answer_that_sets_a_cookie_is_kept_nowhere(client: TestClient) -> None:
    answer = client.get("/lang/zh", follow_redirects=False)
    assert answer.headers["cache-control"] == "no-store"


def test_the_language_of_one_request_does_not_reach_the_next(client: TestClient) -> None:
    assert "动态" in client.get("/news", headers={"accept-language": "zh"}).text
    assert "动态" not in client.get("/news", headers={"accept-language": "en"}).text


def test_requests_are_counted_by_route_and_not_by_name(seeded: TestClient) -> None:
    labels = {"method": "GET", "route": "/runs/{run}", "status": "404"}
    before = REGISTRY.get_sample_value("grow_http_requests_total", labels) or 0
    seeded.get("/runs/one")
    seeded.get("/runs/two")
    assert REGISTRY.get_sample_value("grow_http_requests_total", labels) == before + 2
