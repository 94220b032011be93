"""``ebomlc review``: the review page of a run, served to this machine until it is stopped."""

from __future__ import annotations

import errno
import html
import ipaddress
import socket
import tempfile
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ebomlc.errors import DataWarning, InputError
from ebomlc.labels.decisions import Decisions
from ebomlc.reviewed import DECISIONS, read_labels
from ebomlc.samples import open_samples

try:
    import uvicorn

    from ebomlc.review.app import make_app
    from ebomlc.review.guard import Keys
except ModuleNotFoundError as error:
    raise InputError(f"the review page needs the package {error.name}: pip install 'ebomlc[review]'") from error

from ebomlc.review.desk import Desk
from ebomlc.review.rows import rows_to_review

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST, PORT = "127.0.0.1", 8377
PORTS = range(2**16)
LONGEST_HEADERS = 16 * 2**10
MOST_CONNECTIONS, IDLE_SECONDS, LAST_SECONDS = 200, 30, 3
"""Connections at once; how long one may be silent; how long open requests get when the server is stopped."""

Say = Callable[[str], None]


@contextmanager
def open_desk(run: Path, reviewer: str, *, images: Sequence[Path] = ()) -> Iterator[Desk]:
    """A run on the desk, its decisions closed afterwards.

    Parameters
    ----------
    run : Path
        The run folder.
    reviewer : str
        Who decides.
    images : sequence of Path
        Further folders that the run's images may lie in.

    Raises
    ------
    InputError
        Where the folder holds no run that can be read, or nothing is left to review in it.
    """
    labels, class_names = read_labels(run)
    samples = open_samples(run, images=images)
    with Decisions(run / DECISIONS, labels, class_names) as decisions:
        rows = rows_to_review(labels, class_names, decisions.random_order())
        yield Desk(rows, decisions, samples, reviewer)


def serve(
    run: Path,
    reviewer: str,
    say: Say,
    *,
    host: str = HOST,
    port: int = PORT,
    images: Sequence[Path] = (),
    browser: bool = False,
) -> None:
    """Serve the review page of a run until Ctrl-C or SIGTERM.

    Parameters
    ----------
    run : Path
        The run folder; decisions go to `DECISIONS` in it.
    reviewer : str
        Who decides.
    say : callable
        Gets what the user must read, the address above all.
    host : str
        Address to listen at. Another one than this machine's own lets others in, with a warning.
    port : int in [0, 65535]
        0 takes one that is free.
    images : sequence of Path
        Further folders that the run's images may lie in.
    browser : bool
        Open the page in the browser too.

    Raises
    ------
    InputError
        Where there is nothing to review, or the port cannot be had.

    Warns
    -----
    DataWarning
        Where other machines can reach the page.
    """
    with open_desk(run, reviewer, images=images) as desk, _listen(host, port) as listener:
        outside, keys = _outside_name(listener, host), Keys()
        address = f"http://{_in_address(outside or host)}:{listener.getsockname()[1]}{keys.entry}?token={keys.token}"
        _announce(desk, outside, address, say)
        with suppress(KeyboardInterrupt), _opened(address) if browser else nullcontext():
            _run(make_app(desk, keys, run.resolve().name, host=outside), listener)
        counts = desk.counts()
        say(
            f"{counts['decided']:,} rows are decided, {counts['skipped']:,} skipped; kept in {run / DECISIONS}, and "
            f"`ebomlc export` takes them along"
        )


def _announce(desk: Desk, outside: str | None, address: str, say: Say) -> None:
    counts = desk.counts()
    if outside is not None:
        warnings.warn(
            f"other machines can reach the page at {outside}, and whoever listens on the way reads your data and the "
            f"token: safer is --host {HOST} and a tunnel, ssh -L {PORT}:{HOST}:{PORT}",
            DataWarning,
            stacklevel=3,
        )
    if not counts["suspects"]:
        say("no label of this run is suspected; random rows can be reviewed, which tell how many labels are wrong")
    say(
        f"{counts['suspects']:,} suspects among {counts['rows']:,} rows, {counts['decided']:,} rows decided so far\n"
        f"open {address}\nCtrl-C stops the server; every decision is kept at once"
    )


@contextmanager
def _opened(address: str) -> Iterator[None]:
    """The page in the browser, which a file of our own sends there: arguments of programs can be read by everybody."""
    with tempfile.TemporaryDirectory() as folder:
        way = Path(folder) / "review.html"
        way.write_text(f'<meta http-equiv="refresh" content="0;url={html.escape(address)}">', encoding="utf-8")
        webbrowser.open(way.as_uri())
        yield


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address."""
    if port not in PORTS:
        raise InputError(f"port {port}: choose one from 0, which takes any that is free, to {PORTS[-1]}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} is in use: is the page open already? choose another --port, or 0 for any free one"
        elif error.errno == errno.EACCES:
            reason = f"port {port} is not for everybody to use: choose a --port from 1024 to {PORTS[-1]}"
        else:
            reason = f"--host {host} is no address of this machine ({error.strerror}): leave it out for {HOST}"
        raise InputError(reason) from error


def _outside_name(listener: socket.socket, host: str) -> str | None:
    """What other machines call this one; None where they cannot reach the listener."""
    address = ipaddress.ip_address(listener.getsockname()[0])
    if address.is_loopback:
        return None
    return socket.gethostname() if address.is_unspecified else host


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _run(app: ASGIApp, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,  # a line of it would hold the token
        lifespan="off",
        ws="none",
        http="h11",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEADERS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])
