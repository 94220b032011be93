"""Files over HTTP: resumed after a break, checked, in place only when whole; and the files in an archive."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from tqdm import tqdm

from ebomlc.errors import InputError, listed
from ebomlc.version import __version__

TIMEOUT = 30.0
"""Seconds of silence after which a connection counts as broken."""

PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each new try. The count starts again whenever a try got further than all before it."""

CHUNK = 1 << 16
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of a server that may be another one in a while."""

LARGEST_MEMBER, MOST_MEMBERS, MOST_BYTES = 1 << 28, 1000, 1 << 31
"""Bytes that one file of an archive may have, files in it, and bytes of all of them.

The largest of the official sets have 155 million bytes in one file, 8 files, and 186 million bytes in all.
"""

Say = Callable[[str], object]


@dataclass(frozen=True)
class _Job:
    """One file to fetch; `checksum` is a pair such as ``("md5", "c58f...")``."""

    url: str
    path: Path
    checksum: tuple[str, str]
    size: int | None
    say: Say | None

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + ".partial")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def by_hand(self) -> str:
        return f"get {self.url} by other means and put it at {self.path}"

    def held(self) -> int:
        """Bytes that are in the partial file."""
        return self.partial.stat().st_size if self.partial.is_file() else 0

    def tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)


class _BrokenOffError(Exception):
    """One try failed, for a reason that may pass."""


def download(url: str, path: Path, *, checksum: str, size: int | None = None, say: Say | None = None) -> Path:
    """Fetch a file, unless it is there already.

    What has arrived is kept in ``PATH.partial``, from where the next call goes on; a file stands at `path` only once
    it is whole and its checksum is right. Of several calls for one file, in any number of processes, one fetches and
    the others wait for it.

    Parameters
    ----------
    url : str
        An http or https address.
    path : Path
        Where the file is to be; its folder is made.
    checksum : str
        ``"md5:HEX"`` or ``"sha256:HEX"`` of the whole file.
    size : int, optional
        Bytes of the whole file, where they are known: room on the disk is then asked for first.
    say : callable, optional
        Takes lines that say what is being done; also switches the progress bar on, which goes to stderr.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        If the file cannot be fetched or written, or is not the expected one; what had arrived of the right file is
        kept, a file with another checksum is deleted, and a file that was at `path` before is never touched.
    """
    algorithm, _, digest = checksum.partition(":")
    job = _Job(url, Path(path), (algorithm, digest.lower()), size, say)
    _check_job(job)
    if not _is_there(job):
        with only_one(job.path, say):
            if not _is_there(job):  # another process may have put it there meanwhile
                _fill_partial(job)
                _check_partial(job)
                _put_in_place(job)
    return job.path


@contextmanager
def only_one(path: Path, say: Say | None = None) -> Iterator[None]:
    """Hold a lock, ``PATH.lock``, on what is to be put at a path, waiting for whoever holds it now.

    The system frees it when a process dies. Its file is removed after a block that ended without an error: whoever
    still waited for it must then find the work done.

    Parameters
    ----------
    path : Path
        File or folder; the folder that it is to be in is made.
    say : callable, optional
        Takes a line where there is somebody to wait for.

    Raises
    ------
    InputError
        If the folder cannot be made or written to.
    """
    file = path.with_name(path.name + ".lock")
    lock = FileLock(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if say is not None:
                say(f"another process is about to put {path.name} there: waiting for it")
            lock.acquire()
    except OSError as error:
        raise _write_problem(path, error) from error
    try:
        yield
        with suppress(OSError):  # where a file in use cannot be removed, it stays
            file.unlink()
    finally:
        lock.release()


def extract(archive: Path, members: Mapping[str, Path], *, largest: int = LARGEST_MEMBER) -> None:
    """Unpack some files of a tar archive, all of them or none; nothing else in it is touched.

    Parameters
    ----------
    archive : Path
        A tar file, compressed or not.
    members : mapping of str to Path
        Where to put each file, by its name in the archive; folders are made, and files of the same name replaced.
    largest : int
        Bytes that a file may have.

    Raises
    ------
    InputError
        If the archive is damaged or lacks one of the files, one is not a plain file or too large, or the files cannot
        be written.
    """
    folder = archive.parent
    try:
        with tempfile.TemporaryDirectory(prefix=f".{archive.name}.", dir=folder) as beside:
            unpacked = _unpack(archive, members, Path(beside), largest)
            for name, path in members.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                unpacked[name].replace(path)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile adds a line for each kind of compression
        raise InputError(f"{archive} cannot be unpacked ({reason}): delete it and get it again") from error
    except OSError as error:
        reason = error.strerror or error  # an OSError of gzip has no number
        raise InputError(
            f"{archive} cannot be unpacked into {folder}: {reason}; free some space there, or get it again"
        ) from error


def _unpack(archive: Path, members: Mapping[str, Path], beside: Path, largest: int) -> dict[str, Path]:
    found: dict[str, Path] = {}
    size = 0
    with tarfile.open(archive) as tar:
        for number, member in enumerate(tar):
            size += member.size  # what is passed over is unpacked as well
            if number == MOST_MEMBERS or size > MOST_BYTES:
                raise InputError(
                    f"{archive}: has more than {MOST_MEMBERS:,} files or {MOST_BYTES:,} bytes, so this is not the "
                    "expected archive: delete it and get it again"
                )
            if member.name in members and member.name not in found:
                if not member.isreg() or member.size > largest:
                    raise InputError(
                        f"{archive}: {member.name} is not a plain file of at most {largest:,} bytes, so this is not "
                        "the expected archive: delete it and get it again"
                    )
                tar.extract(member, beside, filter="data")
                found[member.name] = beside / member.name
            if len(found) == len(members):
                return found
    missing = [name for name in members if name not in found]
    raise InputError(f"{archive} lacks {listed(missing)}, so this is not the expected archive: get it again")


def _check_job(job: _Job) -> None:
    if not _is_web_address(job.url):
        raise InputError(f"{job.url!r} is not an address that can be fetched: give one that begins with https://")
    algorithm, digest = job.checksum
    lengths = {"md5": 32, "sha256": 64}
    if len(digest) != lengths.get(algorithm) or set(digest) - set("0123456789abcdef"):
        raise InputError(
            f"checksum {':'.join(job.checksum)!r} of {job.url}: write md5: and 32, or sha256: and 64 hexadecimal digits"
        )


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_there(job: _Job) -> bool:
    """True for the right file at the path; another one is refused, for it may be the user's."""
    if not job.path.exists():
        return False
    if not job.path.is_file():
        raise InputError(
            f"{job.path} is a folder, and a file is to be put there: move it away, or choose another place"
        )
    algorithm, expected = job.checksum
    found = _digest(job.path, algorithm)
    if found != expected:
        raise InputError(
            f"{job.path} is there already, but is not {job.url}: its {algorithm} is {found}, expected {expected}; "
            "move it away or delete it, and run this again"
        )
    return True


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check who may read it") from error


def _fill_partial(job: _Job) -> None:
    """Try until the partial file is whole, as long as each try gets further, or the pauses last."""
    furthest, failures = job.held(), 0
    while True:
        try:
            return _receive(job)
        except _BrokenOffError as broken:
            failures = 1 if job.held() > furthest else failures + 1
            furthest = max(furthest, job.held())
            if failures > len(PAUSES):
                raise InputError(
                    f"{job.url} cannot be fetched: {broken}{_proxy_words(job)}; check the network and run this again "
                    f"({job.held():,} bytes are kept), or {job.by_hand}"
                ) from broken
            job.tell(f"{broken}; trying again in {PAUSES[failures - 1]:g} s")
            time.sleep(PAUSES[failures - 1])


def _receive(job: _Job) -> None:
    """One try: goes on where the partial file ends, or begins anew where the server sends the whole file."""
    start = job.held()
    if start and _is_whole(job):
        return
    if job.size is not None and start >= job.size:
        job.partial.unlink()
        start = 0
    with _open(job, start) as response:
        start = _checked_start(job, response, start)
        total = None if response.length is None else start + response.length
        _check_total(job, start, total)
        try:
            _append(job, response, start, job.size if total is None else total)
        except OSError as error:
            raise _write_problem(job.path, error) from error


def _is_whole(job: _Job) -> bool:
    """Whether the partial file is the whole one: not hashed where its size says that it isn't."""
    if job.size is not None and job.held() != job.size:
        return False
    return _digest(job.partial, job.checksum[0]) == job.checksum[1]


def _open(job: _Job, start: int) -> http.client.HTTPResponse:
    """The answer to a request for the bytes from `start`."""
    headers = {"User-Agent": f"ebomlc/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return _opener().open(urllib.request.Request(job.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            job.partial.unlink()
            raise _BrokenOffError(f"{job.host} has no bytes after {start:,}: starting over") from error
        raise _http_problem(job, error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _network_problem(job, error) from error


def _opener() -> urllib.request.OpenerDirector:
    """HTTP only, redirects included: the usual opener would also follow one to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _checked_start(job: _Job, response: http.client.HTTPResponse, start: int) -> int:
    """Where the bytes of this answer belong in the file; 0 where the server ignored the range."""
    if response.headers.get_content_type() == "text/html":
        raise InputError(
            f"{job.url} leads to a web page instead of a file: log in where your network asks for it, or {job.by_hand}"
        )
    if response.status != 206:
        return 0
    sent = response.headers.get("Content-Range", "")
    if not sent.startswith(f"bytes {start}-"):
        job.partial.unlink()
        raise _BrokenOffError(f"{job.host} sent other bytes than were asked for ({sent or 'it does not say which'})")
    return start


def _check_total(job: _Job, start: int, total: int | None) -> None:
    """Refuse a file of another size, and one that the disk has no room for."""
    if job.size is not None and total not in (None, job.size):
        raise InputError(
            f"{job.url} has {total:,} bytes now, expected {job.size:,}: the file on the server is another one; "
            f"{job.by_hand}"
        )
    size = job.size if total is None else total
    free = shutil.disk_usage(job.path.parent).free
    # an older partial file that is begun anew gives its room back
    room = free if start else free + job.held()
    if size is not None and size - start > room:
        raise InputError(
            f"{job.path.parent} has no room for {job.path.name}: {size - start:,} bytes are to come and {room:,} are "
            "free; free some, or choose another folder"
        )


def _append(job: _Job, response: http.client.HTTPResponse, start: int, total: int | None) -> None:
    written = start
    with (
        job.partial.open("ab" if start else "wb") as file,
        tqdm(
            total=total,
            initial=start,
            desc=job.path.name,
            unit="B",
            unit_scale=True,
            disable=True if job.say is None else None,
        ) as bar,
    ):
        while total is None or written < total:
            chunk = _read(job, response)
            if not chunk:
                break
            file.write(chunk)
            written += len(chunk)
            bar.update(len(chunk))
        _keep(file)
    if total is not None and written < total:
        raise _BrokenOffError(f"{job.host} broke off after {written:,} of {total:,} bytes")


def _read(job: _Job, response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)  # what is there: `read` would wait for the whole chunk, and lose it at a break
    except (OSError, http.client.HTTPException) as error:
        raise _network_problem(job, error) from error


def _keep(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check_partial(job: _Job) -> None:
    algorithm, expected = job.checksum
    found = _digest(job.partial, algorithm)
    if found != expected:
        job.partial.unlink()
        raise InputError(
            f"{job.url} is not the expected file: its {algorithm} is {found}, expected {expected}; what had arrived is "
            f"deleted: run this again, or {job.by_hand}"
        )


def _put_in_place(job: _Job) -> None:
    try:
        job.partial.replace(job.path)
        if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is on the disk without it
            folder = os.open(job.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise _write_problem(job.path, error) from error


def _write_problem(path: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"{path.parent} is full: what has arrived of {path.name} is kept there; free some space and run this "
            "again, or choose another folder"
        )
    return InputError(f"{path} cannot be written: {error.strerror}; choose a folder that you may write to")


def _http_problem(job: _Job, error: HTTPError) -> Exception:
    answer = f"{job.host} answers {error.code} {error.reason}"
    if error.code in BUSY:
        return _BrokenOffError(answer)
    hints = {
        404: "the file has moved or is gone",
        410: "the file is gone",
        407: "name and password of the proxy belong in http_proxy and https_proxy",
    }
    hint = hints.get(error.code, f"the server, or a firewall before it, refuses{_proxy_words(job)}")
    return InputError(f"{job.url} cannot be fetched: {' '.join(answer.split())} ({hint}); {job.by_hand}")


def _network_problem(job: _Job, error: Exception) -> Exception:
    """What came of a connection: to be tried again, unless no try can go better."""
    reason = error.reason if isinstance(error, URLError) else error
    words = " ".join(str(reason).split()) or type(reason).__name__
    if isinstance(reason, ssl.SSLCertVerificationError):
        return InputError(
            f"{job.url} cannot be fetched: the certificate of {job.host} is not trusted ({words}); check the clock, or "
            f"name the certificates of your network in SSL_CERT_FILE, or {job.by_hand}"
        )
    if isinstance(reason, str | ValueError | http.client.InvalidURL) or words.startswith("Tunnel connection failed"):
        return InputError(f"{job.url} cannot be fetched: {words}{_proxy_words(job)}; {job.by_hand}")
    return _BrokenOffError(f"the connection to {job.host} failed ({words})")


def _proxy_words(job: _Job) -> str:
    """Say that a proxy is in between, without its address, which may hold a password."""
    scheme = urlsplit(job.url).scheme
    if scheme not in urllib.request.getproxies() or urllib.request.proxy_bypass(job.host):
        return ""
    return f", through the proxy that {scheme}_proxy names"
