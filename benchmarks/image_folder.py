"""Write CIFAR-10 as the folders of images that a user would have, some of them in the wrong folder.

    python benchmarks/image_folder.py OUT --data-dir DIR
    python benchmarks/image_folder.py OUT --data-dir DIR --n 10000 --wrong 0.4 --checked 500

OUT/photos/CLASS/NAME.png   training images, `wrong` of them under a class that is not theirs
OUT/checked.csv             id (the path below photos) and right label of some of them, drawn at random
OUT/truth.csv               id and right label of all of them
OUT/test/CLASS/NAME.png     test images, all in the right folder

Names are numbers in the order of drawing, and say nothing of the class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ebomlc.data.official import load_cifar10


def write_images(folder: Path, images: np.ndarray, classes: list[str]) -> list[str]:
    """Write images [n, 3, 32, 32] below a folder, each under its class; their paths below it."""
    ids = [f"{name}/{row:05d}.png" for row, name in enumerate(classes)]
    for name in sorted(set(classes)):
        (folder / name).mkdir(parents=True)
    for path, image in zip(ids, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / path)
    return ids


def misplace(labels: np.ndarray, wrong: float, n_classes: int, generator: np.random.Generator) -> np.ndarray:
    """Labels of which a share, rounded to whole images, is replaced by one of the others, all equally likely."""
    moved = generator.permutation(len(labels))[: round(wrong * len(labels))]
    given = labels.copy()
    given[moved] = (labels[moved] + generator.integers(1, n_classes, len(moved))) % n_classes
    return given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--wrong", type=float, default=0.3, help="share of the training images")
    parser.add_argument("--checked", type=int, default=200)
    parser.add_argument("--n-test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    if not (0 <= options.wrong <= 1 and 0 < options.checked <= options.n):
        parser.error("--wrong must be in [0, 1] and --checked in [1, n]")

    official, generator = load_cifar10(options.data_dir), np.random.default_rng(options.seed)
    if options.n > len(official.train_labels) or options.n_test > len(official.test_labels):
        parser.error(f"there are {len(official.train_labels)} training and {len(official.test_labels)} test images")
    names = np.array(official.class_names)
    train = generator.permutation(len(official.train_labels))[: options.n]
    test = generator.permutation(len(official.test_labels))[: options.n_test]
    right = official.train_labels[train]
    given = misplace(right, options.wrong, len(names), generator)
    ids = write_images(options.out / "photos", official.train_inputs[train], names[given].tolist())
    write_images(options.out / "test", official.test_inputs[test], names[official.test_labels[test]].tolist())

    truth = pd.DataFrame({"id": ids, "label": names[right]})
    checked = np.sort(generator.permutation(options.n)[: options.checked])
    truth.to_csv(options.out / "truth.csv", index=False)
    truth.iloc[checked].to_csv(options.out / "checked.csv", index=False)
    print(f"{options.out}: {options.n} images, {(given != right).sum()} in a wrong folder, {options.checked} checked")


if __name__ == "__main__":
    main()
