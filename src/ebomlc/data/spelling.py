"""Labels that differ only by case or blanks: one class that was typed in two ways, or two."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ebomlc.errors import InputError, listed

Spelling = Mapping[str, str]

SHOWN_GROUPS = 3

WITH_FRACTION = re.compile(r"-?\d+\.0")


def choose_spelling(columns: Iterable[npt.NDArray[np.object_]], wanted: bool | None) -> Spelling:
    """How each label is to be spelt.

    Parameters
    ----------
    columns : iterable of object arrays of str or None
        Every label of every set.
    wanted : bool, optional
        Whether labels that differ only by case, blanks or the form of their characters are one; None to ask.

    Returns
    -------
    mapping
        From a label to the most frequent spelling of its class; labels that stay as they are need not be in it.

    Raises
    ------
    InputError
        Where there are such labels and nothing is said about them.
    """
    sets = [Counter[str](label for label in column if label is not None) for column in columns]
    whole = _whole_numbers(sets)
    counts = Counter[str]()
    for labels in sets:
        for label, n in labels.items():
            counts[whole.get(label, label)] += n
    groups: dict[str, list[str]] = defaultdict(list)
    for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        groups[fold_label(label)].append(label)
    alike = [spellings for spellings in groups.values() if len(spellings) > 1]
    if not alike or wanted is False:
        return whole
    if wanted is None:
        shown = "; ".join(listed([repr(label) for label in spellings]) for spellings in alike[:SHOWN_GROUPS])
        raise InputError(
            f"labels differ only by case or blanks ({shown}): are they the same? --normalise-labels takes them as one, "
            f"--no-normalise-labels keeps them apart"
        )
    chosen = {label: spellings[0] for spellings in alike for label in spellings}
    return chosen | {label: chosen.get(number, number) for label, number in whole.items()}


def _whole_numbers(sets: Sequence[Counter[str]]) -> dict[str, str]:
    """3 for every 3.0, where whole columns are written like that beside others that are not.

    It is how pandas writes a column of whole numbers with gaps. A column that holds both 3 and 3.0 means two classes.
    """
    filled = [labels for labels in sets if labels]
    written = [labels for labels in filled if all(WITH_FRACTION.fullmatch(label) for label in labels)]
    others = [labels for labels in filled if labels not in written]
    if not others or any(WITH_FRACTION.fullmatch(label) for labels in others for label in labels):
        return {}
    return {label: label.removesuffix(".0") for labels in written for label in labels}


def fold_label(label: str) -> str:
    """A label without case, surplus blanks and forms of characters: equal for spellings of one class."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())
