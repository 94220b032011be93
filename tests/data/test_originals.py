"""Files of images are found by the ids of their rows, and handed on only from folders that may be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ebomlc.config import DataConfig
from ebomlc.data.originals import find_originals, image_roots
from ebomlc.errors import InputError

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
OUTSIDE = ("../secret.png", "photos/../../secret.png", "/ABS", "link.png", "elsewhere/secret.png")
"""Ways out of the folder of a table; the last two are a link to a file and one to a folder."""


@pytest.fixture
def root(tmp_path):
    """The folder of a table, with images inside and beside it, and links to those."""
    root = tmp_path / "table"
    (root / "photos").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    for place in (root / "a.png", root / "photos/b.png", tmp_path / "secret.png", tmp_path / "private/secret.png"):
        Image.fromarray(PIXELS).save(place)
    (root / "inner.png").symlink_to(root / "a.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "elsewhere").symlink_to(tmp_path / "private")
    return root


def table_of(root, *paths):
    frame = pd.DataFrame({"id": [f"row {k}" for k in range(len(paths))], "file": paths, "label": "p"})
    frame.to_csv(root / "rows.csv", index=False)
    return DataConfig(noisy=str(root / "rows.csv"), image="file")


def test_images_inside_are_found_however_they_are_named(root):
    paths = ["a.png", "photos\\b.png", str(root / "a.png"), "photos/../a.png", "inner.png", "gone.png"]
    found = find_originals(table_of(root, *paths), [f"row {k}" for k in range(6)])
    same = ["a.png", "photos/b.png", "a.png", "a.png", "a.png", "gone.png"]
    assert [file.resolve() for file in found.values()] == [root / name for name in same]


@pytest.mark.parametrize("outside", OUTSIDE)
def test_an_image_outside_is_refused_unless_its_folder_is_allowed(root, outside):
    named = outside.replace("/ABS", str(root.parent / "secret.png"))
    config = table_of(root, "a.png", named)
    with pytest.raises(InputError, match=r"row 'row 1', .*secret\.png, lies outside of .*table: .*--images DIR"):
        find_originals(config, ["row 0", "row 1"])
    assert list(find_originals(config, ["row 0"])) == ["row 0"], "rows that nobody wants harm nobody"
    found = find_originals(config, ["row 0", "row 1"], [root.parent])
    assert np.array_equal(np.asarray(Image.open(found["row 1"])), PIXELS)


def test_how_many_are_outside_is_said(root):
    with pytest.raises(InputError, match=r"row 'row 0', .* \(and 1 more of 3 images\), lies outside"):
        find_originals(table_of(root, "../secret.png", "a.png", "link.png"), {"row 0", "row 1", "row 2"})


def test_links_in_a_folder_of_images_are_refused_too(root):
    config = DataConfig(noisy=str(root))
    (root / "photos" / "link.png").symlink_to(root.parent / "secret.png")
    for loose in ("a.png", "link.png", "inner.png", "elsewhere"):
        (root / loose).unlink()
    assert list(find_originals(config, ["photos/b.png"])) == ["photos/b.png"]
    with pytest.raises(InputError, match=r"row 'photos/link\.png'"):
        find_originals(config, ["photos/b.png", "photos/link.png"])


def test_a_dataset_keeps_its_images_in_the_cache(tmp_path):
    config = DataConfig(noisy="hf:some/set", cache_dir=str(tmp_path))
    assert image_roots(config.noisy, config)[0] == tmp_path.resolve() / "images"
