"""Who is let in, and what every answer forbids; the same attacks meet a running server in test_server.py."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ebomlc.review import guard as guarding
from ebomlc.review.guard import BURST_SECONDS, COOKIE, HEADERS, REQUESTS_PER_SECOND, Bucket, Guard, Keys

KEYS = Keys("place", "t" * 43, "c" * 43)
HOST = "127.0.0.1:8377"
ORIGIN = {"origin": f"http://{HOST}"}
JSON = {"content-type": "application/json"}


class Clock:
    """Seconds that only a test lets pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body() or b"secret", headers={"Cache-Control": "public"})


def client(host: str | None = None, clock: Clock | None = None, **options) -> TestClient:
    routes = [Route("/place/", echo, methods=["GET", "POST"]), Route("/place/x", echo, methods=["GET", "POST"])]
    guard = Guard(Starlette(routes=routes), KEYS, host=host, clock=clock or Clock())
    return TestClient(guard, base_url=f"http://{HOST}", follow_redirects=False, **options)


def with_cookie(host: str | None = None) -> TestClient:
    return client(host, cookies={COOKIE: KEYS.cookie})


def test_the_token_buys_a_cookie_that_only_this_path_gets():
    page = client()
    answer = page.get(f"/place/?token={KEYS.token}")
    assert answer.status_code == 200
    assert "secret" not in answer.text
    assert KEYS.token not in answer.text
    cookie = answer.headers["set-cookie"]
    for part in (f"{COOKIE}={KEYS.cookie}", "Path=/place/", "HttpOnly", "SameSite=strict"):
        assert part in cookie
    assert page.get("/place/").text == "secret"


def test_without_a_key_nothing_is_told():
    for path in (
        "/place/",
        "/place/x",
        "/",
        "/elsewhere",
        "/place/?token=",
        "/place/?token=wrong",
        f"/x?token={KEYS.token}",
    ):
        answer = client().get(path)
        assert (answer.status_code, "secret" in answer.text) == (403, False), path
    assert client(cookies={COOKIE: "wrong"}).get("/place/x").status_code == 403
    assert client(cookies={COOKIE: KEYS.token}).get("/place/x").status_code == 403
    assert client().post(f"/place/?token={KEYS.token}", headers=ORIGIN).status_code == 403


def test_a_program_shows_the_token_in_a_header():
    assert client().get("/place/x", headers={"authorization": f"Bearer {KEYS.token}"}).text == "secret"
    for wrong in (f"Bearer {KEYS.cookie}", f"Basic {KEYS.token}", "Bearer ", KEYS.token, "Bearer \xe4"):
        assert client().get("/place/x", headers={"authorization": wrong.encode("latin-1")}).status_code == 403


def test_secrets_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(guarding.hmac, "compare_digest", lambda one, other: compared.append(one) or one == other)
    client().get("/place/?token=guess", headers={"authorization": "Bearer guess2", "cookie": f"{COOKIE}=guess3"})
    assert compared == [b"guess", b"guess2", b"guess3"]


def test_keys_are_long_and_drawn_anew():
    one, other = Keys(), Keys()
    assert len({one.token, one.cookie, one.place, other.token, other.cookie, other.place}) == 6
    assert len(one.token) >= 43
    assert len(one.cookie) >= 43


@pytest.mark.parametrize("name", ["127.0.0.1", "127.0.0.1:1", "localhost:8377", "LOCALHOST", "[::1]:8377", "127.8.8.8"])
def test_this_machine_goes_by_these_names(name):
    assert with_cookie().get("/place/x", headers={"host": name}).status_code == 200


FOREIGN = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "192.168.0.7",
    "0.0.0.0",
    "[::2]",
    "",
    "[",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_that_was_turned_to_this_machine_is_refused(name):
    with_keys = with_cookie()
    assert with_keys.get("/place/x", headers={"host": name}).status_code == 403
    assert with_keys.get(f"/place/?token={KEYS.token}", headers={"host": name}).status_code == 403


def test_others_may_ask_by_its_address_or_its_name_where_that_was_wanted():
    for name, status in (("192.168.0.7:80", 200), ("reviewer.lan", 200), ("evil.example", 403)):
        assert with_cookie("reviewer.lan").get("/place/x", headers={"host": name}).status_code == status


OTHER_ORIGINS = [
    "http://evil.example",
    "null",
    "http://localhost:3000",
    "https://127.0.0.1:8377",
    "http://127.0.0.1:9000",
    "",
]


@pytest.mark.parametrize("origin", OTHER_ORIGINS)
def test_another_page_may_neither_read_nor_send(origin):
    for send in (with_cookie().get, with_cookie().post):
        assert send("/place/x", headers={"origin": origin, **JSON}).status_code == 403


def test_what_is_sent_with_a_cookie_says_where_it_comes_from():
    assert with_cookie().post("/place/x", headers=JSON).status_code == 403
    assert with_cookie().post("/place/x", headers=JSON | ORIGIN, content=b"{}").text == "{}"
    token = {"authorization": f"Bearer {KEYS.token}"}
    assert client().post("/place/x", headers=JSON | token, content=b"{}").text == "{}"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_refused(kind):
    assert with_cookie().post("/place/x", headers={"content-type": kind, **ORIGIN}, content=b"{}").status_code == 415


@pytest.mark.parametrize(
    ("site", "mode", "path", "status"),
    [
        ("same-origin", "cors", "/place/x", 200),
        ("none", "navigate", "/place/", 200),
        ("cross-site", "no-cors", "/place/x", 403),
        ("same-site", "cors", "/place/x", 403),
        ("cross-site", "navigate", "/place/x", 403),
        ("cross-site", "navigate", "/place/", 200),
    ],
)
def test_what_the_browser_says_of_the_asking_page_counts(site, mode, path, status):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    assert with_cookie().get(path, headers=headers).status_code == status


def test_a_long_body_is_refused_whether_or_not_it_says_so():
    send = with_cookie().post
    limit = guarding.MOST_BYTES
    assert send("/place/x", headers=JSON | ORIGIN, content=b"x" * limit).status_code == 200
    assert send("/place/x", headers=JSON | ORIGIN, content=b"x" * (limit + 1)).status_code == 413
    chunks = (b"x" * 1000 for _ in range(20))
    assert send("/place/x", headers=JSON | ORIGIN, content=chunks).status_code == 413
    lying = JSON | ORIGIN | {"content-length": "-1"}
    assert send("/place/x", headers=lying, content=b"x").status_code == 400


def test_a_body_that_never_comes_is_given_up(monkeypatch):
    import anyio

    monkeypatch.setattr(guarding, "MOST_SECONDS", 0.05)
    said = []

    async def silence():
        await anyio.sleep(5)

    async def say(message):
        said.append(message)

    headers = [(b"host", HOST.encode()), (b"cookie", f"{COOKIE}={KEYS.cookie}".encode())]
    headers += [(name.encode(), value.encode()) for name, value in (JSON | ORIGIN).items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/place/x",
        "headers": headers,
        "query_string": b"",
        "scheme": "http",
    }
    anyio.run(Guard(Starlette(), KEYS), scope, silence, say)
    assert said[0]["status"] == 408


def test_too_many_requests_are_put_off_until_time_has_passed():
    clock = Clock()
    page = client(clock=clock, cookies={COOKIE: KEYS.cookie})
    most = int(REQUESTS_PER_SECOND * BURST_SECONDS)
    assert {page.get("/place/x").status_code for _ in range(most)} == {200}
    assert page.get("/place/x").status_code == 429
    clock.now = 1.0
    assert page.get("/place/x").status_code == 200


def test_who_guesses_is_put_off_and_shuts_nobody_out():
    page = client()
    statuses = [page.get("/place/?token=guess").status_code for _ in range(200)]
    assert statuses[0] == 403
    assert statuses[-1] == 429
    assert page.get(f"/place/?token={KEYS.token}").status_code == 200


def test_a_bucket_fills_up_and_not_over():
    clock = Clock()
    bucket = Bucket(10, clock)
    assert sum(bucket.take() for _ in range(100)) == 10 * BURST_SECONDS
    clock.now = 0.55
    assert sum(bucket.take() for _ in range(100)) == 5
    clock.now = 1000
    assert sum(bucket.take() for _ in range(100)) == 10 * BURST_SECONDS


def test_every_answer_forbids_the_browser_what_the_page_does_not_need():
    for answer in (with_cookie().get("/place/x"), client().get("/place/x"), with_cookie().get("/nowhere")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "unsafe" not in HEADERS["content-security-policy"]


def test_a_preflight_of_another_page_gets_no_leave():
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = with_cookie().options("/place/x", headers=headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
