"""What the page asks for: rows to look at, decisions on them, and how far the review has come."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache
from threading import RLock
from typing import Any

import numpy as np

from ebomlc.errors import InputError
from ebomlc.labels.decisions import Decisions, Event
from ebomlc.records import NO_LABEL, Sample
from ebomlc.review.rows import DECIDED, OPEN, RANDOM, SKIPPED, Filter, Rows
from ebomlc.samples import Samples

MOST_CARDS, MOST_EVENTS = 60, 500
"""Rows and events that are given out at once."""

KEPT_SAMPLES = 32
"""Samples that are kept, for a picture is asked for right after what is said about it."""

BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
CONTROL_PICTURES = 0x2400

Json = dict[str, Any]


class Desk:
    """One run on the reviewer's desk. Threads may share it; other processes may decide on the same run.

    Parameters
    ----------
    rows : Rows
        What there is to review.
    decisions : Decisions
        Where decisions are kept.
    samples : Samples
        How rows look.
    reviewer : str
        Who decides.
    """

    def __init__(self, rows: Rows, decisions: Decisions, samples: Samples, reviewer: str) -> None:
        self.rows, self.reviewer = rows, reviewer
        self._decisions = decisions
        self._positions = {row: position for position, row in enumerate(rows.ids)}
        self._standing = np.full(len(rows.ids), OPEN, dtype=np.uint8)
        self._is_drawn = np.zeros(len(rows.ids), dtype=bool)
        self._newest = 0
        self._lock = RLock()
        self._sample = lru_cache(maxsize=KEPT_SAMPLES)(samples.show)
        self._catch_up()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def cards(self, order: str, wanted: Filter, *, after: int | None = None, limit: int = MOST_CARDS) -> Json:
        """The next rows of an order.

        Parameters
        ----------
        order : str
            One of `ORDERS`.
        wanted : Filter
            Which of them; random rows cannot be chosen from.
        after : int, optional
            Only rows that come later in the order than this one.
        limit : int
            At most so many; never more than `MOST_CARDS`.

        Returns
        -------
        dict
            ``cards``, how many rows there are of that kind (``matching``), and `counts`.
        """
        with self._lock:
            self._catch_up()
            rows = self.rows.order(order)
            if order == RANDOM:
                if wanted != Filter():
                    raise InputError("random rows cannot be chosen from, or they would not be random: drop the filter")
                passing = ~self._is_drawn[rows]
            else:
                passing = wanted.passes(self.rows, self._standing)[rows]
            later = passing if after is None else passing & (np.arange(len(rows)) > self._rank(rows, after))
            cards = [self._card(row) for row in rows[later][: min(limit, MOST_CARDS)].tolist()]
            return {"cards": cards, "matching": int(passing.sum()), "counts": self._counts()}

    def card(self, row: int) -> Json:
        """A row, its labels and what was decided."""
        with self._lock:
            self._catch_up()
            return self._card(self._checked(row))

    def sample(self, row: int, side: int) -> Sample:
        """A row as a person looks at it; see `ebomlc.samples`."""
        sample = self._sample(self.rows.ids[self._checked(row)], side=side)
        if sample.kind == "missing":
            self._sample.cache_clear()  # whoever puts the file back sees it
        return sample

    def history(self, limit: int = MOST_EVENTS) -> list[Json]:
        """What was decided and taken back, the newest first."""
        return [self._event(event) for event in self._decisions.history(limit=min(limit, MOST_EVENTS))]

    def counts(self) -> Json:
        """How many rows there are, how many are suspects, decided, skipped, and decided as random ones."""
        with self._lock:
            self._catch_up()
            return self._counts()

    # --- what is decided ----------------------------------------------------------------------------------------------

    def decide(self, row: int, action: str, label: int | None, mode: str, *, since: int) -> Json:
        """Keep a decision; it is on the disk when the call returns.

        Parameters
        ----------
        row : int
            Position of the row.
        action : str
            One of `ebomlc.labels.decisions.ACTIONS`.
        label : int or None
            The class that was seen and chosen; None for ``skip``.
        mode : str
            One of `MODES`. A row counts as random only if it is the next one of the random order or was drawn before.
        since : int
            Number of the newest event that the page knows of.

        Returns
        -------
        dict
            The ``event``, the ``card`` as it stands now, `counts`, and what became of rows ``elsewhere`` since.
        """
        with self._lock:
            self._catch_up()
            row_id = self.rows.ids[self._checked(row)]
            if mode == RANDOM:
                self._check_drawn(row)
            name = None if label is None else self._class_name(label)
            event = self._decisions.record(row_id, action, label=name, mode=mode, reviewer=self.reviewer)
            return self._answer(event, since)

    def undo(self, number: int | None, *, since: int) -> Json:
        """Take back the decision of that number, or this reviewer's last one; answers as `decide` does."""
        with self._lock:
            return self._answer(self._decisions.undo(number, reviewer=self.reviewer), since)

    def _answer(self, event: Event, since: int) -> Json:
        self._catch_up()
        row = self._positions[event.id]
        return {
            "event": self._event(event),
            "card": self._card(row),
            "counts": self._counts(),
            "elsewhere": self._changed(since, row),
        }

    # --- how things stand ---------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Learn what this or another process decided since."""
        latest = self._decisions.history(limit=1)
        if not latest or latest[0].number == self._newest:
            return
        events = self._decisions.history(limit=latest[0].number - self._newest)
        for row_id in {event.id for event in events}:
            decision, row = self._decisions.of(row_id), self._positions[row_id]
            self._is_drawn[row] = decision is not None and decision.provenance == RANDOM
            self._standing[row] = OPEN if decision is None else SKIPPED if decision.label is None else DECIDED
        self._newest = latest[0].number

    def _changed(self, since: int, but: int) -> list[int]:
        """Rows that somebody decided on after an event, without one."""
        if self._newest - since > MOST_EVENTS or since >= self._newest:
            return []
        rows = {self._positions[event.id] for event in self._decisions.history(limit=self._newest - since)}
        return sorted(rows - {but})

    def _counts(self) -> Json:
        open_rows = self._standing == OPEN
        return {
            "rows": len(self.rows.shuffled),
            "suspects": len(self.rows.suspects),
            "suspects_left": int(open_rows[self.rows.suspects].sum()),
            "decided": int((self._standing == DECIDED).sum()),
            "skipped": int((self._standing == SKIPPED).sum()),
            "random": int((self._is_drawn & (self._standing == DECIDED)).sum()),
            "drawn": int(self._is_drawn.sum()),
            "newest": self._newest,
        }

    # --- as JSON ------------------------------------------------------------------------------------------------------

    def _card(self, row: int) -> Json:
        rows = self.rows
        decision = self._decisions.of(rows.ids[row]) if self._standing[row] != OPEN else None
        return {
            "row": row,
            "id": visible(rows.ids[row]),
            "given": None if rows.given[row] == NO_LABEL else int(rows.given[row]),
            "suggested": int(rows.suggested[row]),
            "confidence": float(rows.confidence[row]),
            "quality": None if math.isnan(rows.quality[row]) else float(rows.quality[row]),
            "decision": None if decision is None else self._event(decision.event),
        }

    def _event(self, event: Event) -> Json:
        names = self.rows.class_names
        return {
            "number": event.number,
            "row": self._positions[event.id],
            "id": visible(event.id),
            "action": event.action,
            "label": None if event.label is None else names.index(event.label),
            "mode": event.mode,
            "reviewer": visible(event.reviewer),
            "at": event.at,
            "undoes": event.undoes,
        }

    # --- checks -------------------------------------------------------------------------------------------------------

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self.rows.ids) or self.rows.is_trusted[row]:
            raise InputError(f"row {row} is none to review in this run: load the page anew")
        return row

    def _class_name(self, label: int) -> str:
        if not 0 <= label < len(self.rows.class_names):
            raise InputError(f"class {label} is none of this run: load the page anew")
        return self.rows.class_names[label]

    def _check_drawn(self, row: int) -> None:
        """Raise InputError where counting the row as random would leave out others that were drawn before it."""
        next_drawn = self.rows.shuffled[~self._is_drawn[self.rows.shuffled]][:1]
        if not self._is_drawn[row] and row not in next_drawn:
            raise InputError("random rows are decided in their order, or they would not be random: load the page anew")

    def _rank(self, order: np.ndarray, row: int) -> int:
        found = np.flatnonzero(order == row)
        return int(found[0]) if len(found) else -1


def visible(text: str) -> str:
    """A text in which nothing hides: control characters as their pictures, marks of direction by their number."""
    return "".join(_picture(letter) for letter in text)


def _picture(letter: str) -> str:
    if letter in "\n\t":
        return letter
    if letter in BIDIRECTIONAL:
        return f"[U+{ord(letter):04X}]"
    if unicodedata.category(letter) == "Cc":
        return chr(CONTROL_PICTURES + ord(letter)) if ord(letter) < 0x20 else f"[U+{ord(letter):04X}]"
    return "\ufffd" if unicodedata.category(letter) == "Cs" else letter
