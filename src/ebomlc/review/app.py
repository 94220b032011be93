"""The addresses of the review page and what each of them answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ebomlc.errors import InputError
from ebomlc.labels.decisions import ACTIONS, MODES
from ebomlc.review.desk import Desk, visible
from ebomlc.review.guard import Guard, Keys
from ebomlc.review.rows import ORDERS, Filter
from ebomlc.version import __version__

SIDES = (320, 1024)
"""Pixels of the longer side of a picture: in the grid, and alone."""

MOST_CARDS_UNASKED = 20
LARGEST = 2**53
"""Up to here every whole number is one in JavaScript too."""

STATIC = Path(__file__).parent / "static"


def make_app(desk: Desk, keys: Keys, title: str, *, host: str | None = None) -> ASGIApp:
    """The review page of a run behind its guard.

    Parameters
    ----------
    desk : Desk
        Of the run.
    keys : Keys
        What opens it.
    title : str
        Name of the run.
    host : str or None
        A name or address that other machines ask it by; see `Guard`.
    """
    pages = _Pages(desk, title)
    routes = [
        Route("/", pages.page),
        Route("/about", pages.about),
        Route("/cards", pages.cards),
        Route("/cards/{row:int}", pages.card),
        Route("/samples/{row:int}", pages.sample),
        Route("/pictures/{row:int}", pages.picture),
        Route("/history", pages.history),
        Route("/decisions", pages.decide, methods=["POST"]),
        Route("/undo", pages.undo, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(
        routes=[Mount(f"/{keys.place}", routes=routes)],
        exception_handlers={InputError: _say_input_error, HTTPException: _say_http_error},
    )
    return Guard(app, keys, host=host)


def _say_input_error(request: Request, error: Exception) -> Response:
    return PlainTextResponse(visible(str(error)), 409)


def _say_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)


class _Pages:
    """Functions that answer; Starlette runs those that are not coroutines in threads, as SQLite and files need it."""

    def __init__(self, desk: Desk, title: str) -> None:
        self._desk, self._title = desk, title
        environment = Environment(loader=PackageLoader("ebomlc.review"), autoescape=True)
        self._template = environment.get_template("page.html")

    def page(self, request: Request) -> Response:
        return HTMLResponse(self._template.render(title=visible(self._title), version=__version__))

    def about(self, request: Request) -> Response:
        desk = self._desk
        names = [visible(name) for name in desk.rows.class_names]
        return JSONResponse({"classes": names, "reviewer": visible(desk.reviewer), "counts": desk.counts()})

    def cards(self, request: Request) -> Response:
        query = request.query_params
        order = _one_of(query.get("order"), ORDERS, "order")
        wanted = Filter(
            given=_whole(query, "given"),
            suggested=_whole(query, "suggested"),
            low=_fraction(query, "low", 0.0),
            high=_fraction(query, "high", 1.0),
            show=query.get("show", "open"),
        )
        limit = _whole(query, "limit") or MOST_CARDS_UNASKED
        return JSONResponse(self._desk.cards(order, wanted, after=_whole(query, "after"), limit=limit))

    def card(self, request: Request) -> Response:
        return JSONResponse(self._desk.card(request.path_params["row"]))

    def sample(self, request: Request) -> Response:
        sample = self._desk.sample(request.path_params["row"], _side(request))
        return JSONResponse(
            {
                "kind": sample.kind,
                "size": sample.size,
                "text": visible(sample.text),
                "fields": [[visible(name), visible(value)] for name, value in sample.fields],
                "reason": visible(sample.reason),
            }
        )

    def picture(self, request: Request) -> Response:
        sample = self._desk.sample(request.path_params["row"], _side(request))
        if sample.kind != "image":
            raise HTTPException(404, "there is no picture of this row")
        return Response(sample.png, media_type="image/png")

    def history(self, request: Request) -> Response:
        return JSONResponse(self._desk.history())

    async def decide(self, request: Request) -> Response:
        sent = await _sent(request, {"row": int, "action": str, "label": int | None, "mode": str, "since": int})
        action, mode = _one_of(sent["action"], ACTIONS, "action"), _one_of(sent["mode"], MODES, "mode")
        kept = await run_in_threadpool(self._desk.decide, sent["row"], action, sent["label"], mode, since=sent["since"])
        return JSONResponse(kept, 201)

    async def undo(self, request: Request) -> Response:
        sent = await _sent(request, {"number": int | None, "since": int})
        return JSONResponse(await run_in_threadpool(self._desk.undo, sent["number"], since=sent["since"]), 201)


# --- what was sent ----------------------------------------------------------------------------------------------------


def _one_of(name: str | None, known: Collection[str], kind: str) -> str:
    if name is None or name not in known:
        raise HTTPException(400, f"{kind} must be one of {', '.join(known)}")
    return name


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < len(str(LARGEST))):
        raise HTTPException(400, f"{name} must be a whole number")
    return int(text)


def _fraction(query: Mapping[str, str], name: str, otherwise: float) -> float:
    try:
        return float(query.get(name, otherwise))
    except ValueError:
        raise HTTPException(400, f"{name} must be a number from 0 to 1") from None


def _side(request: Request) -> int:
    side = _whole(request.query_params, "side")
    if side not in SIDES:
        raise HTTPException(400, f"side must be one of {', '.join(map(str, SIDES))}")
    return side


async def _sent(request: Request, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that was sent, with exactly the fields of `kinds`."""
    try:
        sent = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(400, "what was sent is no JSON") from None
    if not isinstance(sent, dict) or sent.keys() != kinds.keys():
        raise HTTPException(400, f"send an object with the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        value = sent[name]
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and abs(value) > LARGEST):
            raise HTTPException(400, f"{name} is of the wrong kind")
    return sent
