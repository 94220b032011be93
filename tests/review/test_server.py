"""A server in a process of its own: what it says, what it survives, and attacks on it."""

import json
import re
import shutil
import signal
import socket
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from ebomlc.cli.main import main
from ebomlc.errors import DataWarning, InputError
from ebomlc.labels.decisions import read_decisions
from ebomlc.review import server
from ebomlc.review.guard import COOKIE, HEADERS
from ebomlc.reviewed import DECISIONS, read_labels
from tests.review.conftest import Served, copied, served


def bearer(page: Served) -> dict[str, str]:
    return {"Authorization": f"Bearer {page.token}"}


def cards(page: Served, query: str = "order=suspect") -> list[dict]:
    status, _, body = page.ask("GET", f"cards?{query}", **bearer(page))
    assert status == 200
    return json.loads(body)["cards"]


def decide(page: Served, card: dict, action: str, label: int | None, **headers: str) -> int:
    sent = {"row": card["row"], "action": action, "label": label, "mode": "suspect", "since": 0}
    headers = headers or bearer(page)
    return page.ask("POST", "decisions", json.dumps(sent).encode(), Content_Type="application/json", **headers)[0]


@pytest.fixture(scope="module")
def page(digits, tmp_path_factory):
    """One server for all tests that leave it as it is."""
    with served(copied(digits, tmp_path_factory.mktemp("served"))) as found:
        yield found


@pytest.fixture(scope="module")
def cookie(page) -> str:
    status, headers, _ = page.ask("GET", f"?token={page.token}")
    assert status == 200
    return headers["set-cookie"].split(";")[0]


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_only_this_machine_can_reach_it(page):
    with socket.create_server(("0.0.0.0", 0)) as other:
        assert other.getsockname()[1] != page.port
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, family=socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        if not address.startswith("127."):
            with pytest.raises(OSError), socket.create_connection((address, page.port), timeout=2):
                pass


def test_dns_rebinding(page, cookie):
    for name in ("evil.example", f"evil.example:{page.port}", f"127.0.0.1.evil.example:{page.port}"):
        for path in ("", "about", f"?token={page.token}"):
            status, headers, body = page.ask("GET", path, Host=name, Cookie=cookie)
            assert (status, b"classes" in body, "set-cookie" in headers) == (403, False, False)


def test_cross_site_request_forgery(page, cookie):
    card = cards(page)[0]
    before = page.ask("GET", "history", **bearer(page))[2]
    own = f"http://127.0.0.1:{page.port}"
    for origin in ("http://evil.example", "null", "http://localhost:1", own + "0", own.replace("http:", "https:")):
        assert decide(page, card, "skip", None, Cookie=cookie, Origin=origin) == 403
    assert decide(page, card, "skip", None, Cookie=cookie) == 403
    form = b"row=1&action=skip"
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert page.ask("POST", "decisions", form, Cookie=cookie, Origin=own, Content_Type=kind)[0] == 415
    assert page.ask("POST", "undo", b"{}", Cookie=cookie, Sec_Fetch_Site="same-site", Origin=own)[0] == 403
    assert page.ask("GET", "history", **bearer(page))[2] == before


def test_guessing_and_reading_without_a_key(page, cookie):
    for headers in ({}, {"Cookie": f"{COOKIE}=x"}, {"Authorization": "Bearer x"}, {"Cookie": cookie + "x"}):
        for path in (
            "",
            "about",
            "cards?order=suspect",
            "pictures/5?side=320",
            "static/review.js",
            "/",
            "/favicon.ico",
        ):
            status, answer, body = page.ask("GET", path, **headers)
            assert (status, len(body) < 200) == (403, True)
            assert {name: answer[name] for name in HEADERS} == HEADERS


def test_files_outside_of_the_page(page):
    for path in ("static/../desk.py", "static/%2e%2e/desk.py", "static/..%2f..%2fcli/main.py", "static//etc/passwd"):
        assert page.ask("GET", path, **bearer(page))[0] == 404
    for path in ("pictures/../labels.parquet?side=320", "pictures/%2fetc%2fpasswd?side=320", "../../etc/passwd"):
        assert page.ask("GET", path, **bearer(page))[0] in (403, 404)


def test_floods(page):
    body = b"x" * 10**6
    sent = {"Content_Type": "application/json", **bearer(page)}
    assert page.ask("POST", "decisions", body[:20_000], **sent)[0] == 413
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", page.port), timeout=5) as line:
        # a head that does not end: the line is cut, whatever comes
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(200):
            line.sendall(b"x: " + b"y" * 10_000 + b"\r\n")
            if not line.recv(1000):
                raise ConnectionResetError
    assert page.ask("GET", "about", **bearer(page))[0] == 200


def test_requests_that_are_broken(page):
    head = f"Host: localhost\r\nAuthorization: Bearer {page.token}\r\n".encode()
    broken = (
        b"\x00\x01\x02\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n" + head + b"\r\n",
        f"GET {page.entry}about HTTP/1.1\r\n".encode() + head + b"Host: evil.example\r\n\r\n",
        f"GET {page.entry}%00 HTTP/1.1\r\n".encode() + head + b"\r\n",
        f"POST {page.entry}undo HTTP/1.1\r\n".encode() + head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    )
    for text in broken:
        with socket.create_connection(("127.0.0.1", page.port), timeout=5) as line:
            line.sendall(text)
            line.shutdown(socket.SHUT_WR)
            answer = line.recv(10_000)
            assert answer == b"" or answer.split()[1][:1] == b"4", (text, answer)
    assert page.ask("GET", "about", **bearer(page))[0] == 200


def test_the_token_is_in_no_answer(page, cookie):
    for path in ("", "about", "static/review.js", "history", f"?token={page.token}"):
        _, headers, body = page.ask("GET", path, Cookie=cookie)
        assert page.token not in body.decode() + json.dumps(headers)


def test_the_address_is_long_and_whole(page):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{12}/\?token=[\w-]{43}", page.address)


# --- stops and starts -------------------------------------------------------------------------------------------------


def test_what_was_decided_outlives_a_kill(run):
    with served(run) as first:
        chosen = cards(first)[:5]
        for card in chosen:
            assert decide(first, card, "accept", card["suggested"]) == 201
        first.kill()
    labels, names = read_labels(run)
    stored = read_decisions(run / DECISIONS, labels, names)
    assert list(stored) == [labels.id[card["row"]] for card in chosen]
    with served(run, port=first.port) as again:
        assert again.token != first.token
        assert again.ask("GET", "about", Authorization=f"Bearer {first.token}")[0] == 403
        assert not {card["row"] for card in chosen} & {card["row"] for card in cards(again)}


def test_ctrl_c_ends_it_with_a_sentence(run):
    with served(run) as page:
        assert decide(page, cards(page)[0], "skip", None) == 201
        page.process.send_signal(signal.SIGINT)
        said = page.process.stdout.read()
        page.process.wait(20)
    assert f"0 rows are decided, 1 skipped; kept in {run / DECISIONS}" in said
    assert "Traceback" not in said


# --- what it says -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ebomlc(monkeypatch, capsys):
    """Run the command in this process, without ever serving."""
    monkeypatch.setattr(server, "_run", lambda app, listener: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ebomlc", "review", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def test_a_port_in_use(ebomlc, run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, complaint = ebomlc(str(run), "--port", str(port))
    assert (code, complaint.count("\n")) == (2, 1)
    assert f"port {port} is in use" in complaint


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        (["--port", "70000"], "port 70000: choose one from 0"),
        (["--port", "-1"], "port -1: choose one from 0"),
        (["--host", "no.such.host.invalid", "--port", "0"], "--host no.such.host.invalid is no address"),
        (["--host", "192.0.2.1", "--port", "0"], "--host 192.0.2.1 is no address of this machine"),
    ],
)
def test_addresses_that_cannot_be_had(ebomlc, run, options, phrase):
    code, _, complaint = ebomlc(str(run), *options)
    assert (code, complaint.count("\n")) == (2, 1)
    assert phrase in complaint


def test_folders_that_cannot_be_reviewed(ebomlc, run, tmp_path):
    def complaint_of(folder: Path) -> str:
        code, _, complaint = ebomlc(str(folder), "--port", "0")
        assert (code, complaint.count("\n")) == (2, 1), complaint
        return complaint

    assert "not a run folder" in complaint_of(tmp_path / "nowhere")
    older = shutil.copytree(run, tmp_path / "older")
    frame = pd.read_parquet(older / "labels.parquet")
    frame.drop(columns="label_quality").to_parquet(older / "labels.parquet", index=False)
    assert "another version" in complaint_of(older)
    frame.assign(is_trusted=True).to_parquet(older / "labels.parquet", index=False)
    assert "every row of the run is trusted" in complaint_of(older)
    (run / DECISIONS).write_bytes(b"something else than SQLite, long enough to be looked at")
    assert str(run / DECISIONS) in complaint_of(run)


def test_a_run_without_suspects_is_reviewed_at_random(ebomlc, run):
    frame = pd.read_parquet(run / "labels.parquet")
    frame.assign(suggested_label=frame.given_label).to_parquet(run / "labels.parquet", index=False)
    code, said, _ = ebomlc(str(run), "--port", "0")
    assert code == 0
    assert "no label of this run is suspected; random rows can be reviewed" in said


def test_other_machines_are_let_in_only_with_a_warning(run, monkeypatch):
    monkeypatch.setattr(server, "_run", lambda app, listener: None)
    said = []
    with pytest.warns(DataWarning, match=r"other machines can reach the page at .* ssh -L"):
        server.serve(run, "anna", said.append, host="0.0.0.0", port=0)
    assert f"http://{socket.gethostname()}:" in "".join(said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server.serve(run, "anna", said.append, host="localhost", port=0)


def test_the_browser_is_sent_there_without_the_token_among_its_arguments(run, monkeypatch):
    opened = []

    def look(address: str) -> None:
        way = Path(address.removeprefix("file://"))
        opened.append((address, way.read_text(encoding="utf-8"), way.parent.stat().st_mode & 0o077))

    monkeypatch.setattr(server, "_run", lambda app, listener: None)
    monkeypatch.setattr(server.webbrowser, "open", look)
    said = []
    server.serve(run, "anna", said.append, port=0, browser=True)
    ((address, page, open_to_others),) = opened
    assert "token" not in address
    assert "token=" in page
    assert not open_to_others
    assert not Path(address.removeprefix("file://")).exists()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "ebomlc.review.server")
    with pytest.raises(InputError, match=r"the review page needs the package uvicorn: pip install 'ebomlc\[review\]'"):
        __import__("ebomlc.review.server")
