"""Labels that differ only by case or blanks: one class that was typed in two ways, or two."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from ebomlc.errors import InputError, listed

Spelling = Mapping[str | None, str]

SHOWN_GROUPS = 3


def choose_spelling(columns: Iterable[npt.NDArray[np.object_]], wanted: bool | None) -> Spelling | None:
    """How each label is to be spelt.

    Parameters
    ----------
    columns : iterable of object arrays of str or None
        Every label of every set.
    wanted : bool, optional
        Whether labels that differ only by case, blanks or the form of their characters are one; None to ask.

    Returns
    -------
    mapping or None
        From a label to the most frequent spelling of its class; None where every label stays as it is.

    Raises
    ------
    InputError
        Where there are such labels and nothing is said about them.
    """
    counts = Counter[str]()
    for column in columns:
        counts.update(label for label in column if label is not None)
    groups: dict[str, list[str]] = defaultdict(list)
    for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        groups[_plain(label)].append(label)
    alike = [spellings for spellings in groups.values() if len(spellings) > 1]
    if not alike or wanted is False:
        return None
    if wanted is None:
        shown = "; ".join(listed([repr(label) for label in spellings]) for spellings in alike[:SHOWN_GROUPS])
        raise InputError(
            f"labels differ only by case or blanks ({shown}): are they the same? --normalise-labels takes them as one, "
            f"--no-normalise-labels keeps them apart"
        )
    return {label: spellings[0] for spellings in alike for label in spellings}


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())
