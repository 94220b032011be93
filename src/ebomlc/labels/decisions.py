"""What people decided about rows of a run: an SQLite file that only grows, so that nothing is lost or rewritten."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, Self

from ebomlc.errors import InputError, listed, nearest_name, unknown_name
from ebomlc.records import LabelTable
from ebomlc.seeding import numpy_generator
from ebomlc.version import __version__

ACTIONS = ("accept", "keep", "other", "skip")
"""The suggested label is right; the given one is; another class is; cannot say."""

MODES = ("random", "suspect")
"""The order in which a row was shown; only rows shown at random may feed the noise rate."""

UNDO = "undo"

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""

NO_STORE, REPAIR = "holds something else than decisions", "move it away, or name another run"

SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('accept', 'keep', 'other', 'skip', 'undo')),
    label TEXT,
    mode TEXT NOT NULL CHECK (mode IN ('random', 'suspect')),
    given_label TEXT,
    suggested_label TEXT NOT NULL,
    confidence REAL NOT NULL,
    reviewer TEXT NOT NULL,
    at TEXT NOT NULL,
    version TEXT NOT NULL,
    undoes INTEGER UNIQUE REFERENCES events (number),
    CHECK ((label IS NULL) = (action IN ('skip', 'undo'))),
    CHECK ((undoes IS NOT NULL) = (action = 'undo'))
) STRICT;
CREATE INDEX events_of_a_row ON events (id);
"""

STANDING = "action != 'undo' AND number NOT IN (SELECT undoes FROM events WHERE undoes IS NOT NULL)"


@dataclass(frozen=True)
class Event:
    """One line of the history, which never changes.

    Attributes
    ----------
    number : int, >= 1
        In the order of time.
    id : str
        Of the row.
    action : str
        One of `ACTIONS`, or `UNDO`.
    label : str or None
        The right one, says the reviewer; None for ``skip`` and `UNDO`.
    mode : str
        One of `MODES`.
    given_label : str or None
        As it was seen.
    suggested_label : str
        As it was seen.
    confidence : float in [0, 1]
        Of the suggestion, as it was seen.
    reviewer, at, version : str
        Who; when, UTC by ISO 8601; of which version of this package.
    undoes : int or None
        Number of the event that this one takes back.
    """

    number: int
    id: str
    action: str
    label: str | None
    mode: str
    given_label: str | None
    suggested_label: str
    confidence: float
    reviewer: str
    at: str
    version: str
    undoes: int | None


COLUMNS = ", ".join(f.name for f in fields(Event))


@dataclass(frozen=True)
class Decision:
    """What stands for a row.

    Attributes
    ----------
    event : Event
        The row's latest one that nobody took back; it may be a skip.
    provenance : str
        ``random`` where any standing event of the row came from a random order, else ``suspect``: a row of the random
        sample stays one when somebody looks at it again.
    """

    event: Event
    provenance: str

    @property
    def id(self) -> str:
        """Of the row."""
        return self.event.id

    @property
    def label(self) -> str | None:
        """The right label; None for a skip."""
        return self.event.label


@dataclass(frozen=True)
class Progress:
    """How many rows stand as what.

    Attributes
    ----------
    decided, skipped : int
        Rows with a label, rows whose latest event is a skip.
    actions : mapping of str to int
        Rows by action.
    modes : mapping of str to int
        Decided rows by provenance.
    """

    decided: int
    skipped: int
    actions: Mapping[str, int]
    modes: Mapping[str, int]


class Decisions:
    """The decisions on the rows of one run.

    Threads may share it, and other processes may hold the same file: every change is one transaction, on the disk when
    the call returns, and waits for its turn.

    Parameters
    ----------
    path : Path
        The file; made where there is none.
    labels : LabelTable
        Of the run.
    class_names : tuple of str
        Of the run.
    seed : int
        Of the random order; only read when the file is made.

    Raises
    ------
    InputError
        For a file that cannot be used, is of another version, or speaks of rows that the run does not have.
    """

    def __init__(self, path: Path, labels: LabelTable, class_names: tuple[str, ...], *, seed: int = 0) -> None:
        self.path, self.class_names = path, class_names
        self._labels = labels
        self._positions = {row: position for position, row in enumerate(labels.id)}
        self._lock = RLock()
        self._connection = _open(path, seed)
        self._check_rows()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # --- changes ------------------------------------------------------------------------------------------------------

    def record(self, id: str, action: str, *, label: str | None = None, mode: str, reviewer: str) -> Event:
        """Keep a decision.

        Parameters
        ----------
        id : str
            Of a row that is not trusted.
        action : str
            One of `ACTIONS`.
        label : str, optional
            What the reviewer saw and chose: with ``accept`` the suggested label, with ``keep`` the given one, with
            ``other`` any class (the given or the suggested one is then kept as what it is); None with ``skip``.
        mode : str
            One of `MODES`.
        reviewer : str
            Who decided.

        Returns
        -------
        Event
            On the disk by now.

        Raises
        ------
        InputError
            For a row, a class or a name that the run does not have, and a label that is not what the run says.
        """
        for kind, name, known in (("action", action, ACTIONS), ("mode", mode, MODES)):
            if name not in known:
                raise unknown_name(kind, name, known)
        row = self._position(id)
        action = self._checked_action(row, action, label)
        with self._transaction():
            return self._insert(self._seen(row, action, label, mode), reviewer)

    def undo(self, number: int | None = None, *, reviewer: str) -> Event:
        """Take a decision back; an earlier one on the same row stands again.

        Parameters
        ----------
        number : int, optional
            Of the event; by default the latest one of the reviewer that still stands.
        reviewer : str
            Who takes it back.

        Raises
        ------
        InputError
            Where there is nothing to take back, or it has been taken back.
        """
        with self._transaction():
            found = self._standing("reviewer = ?", reviewer) if number is None else self._standing("number = ?", number)
            if not found:
                what = (
                    f"{reviewer!r} has no decision" if number is None else f"decision {number} does not stand or is not"
                )
                raise InputError(f"{self.path}: {what} there to undo: load the page anew to see what stands")
            event = found[-1]
            return self._insert(replace(event, action=UNDO, label=None, undoes=event.number), reviewer)

    # --- what stands --------------------------------------------------------------------------------------------------

    def latest(self) -> dict[str, Decision]:
        """What stands for each row that has any, in the order of the events."""
        return _decisions(self._standing("TRUE"))

    def of(self, id: str) -> Decision | None:
        """What stands for a row."""
        return _decisions(self._standing("id = ?", id)).get(id)

    def history(self, id: str | None = None, *, limit: int | None = None) -> list[Event]:
        """Every event of a row, or of all, the newest first."""
        where, values = ("TRUE", ()) if id is None else ("id = ?", (id,))
        return self._events(f"WHERE {where} ORDER BY number DESC LIMIT ?", *values, -1 if limit is None else limit)

    def progress(self) -> Progress:
        """How many rows are decided, as things stand."""
        standing = self.latest().values()
        decided = [decision for decision in standing if decision.label is not None]
        actions = Counter(decision.event.action for decision in standing)
        modes = Counter(decision.provenance for decision in decided)
        return Progress(
            decided=len(decided),
            skipped=len(standing) - len(decided),
            actions={action: actions[action] for action in ACTIONS},
            modes={mode: modes[mode] for mode in MODES},
        )

    def random_order(self) -> list[str]:
        """Ids of all rows that are not trusted, in an order whose every beginning is a random sample of them."""
        ids = self._labels.id[~self._labels.is_trusted]
        ((seed,),) = self._select("SELECT value FROM settings WHERE name = 'seed'")
        return numpy_generator(seed, "rows to review").permutation(ids).tolist()

    # --- checks -------------------------------------------------------------------------------------------------------

    def _position(self, id: str) -> int:
        if id not in self._positions:
            near = nearest_name(id, self._positions) if len(self._positions) <= 10_000 else None
            hint = f"did you mean {near!r}?" if near else "was the page made for another run?"
            raise InputError(f"{self.path}: no row of the run has the id {id!r}: {hint}")
        return self._positions[id]

    def _checked_action(self, row: int, action: str, label: str | None) -> str:
        """The action, by its own name where ``other`` says what ``keep`` or ``accept`` says."""
        name, given, suggested = (getattr(self._labels, c)[row] for c in ("id", "given_label", "suggested_label"))
        if self._labels.is_trusted[row]:
            raise InputError(f"{self.path}: {name!r} is a trusted row: its label was checked before; correct it there")
        if action == "skip":
            if label is not None:
                raise InputError(f"{self.path}: {name!r} is skipped, so it gets no label; but {label!r} was sent")
            return action
        if label not in self.class_names:
            raise unknown_name("class", label or "(none)", self.class_names)
        seen = {"accept": suggested, "keep": given}
        if action in seen and label != seen[action]:
            raise InputError(
                f"{self.path}: {action} of {name!r} stands for {seen[action]!r} in this run, not for {label!r}: "
                f"load the page anew"
            )
        return next((action for action, known in seen.items() if label == known), action)

    def _check_rows(self) -> None:
        """Raise InputError where the file speaks of rows or classes of another run."""
        for column, known in (("id", self._positions), ("label", self.class_names)):
            decided = [name for (name,) in self._select(f"SELECT DISTINCT {column} FROM events ORDER BY number")]
            strange = [name for name in decided if name is not None and name not in known]
            if strange:
                self.close()
                raise InputError(
                    f"{self.path}: decisions name a {column} that the run does not have ({listed(strange)}): another "
                    f"run was written to the folder since; move the file away to start anew"
                )

    # --- SQL ----------------------------------------------------------------------------------------------------------

    def _seen(self, row: int, action: str, label: str | None, mode: str) -> Event:
        """An event as far as it is known before it is kept."""
        labels = self._labels
        confidence = float(labels.suggestion_confidence[row])
        seen = (labels.given_label[row], labels.suggested_label[row], confidence)
        return Event(
            0, labels.id[row], action, label, mode, *seen, reviewer="", at="", version=__version__, undoes=None
        )

    def _insert(self, event: Event, reviewer: str) -> Event:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = replace(event, reviewer=reviewer, at=at, version=__version__)
        _, *values = astuple(event)
        marks = ", ".join("?" * len(values))
        done = self._connection.execute(
            f"INSERT INTO events ({COLUMNS.removeprefix('number, ')}) VALUES ({marks})", values
        )
        return replace(event, number=done.lastrowid or 0)

    def _standing(self, where: str, *values: object) -> list[Event]:
        return self._events(f"WHERE {STANDING} AND {where} ORDER BY number", *values)

    def _events(self, clause: str, *values: object) -> list[Event]:
        return [Event(*row) for row in self._select(f"SELECT {COLUMNS} FROM events {clause}", *values)]

    def _select(self, query: str, *values: object) -> list[Any]:
        with self._lock, _usable(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, and nobody else's in between."""
        with self._lock, _usable(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def read_decisions(path: Path, labels: LabelTable, class_names: tuple[str, ...]) -> dict[str, Decision]:
    """What stands in a file of decisions; nothing where there is no such file, which is not made then."""
    if not path.exists():
        return {}
    with Decisions(path, labels, class_names) as decisions:
        return decisions.latest()


def _decisions(events: list[Event]) -> dict[str, Decision]:
    """From standing events in the order of time to what stands for each row."""
    found: dict[str, Decision] = {}
    for event in events:
        before = found.pop(event.id, None)
        was_random = before is not None and before.provenance == "random"
        found[event.id] = Decision(event, "random" if was_random else event.mode)
    return found


# --- the file ---------------------------------------------------------------------------------------------------------


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """What SQLite says about the file as an error that a user can act on."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise InputError(f"{path}: cannot be used ({error}); is there room, and may you write there?") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise InputError(f"{path}: {NO_STORE} ({error}); {REPAIR}") from error


def _open(path: Path, seed: int) -> sqlite3.Connection:
    with _usable(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with _usable(path):
            # WAL: a reader waits for no writer; FULL: what was decided survives a power cut
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}")
            _make_tables(connection, path, seed)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection, path: Path, seed: int) -> None:
    connection.execute("BEGIN IMMEDIATE")  # two processes may both find no table
    ((version,),) = connection.execute("PRAGMA user_version")
    ((n_tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if version == 0 and n_tables:
        raise InputError(f"{path}: {NO_STORE}; {REPAIR}")
    if version not in (0, SCHEMA_VERSION):
        raise InputError(
            f"{path}: written in version {version} of the file format, but this is ebomlc {__version__} with version "
            f"{SCHEMA_VERSION}: use the version of ebomlc that wrote it"
        )
    if version == 0:
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO settings VALUES ('seed', ?)", (seed,))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
