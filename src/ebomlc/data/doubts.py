"""Columns that look like inputs and most likely are none: ids, checked labels, paths, numbers written in other ways."""

from __future__ import annotations

import re
from collections.abc import Set

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.object_]

FEWEST_ROWS = 20
"""In a shorter table, whole numbers that all differ are no sign of ids."""

ID_NAME = re.compile(r"(.*[\s_.-])?(id|ids|no|nr|num|number|key|index|uuid)\.?", re.IGNORECASE)
IMAGE_PATH = re.compile(r".+\.(png|jpe?g|gif|bmp|tiff?|webp)", re.IGNORECASE)
OTHER_NUMBER = re.compile(r"[-+]?\s*[$€£]?\s*\d[\d.,'\u00a0\u202f ]*\s*[%$€£]?")
MOSTLY = 0.9


def like_ids(name: str, values: npt.NDArray[np.float64], *, has_ids: bool) -> bool:
    """Whole numbers that all differ, under a name for ids; or that count the rows of a table without ids."""
    filled = values[~np.isnan(values)]
    if len(values) < FEWEST_ROWS or len(filled) < len(values) or (filled % 1 != 0).any():
        return False
    if not has_ids and (np.diff(filled) == 1).all():
        return True
    return bool(ID_NAME.fullmatch(name.strip())) and len(np.unique(filled)) == len(filled)


def like_checked_labels(filled: Cells, n_rows: int, labels: Set[str]) -> bool:
    """Words that are all labels, in a column that is mostly empty."""
    found = set(filled)
    return len(labels) > 1 and len(filled) < n_rows / 2 and bool(found) and found <= labels


def like_paths(filled: Cells) -> bool:
    """Names of image files."""
    return _mostly(filled, IMAGE_PATH)


def like_other_numbers(filled: Cells) -> bool:
    """Numbers with a decimal comma, thousands, a currency or a per cent sign."""
    return _mostly(filled, OTHER_NUMBER)


def _mostly(filled: Cells, pattern: re.Pattern[str]) -> bool:
    found = sum(pattern.fullmatch(cell.strip()) is not None for cell in filled)
    return len(filled) > 0 and found > MOSTLY * len(filled)
