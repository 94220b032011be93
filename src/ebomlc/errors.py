"""The errors and the warning a user can meet, and the hint that goes with a misspelt name."""

import difflib
from collections.abc import Iterable, Sequence
from itertools import takewhile

LIKENESS = 0.6
"""Share of letters that a name must have in common with another to be suggested for it."""

SHOWN_NAMES = 12
"""A list of names in a message is cut after so many."""


class InputError(ValueError):
    """Something the user gave cannot be used: says what, where, and what to do. The command line exits with 2."""


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite before any epoch was finished, so there is nothing to keep."""


class RankLostError(RuntimeError):
    """Another process of a run on several is gone, or failed, and this one cannot go on without it."""


class DataWarning(UserWarning):
    """Something about the data that a user should know and that does not stop the run."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Error for a name outside a list, with the nearest known name.

    Parameters
    ----------
    kind : str
        What the name stands for, such as ``"method"``.
    name : str
        What the user wrote.
    known : iterable of str
        The names that would have been understood.

    Returns
    -------
    InputError
        To be raised by the caller.
    """
    names = sorted(known)
    near = nearest_name(name, names)
    hint = f"did you mean {near!r}? " if near is not None else ""
    return InputError(f"unknown {kind} {name!r}: {hint}known: {listed(names)}")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, whatever the case of its letters; None where none does."""
    alike = {candidate: _likeness(name.lower(), candidate.lower()) for candidate in known}
    near = max(alike, key=lambda candidate: alike[candidate], default=None)
    return near if near is not None and alike[near][0] >= LIKENESS else None


def _likeness(name: str, candidate: str) -> tuple[float, int]:
    """Share of the letters in common; between equals, how many there are in common from the start."""
    same = takewhile(lambda letters: letters[0] == letters[1], zip(name, candidate, strict=False))
    return difflib.SequenceMatcher(None, name, candidate).ratio(), len(list(same))


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, cut after `SHOWN_NAMES`."""
    rest = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")
