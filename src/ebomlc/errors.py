"""The two errors a user can meet, and the hint that goes with a misspelt name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used: says what, where, and what to do. The command line exits with 2."""


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite before any epoch was finished, so there is nothing to keep."""


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
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}: {hint}known: {', '.join(names)}")
