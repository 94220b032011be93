"""JSON files that this package wrote, read so that one from somebody else can do no harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_document(path: Path) -> dict[str, Any]:
    """What a JSON file says, by name.

    Raises
    ------
    OSError, ValueError
        Where it is missing, damaged, or holds anything but an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name}: too many brackets") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: holds no object")
    return content
