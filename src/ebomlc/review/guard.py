"""Who may ask the review server for anything, how often, and what every answer forbids the browser."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request, cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "ebomlc_review"
MOST_BYTES, MOST_SECONDS = 16 * 2**10, 10.0
"""Of a request's body, and until it has come."""

REQUESTS_PER_SECOND, REFUSALS_PER_SECOND, BURST_SECONDS = 200.0, 20.0, 3.0
"""What is answered, of those who may ask and of those who may not; a burst is what so many seconds allow."""

LOCAL_NAMES = frozenset({"localhost"})

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

# whoever comes by a link on another site's page would not show the cookie at once; who goes on from our own page does
ENTRY_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=./">
<title>ebomlc review</title><link rel="icon" href="static/icon.svg"><p><a href="./">Go on to the review</a></p></html>
"""

NO_TOKEN = "the token is missing or is that of an earlier start: open the whole address that `ebomlc review` printed"


@dataclass(frozen=True)
class Keys:
    """What opens the server; drawn anew at every start.

    Attributes
    ----------
    place : str
        First part of every path. Other servers of this machine share its cookies in a browser, whatever their port, but
        not those of a path that they do not know.
    token : str
        In the address that is opened, or in a header ``Authorization: Bearer``.
    cookie : str
        What the browser that brought the token shows from then on.
    """

    place: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def entry(self) -> str:
        """Path of the page."""
        return f"/{self.place}/"


class Refusal(Exception):  # noqa: N818 - nothing went wrong
    """Why a request is not answered.

    Parameters
    ----------
    status : int
        Of the answer.
    reason : str
        In a sentence.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Bucket:
    """Lets through `rate` requests a second, and more of them after a pause.

    Parameters
    ----------
    rate : float
        A second.
    clock : callable
        Seconds from any start.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._at = rate * BURST_SECONDS, clock()

    def take(self) -> bool:
        """Whether one more may pass now."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._rate, self._rate * BURST_SECONDS)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Guard:
    """An application that answers only those who hold the keys and ask from its own page.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    keys : Keys
        What a request must show.
    host : str or None
        A name or address that the server may be asked by from other machines; None where only this one may ask.
    clock : callable
        Seconds from any start.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, *, host: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._keys, self._host = app, keys, host
        self._admitted, self._refused = Bucket(REQUESTS_PER_SECOND, clock), Bucket(REFUSALS_PER_SECOND, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; nothing but HTTP is spoken here."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        send = _with_headers(send)
        try:
            if self._enters(request):
                await self._entry()(scope, receive, send)
                return
            self._check(request)
            body = await _read_body(request)
        except Refusal as refusal:
            await PlainTextResponse(refusal.reason, refusal.status)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    # --- who asks -----------------------------------------------------------------------------------------------------

    def _enters(self, request: Request) -> bool:
        """Whether somebody brings the token in the address of the page."""
        self._check_host(request)
        token = request.query_params.get("token")
        return (
            token is not None
            and request.method == "GET"
            and request.url.path == self._keys.entry
            and self._take(_same(token, self._keys.token))
        )

    def _entry(self) -> HTMLResponse:
        page = HTMLResponse(ENTRY_PAGE)
        page.set_cookie(COOKIE, self._keys.cookie, path=self._keys.entry, httponly=True, samesite="strict")
        return page

    def _check(self, request: Request) -> None:
        by_header = self._has_token(request)
        if not self._take(by_header or self._has_cookie(request)):
            raise Refusal(403, NO_TOKEN)
        _check_site(request, self._keys.entry)
        if request.method == "POST" and not by_header and "origin" not in request.headers:
            raise Refusal(403, "a browser says from which page it sends something, and this request does not")
        if request.method == "POST" and _content_type(request) != "application/json":
            raise Refusal(415, "send application/json")

    def _take(self, admitted: bool) -> bool:
        """The same answer, counted against its limit."""
        if not (self._admitted if admitted else self._refused).take():
            raise Refusal(429, "too many requests: wait a second")
        return admitted

    def _has_token(self, connection: HTTPConnection) -> bool:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _same(token.strip(), self._keys.token)

    def _has_cookie(self, connection: HTTPConnection) -> bool:
        cookies = [cookie_parser(line).get(COOKIE, "") for line in connection.headers.getlist("cookie")]
        return any(_same(cookie, self._keys.cookie) for cookie in cookies)

    def _check_host(self, request: Request) -> None:
        """Raise Refusal for a name that could be another site's, turned to this machine by its own name server."""
        name = _host_name(request)
        if name is None or not self._is_ours(name):
            self._take(False)
            raise Refusal(403, f"this server does not go by that name: open http://localhost:PORT{self._hint()}")

    def _hint(self) -> str:
        return "" if self._host is None else f" or http://{self._host}:PORT"

    def _is_ours(self, name: str) -> bool:
        try:
            # numbers cannot be pointed elsewhere
            return ipaddress.ip_address(name).is_loopback or self._host is not None
        except ValueError:
            return name in LOCAL_NAMES or name == self._host


def _same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how far they are."""
    return hmac.compare_digest(one.encode(), other.encode())


def _host_name(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_site(request: Request, entry: str) -> None:
    """Raise Refusal for a request that another page makes."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers.get('host')}":
        raise Refusal(403, "another page may not ask for this")
    site, mode = (request.headers.get(f"sec-fetch-{part}") for part in ("site", "mode"))
    if site in (None, "same-origin", "none"):
        return
    if request.method != "GET" or mode != "navigate" or request.url.path != entry:
        raise Refusal(403, "another page may not ask for this")


async def _read_body(request: Request) -> bytes:
    """The body of a request, as long as it is short and comes soon."""
    too_large = Refusal(413, f"at most {MOST_BYTES:,} bytes")
    if not request.headers.get("content-length", "0").isdigit():
        raise Refusal(400, "no length that can be read")
    if int(request.headers.get("content-length", "0")) > MOST_BYTES:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(MOST_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the request took longer than {MOST_SECONDS:g} seconds to come") from None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """What hands on a body that has been read, and then whatever comes."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in HEADERS]
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return send_with_headers
