"""Against a web server of this process that breaks off, lies, stalls and refuses."""

import hashlib
import io
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from ebomlc.data import download as module
from ebomlc.data.download import download, extract, only_one
from ebomlc.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


# --- a server that does as it is told ---------------------------------------------------------------------------------


def ranged(request, content=CONTENT, upto=None, shift=0):
    """Answer as a good server does; `upto` breaks the connection off, `shift` sends other bytes than were asked for."""
    start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
    if start >= len(content):
        return status(request, 416)
    request.send_response(206 if start else 200)
    if start:
        request.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
    request.send_header("Content-Length", str(len(content) - start))
    request.end_headers()
    return request.wfile.write(content[start + shift : upto])


def whole(request, content=CONTENT, *, length=True, upto=None):
    """Send everything, whatever was asked for."""
    request.send_response(200)
    if length:
        request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content[:upto])


def status(request, code, body=b"", **headers):
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def reset(request):
    """Send a part, then cut the wire instead of saying goodbye."""
    ranged(request, upto=100_000)
    request.wfile.flush()
    time.sleep(0.1)  # else what was sent is dropped with the connection
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def stall(request, after=1000):
    ranged(request, upto=after)
    request.wfile.flush()
    request.server.closing.wait(10)


def trickle(request):
    """Slow, but never silent for longer than the timeout of the tests."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    for start in range(0, len(CONTENT), 60_000):
        request.wfile.write(CONTENT[start : start + 60_000])
        request.wfile.flush()
        time.sleep(0.1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    closing: threading.Event

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class Site:
    """Answers each request as the next line of its script says, and all further ones as the last line does.

    With a mapping of paths to contents instead of a script, it serves these files.
    """

    def __init__(self, *script, files=None):
        self.script, self.files, self.ranges = list(script), files or {}, []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.ranges.append(self.headers.get("Range"))
                if site.files:
                    name = self.path.lstrip("/")
                    return ranged(self, site.files[name]) if name in site.files else status(self, 404)
                answer = site.script.pop(0) if len(site.script) > 1 else site.script[0]
                return answer(self)

            def do_CONNECT(self):
                self.do_GET()

            def log_message(self, *_):
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.closing = threading.Event()
        self.root = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.url = f"{self.root}/a/set.bin"

    def __enter__(self):
        self.thread = threading.Thread(target=partial(self.server.serve_forever, poll_interval=0.02))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def go_direct(monkeypatch):
    """No proxy of this machine between the tests and their server, no waiting between tries."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(module, "PAUSES", (0, 0, 0))
    monkeypatch.setattr(module, "TIMEOUT", 0.5)


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    go_direct(monkeypatch)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "set.bin"


def partial_of(path):
    return path.with_name("set.bin.partial")


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def refusal(*args, **kwargs):
    """The message of a download that fails: always one line."""
    with pytest.raises(InputError) as caught:
        download(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what goes well ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [MD5, SHA256, MD5[:4] + MD5[4:].upper()])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_is_fetched_into_a_new_folder(path, checksum, size, capfd):
    with Site(ranged) as site:
        assert download(site.url, path, checksum=checksum, size=size) == path
        assert site.ranges == [None]
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["set.bin"]  # neither a partial file nor a lock
    assert capfd.readouterr() == ("", "")


def test_without_a_length(path):
    with Site(partial(whole, length=False)) as site:
        download(site.url, path, checksum=MD5)
    assert path.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_fetched(path):
    put(path, CONTENT)
    download("http://127.0.0.1:9/set.bin", path, checksum=MD5)
    assert [file.name for file in path.parent.iterdir()] == ["set.bin"]


def test_a_redirect_is_followed(path):
    with Site(ranged) as there, Site(partial(status, code=302, Location=there.url)) as here:
        download(here.url, path, checksum=MD5)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("answer", [partial(ranged, upto=1000), partial(whole, upto=1000)])
def test_goes_on_after_a_break(path, answer):
    lines = []
    with Site(answer, ranged) as site:
        download(site.url, path, checksum=MD5, say=lines.append)
        assert site.ranges == [None, "bytes=1000-"]
    assert path.read_bytes() == CONTENT
    assert lines == ["127.0.0.1 broke off after 1,000 of 300,000 bytes; trying again in 0 s"]


def test_goes_on_after_a_cut_wire(path):
    with Site(reset, ranged) as site:
        download(site.url, path, checksum=MD5)
        assert site.ranges[0] is None
        assert int(site.ranges[1][6:-1]) > 0
    assert path.read_bytes() == CONTENT


def test_a_break_is_seen_without_a_length(path):
    with Site(partial(whole, length=False, upto=1000), ranged) as site:
        download(site.url, path, checksum=MD5, size=len(CONTENT))
        assert site.ranges == [None, "bytes=1000-"]
    assert path.read_bytes() == CONTENT


def test_a_later_call_goes_on(path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    with Site(partial(ranged, upto=1000), ranged) as site:
        assert "1,000 bytes are kept" in refusal(site.url, path, checksum=MD5)
        assert not path.exists()
        assert partial_of(path).read_bytes() == CONTENT[:1000]
        download(site.url, path, checksum=MD5)
        assert site.ranges == [None, "bytes=1000-"]
    assert path.read_bytes() == CONTENT


def test_begins_anew_where_the_server_ignores_ranges(path):
    put(partial_of(path), CONTENT[:1000])
    with Site(whole) as site:
        download(site.url, path, checksum=MD5)
        assert site.ranges == ["bytes=1000-"]
    assert path.read_bytes() == CONTENT


def test_begins_anew_where_other_bytes_come(path):
    put(partial_of(path), CONTENT[:1000])
    with Site(partial(ranged, shift=5), ranged) as site:
        download(site.url, path, checksum=MD5)
        assert site.ranges == ["bytes=1000-", None]
    assert path.read_bytes() == CONTENT


def test_begins_anew_where_the_partial_file_is_too_long(path):
    put(partial_of(path), CONTENT + b"more")
    with Site(ranged) as site:
        download(site.url, path, checksum=MD5)  # the server answers 416
        assert site.ranges == [f"bytes={len(CONTENT) + 4}-", None]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [b"x" * len(CONTENT), CONTENT + b"more"])
def test_begins_anew_where_the_size_says_so(path, wrong):
    put(partial_of(path), wrong)
    with Site(ranged) as site:
        download(site.url, path, checksum=MD5, size=len(CONTENT))
        assert site.ranges == [None]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_whole_partial_file_needs_no_request(path, size):
    put(partial_of(path), CONTENT)
    download("http://127.0.0.1:9/set.bin", path, checksum=MD5, size=size)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(path, code):
    with Site(partial(status, code=code), partial(status, code=code), ranged) as site:
        download(site.url, path, checksum=MD5)
    assert path.read_bytes() == CONTENT


def test_slow_is_not_broken(path):
    with Site(trickle) as site:
        download(site.url, path, checksum=MD5)
        assert site.ranges == [None]
    assert path.read_bytes() == CONTENT


def test_tries_that_get_further_are_not_counted(path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0,))
    script = [partial(ranged, upto=upto) for upto in range(50_000, 300_000, 50_000)]
    with Site(*script, ranged) as site:
        download(site.url, path, checksum=MD5)
        assert len(site.ranges) == 6
    assert path.read_bytes() == CONTENT


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_wrong_bytes_are_deleted(path):
    wrong = CONTENT[:-1] + b"!"
    with Site(partial(ranged, content=wrong), ranged) as site:
        message = refusal(site.url, path, checksum=MD5)
        for word in (site.url, MD5[4:], hashlib.md5(wrong).hexdigest(), "is deleted", "run this again", str(path)):
            assert word in message
        assert not path.exists()
        assert not partial_of(path).exists()
        download(site.url, path, checksum=MD5)
    assert path.read_bytes() == CONTENT


def test_another_file_in_the_place_is_left_alone(path):
    put(path, b"mine")
    message = refusal("http://127.0.0.1:9/set.bin", path, checksum=MD5)
    assert f"{path} is there already, but is not" in message
    assert "move it away" in message
    assert path.read_bytes() == b"mine"


def test_another_size_is_refused_before_anything_is_written(path):
    with Site(ranged) as site:
        message = refusal(site.url, path, checksum=MD5, size=300_001)
    assert "has 300,000 bytes now, expected 300,001" in message
    assert not partial_of(path).exists()


@pytest.mark.parametrize(("code", "words"), [(404, "has moved"), (403, "refuses"), (410, "is gone"), (418, "refuses")])
def test_refused_requests_are_not_repeated(path, code, words):
    with Site(partial(status, code=code)) as site:
        message = refusal(site.url, path, checksum=MD5)
        assert len(site.ranges) == 1
    for word in (site.url, str(code), words, f"put it at {path}"):
        assert word in message


def test_a_server_that_stays_busy_is_given_up(path):
    with Site(partial(status, code=503)) as site:
        message = refusal(site.url, path, checksum=MD5)
        assert len(site.ranges) == 4
    assert "answers 503" in message
    assert f"put it at {path}" in message


def test_a_server_that_breaks_off_at_one_place_is_given_up(path):
    with Site(partial(whole, upto=1000)) as site:
        message = refusal(site.url, path, checksum=MD5)
        assert len(site.ranges) == 4
    assert "broke off after 1,000 of 300,000 bytes" in message


def test_silence_is_a_break(path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0,))
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with Site(stall) as site:
        message = refusal(site.url, path, checksum=MD5)
    assert "timed out" in message
    assert "1,000 bytes are kept" in message


def test_silence_before_the_answer(path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    started = time.monotonic()
    with Site(lambda request: request.server.closing.wait(10)) as site:
        assert "the connection to 127.0.0.1 failed (timed out)" in refusal(site.url, path, checksum=MD5)
    assert time.monotonic() - started < 4


def test_no_server(path):
    with Site(ranged) as site:
        url = site.url
    message = refusal(url, path, checksum=MD5)
    for word in ("refused", "check the network", "0 bytes are kept", url, f"put it at {path}"):
        assert word in message


def test_no_network(path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refusal("https://www.example.org/set.bin", path, checksum=MD5)
    assert "the connection to www.example.org failed" in message
    assert "check the network" in message


def test_an_answer_that_is_no_http(path):
    with Site(lambda request: request.wfile.write(b"hello\r\n\r\n")) as site:
        assert "the connection to 127.0.0.1 failed" in refusal(site.url, path, checksum=MD5)


def test_a_certificate_that_is_not_trusted_is_not_tried_again(path):
    job = module._Job("https://a.org/set.bin", path, ("md5", MD5[4:]), None, None)
    problem = module._network_problem(job, URLError(ssl.SSLCertVerificationError(1, "self-signed certificate")))
    assert isinstance(problem, InputError)
    assert "SSL_CERT_FILE" in str(problem)


@pytest.mark.parametrize("code", [200, 203])
def test_a_web_page_is_not_a_file(path, code):
    page = partial(status, code=code, body=b"<html>log in</html>", Content_Type="text/html; charset=utf-8")
    with Site(page) as site, Site(partial(status, code=302, Location=site.url)) as here:
        message = refusal(here.url, path, checksum=MD5)
        assert len(site.ranges) == 1
    assert "leads to a web page" in message
    assert not partial_of(path).exists()


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/set.bin", "file:///etc/hostname", "data:text/plain,hello"])
def test_redirects_stay_on_the_web(path, target):
    with Site(partial(status, code=302, Location=target)) as site:
        message = refusal(site.url, path, checksum=MD5)
        assert len(site.ranges) == 1
    assert "cannot be fetched" in message
    assert not path.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a b", "http://127.0.0.1:port/a", f"http://{'a' * 64}.org/x"])
def test_addresses_that_cannot_be_asked_for(path, url):
    lines = []
    with pytest.raises(InputError, match="cannot be fetched"):
        download(url, path, checksum=MD5, say=lines.append)
    assert lines == []


def test_a_circle_of_redirects(path):
    with Site(lambda request: status(request, 302, Location=f"{request.path}")) as site:
        assert "302" in refusal(site.url, path, checksum=MD5)


@pytest.mark.parametrize(
    "url", ["ftp://a.org/x", "file:///etc/hostname", "a.org/x", "", "http://", "https:///x", "http://[a/x"]
)
def test_only_web_addresses(path, url):
    assert "give one that begins with https://" in refusal(url, path, checksum=MD5)
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "checksum", ["", MD5[4:], MD5[:-1], "md5:" + "g" * 32, "sha1:" + "0" * 40, "sha256:" + MD5[4:]]
)
def test_checksums_are_checked_themselves(path, checksum):
    assert "hexadecimal digits" in refusal("http://127.0.0.1:9/x", path, checksum=checksum)


def test_a_proxy_that_refuses(path, monkeypatch):
    with Site(partial(status, code=407)) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.root.replace("//", "//me:secret@"))
        plain = refusal("http://www.example.org/set.bin", path, checksum=MD5)
        tunnel = refusal("https://www.example.org/set.bin", path, checksum=MD5)
        assert len(proxy.ranges) == 2
    assert "407" in plain
    assert "name and password of the proxy belong in http_proxy" in plain
    assert "407" in tunnel
    assert "through the proxy that https_proxy names" in tunnel
    assert "secret" not in plain + tunnel


def test_a_proxy_that_is_not_there(path, monkeypatch):
    with Site(ranged) as site:
        monkeypatch.setenv("http_proxy", site.root)
    message = refusal("http://www.example.org/set.bin", path, checksum=MD5)
    assert "through the proxy that http_proxy names" in message


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_no_room(path):
    with Site(partial(whole, length=False)) as site:
        message = refusal(site.url, path, checksum=MD5, size=10**18)
    assert f"{path.parent} has no room for set.bin: 1,000,000,000,000,000,000 bytes" in message
    assert not partial_of(path).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up(path):
    path.parent.mkdir()
    partial_of(path).symlink_to("/dev/full")
    with Site(ranged) as site:
        message = refusal(site.url, path, checksum=MD5)
        assert len(site.ranges) == 1
    assert f"{path.parent} is full" in message
    assert not path.exists()


def test_places_that_cannot_be_written(tmp_path):
    put(tmp_path / "file", b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "set.bin.partial").mkdir()
    with Site(ranged) as site:
        assert "choose a folder" in refusal(site.url, tmp_path / "file" / "set.bin", checksum=MD5)
        assert "is a folder" in refusal(site.url, tmp_path / "folder", checksum=MD5)
        assert "set.bin cannot be written: Is a directory" in refusal(site.url, tmp_path / "set.bin", checksum=MD5)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(tmp_path):
    tmp_path.chmod(0o500)
    with Site(ranged) as site:
        message = refusal(site.url, tmp_path / "set.bin", checksum=MD5)
    assert "choose a folder that you may write to" in message


# --- several at once, and killed ones ---------------------------------------------------------------------------------


def test_two_at_once_fetch_it_once(path):
    lines, together = [], threading.Barrier(3)

    def fetch():
        together.wait()
        download(site.url, path, checksum=MD5, say=lines.append)

    with Site(trickle) as site:
        threads = [threading.Thread(target=fetch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert site.ranges == [None]
    assert path.read_bytes() == CONTENT
    assert lines == ["another process is about to put set.bin there: waiting for it"] * 2
    assert [file.name for file in path.parent.iterdir()] == ["set.bin"]


def test_the_lock_is_free_after_an_error(path):
    with pytest.raises(KeyboardInterrupt), only_one(path):
        raise KeyboardInterrupt
    with only_one(path):
        assert path.with_name("set.bin.lock").exists()
    assert not path.with_name("set.bin.lock").exists()


def test_goes_on_after_a_kill(path, monkeypatch):
    with Site(partial(stall, after=200_000), ranged) as site:
        code = (
            "import sys; from pathlib import Path; from ebomlc.data.download import download; "
            "download(sys.argv[1], Path(sys.argv[2]), checksum=sys.argv[3])"
        )
        process = subprocess.Popen([sys.executable, "-c", code, site.url, str(path), MD5])
        started = time.monotonic()
        while not (partial_of(path).exists() and partial_of(path).stat().st_size) and time.monotonic() < started + 30:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        held = partial_of(path).stat().st_size
        assert 0 < held <= 200_000
        assert not path.exists()
        download(site.url, path, checksum=MD5)
        assert site.ranges == [None, f"bytes={held}-"]
    assert path.read_bytes() == CONTENT


# --- archives ---------------------------------------------------------------------------------------------------------


def archive_of(path, *members):
    """A .tar.gz of names and contents; None as content is a link to /etc/hostname."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return path


def test_only_what_is_wanted_is_unpacked(tmp_path):
    members = [("set/a", b"A"), ("set/other", b"O"), ("../evil", b"E"), ("set/link", None), ("set/b", b"B")]
    archive = archive_of(tmp_path / "set.tar.gz", *members)
    wanted = {"set/a": tmp_path / "new" / "a", "set/b": tmp_path / "new" / "b"}
    extract(archive, wanted)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
        "new",
        "new/a",
        "new/b",
        archive.name,
    ]
    assert [path.read_bytes() for path in wanted.values()] == [b"A", b"B"]
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (("set/b", None), "set/b is not a plain file"),
        (("set/b", b"B" * 101), "set/b is not a plain file of at most 100 bytes"),
        (("set/c", b"C"), "lacks set/b"),
        (("../b", b"B"), "lacks set/b"),
    ],
)
def test_all_or_none(tmp_path, last, words):
    archive = archive_of(tmp_path / "set.tar.gz", ("set/a", b"A"), last)
    with pytest.raises(InputError, match=words):
        extract(archive, {"set/a": tmp_path / "a", "set/b": tmp_path / "b"}, largest=100)
    assert [file.name for file in tmp_path.iterdir()] == [archive.name]


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    archive = archive_of(tmp_path / "set.tar.gz", ("../evil", b"E"))
    with pytest.raises(InputError, match="cannot be unpacked"):
        extract(archive, {"../evil": tmp_path / "good"})
    assert not (tmp_path.parent / "evil").exists()
    assert [file.name for file in tmp_path.iterdir()] == [archive.name]


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-200], lambda c: b"no archive", lambda c: c[:400] + b"\xff" * 99 + c[499:]]
)
def test_damaged_archives(tmp_path, damage):
    archive = archive_of(tmp_path / "set.tar.gz", ("set/a", CONTENT[:2000]), ("set/b", CONTENT[2000:4000]))
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(InputError, match=r"^\S*set.tar.gz cannot be unpacked .*get it again$"):
        extract(archive, {"set/a": tmp_path / "a", "set/b": tmp_path / "b"})
    assert [file.name for file in tmp_path.iterdir()] == [archive.name]


def test_an_archive_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be unpacked"):
        extract(tmp_path / "set.tar.gz", {"set/a": tmp_path / "a"})
