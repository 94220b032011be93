"""A finished run handed to other tools: its labels with people's decisions, its rows, its classifier."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ebomlc.data.inputs import Inputs
from ebomlc.data.originals import find_originals
from ebomlc.data.output import OUT_SUFFIXES, check_output
from ebomlc.data.output_folder import new_output_folder
from ebomlc.data.pool import load_pool
from ebomlc.environment import commit
from ebomlc.errors import DataWarning, InputError, listed, unknown_name
from ebomlc.labels.export import Contents, decided_table, write_cleanlab, write_labels
from ebomlc.labels.export_huggingface import write_huggingface
from ebomlc.labels.export_images import write_image_folders
from ebomlc.labels.export_label_studio import local_files_root, write_label_studio
from ebomlc.records import LabelTable
from ebomlc.reviewed import load_reviewed, read_decided, read_labels
from ebomlc.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from ebomlc.prediction import Classifier

FOLDER = "export"
"""Where exports go in a run folder, unless another place is named."""

FILES = {
    "csv": ("labels.csv", OUT_SUFFIXES),
    "parquet": ("labels.parquet", (".parquet",)),
    "onnx": ("model.onnx", (".onnx",)),
}
"""Formats that are one file: what it is called in a folder, and what its name may end with."""


@dataclass(frozen=True)
class _Finished:
    """What every export of labels starts from."""

    run: Path
    labels: LabelTable
    class_names: tuple[str, ...]
    frame: pd.DataFrame
    link: bool = False
    images: Sequence[Path] = ()


def export(
    run: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    best_guess: bool = False,
    link: bool = False,
    images: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> str:
    """Write what a run found in a form that another tool reads.

    Parameters
    ----------
    run : str or Path
        Run folder.
    to : str
        One of `FORMATS`.
    out : str or Path, optional
        File or folder to write; by default one below ``export/`` in the run folder.
    best_guess : bool
        The final label of a row that nobody looked at is the suggested one, sure or not.
    link : bool
        Of ``imagefolder``: links instead of copies.
    images : sequence of str or Path
        Folders that images which are handed on may lie in, beside that of the set or of its table.
    overwrite : bool
        Replace an earlier export; anything else is never touched.

    Returns
    -------
    str
        Lines that say what was written.

    Raises
    ------
    InputError
        Where the run or its rows cannot be read, or the place not be written to.
    """
    if to not in FORMATS:
        raise unknown_name("format", to, FORMATS)
    if link and to != "imagefolder":
        raise InputError(f"--link is for imagefolder: leave it out with --to {to}")
    run = Path(run)
    place = _place(run, to, None if out is None else Path(out))
    if to in FILES:
        check_output(place, overwrite, suffixes=FILES[to][1])
        return _export_onnx(run, place) if to == "onnx" else _export_table(run, place, best_guess)
    found = replace(_read(run, best_guess), link=link, images=[Path(folder) for folder in images])
    description = {"format": to, "run": str(run.resolve()), "ebomlc": __version__, "commit": commit()}
    with new_output_folder(place, overwrite, {**description, "label_sources": _sources(found.frame)}) as folder:
        said = FOLDERS[to](found, folder)
    return f"written to {place}: {said}\n{_say_sources(found.frame)}"


def _place(run: Path, to: str, out: Path | None) -> Path:
    """The file or folder to write; a file may be named by its folder."""
    if to not in FILES:
        return out or run / FOLDER / to
    name, suffixes = FILES[to]
    folder = out or run / FOLDER
    return folder if folder.suffix.lower() in suffixes or folder.is_file() else folder / name


def _read(run: Path, best_guess: bool) -> _Finished:
    labels, class_names = read_labels(run)
    decided = read_decided(run, labels, class_names)
    return _Finished(run, labels, class_names, decided_table(labels, decided, best_guess=best_guess))


def _sources(frame: pd.DataFrame) -> dict[str, int]:
    return dict(Counter(frame["label_source"]))


def _say_sources(frame: pd.DataFrame) -> str:
    counts = _sources(frame)
    names = {"decision": "decided by people", "trusted": "trusted", "suggested": "as suggested", "given": "as given"}
    shown = ", ".join(f"{counts[key]:,} {said}" for key, said in names.items() if key in counts)
    return f"final labels: {shown}; the given ones stand beside them"


# --- files ------------------------------------------------------------------------------------------------------------


def _export_table(run: Path, place: Path, best_guess: bool) -> str:
    found = _read(run, best_guess)
    write_labels(found.frame, place)
    return f"{len(found.frame):,} rows written to {place}\n{_say_sources(found.frame)}"


def _export_onnx(run: Path, place: Path) -> str:
    from ebomlc.models.onnx import export_onnx
    from ebomlc.prediction import load_classifier

    classifier = load_classifier(run, device="cpu")
    model, example, inputs = classifier.exportable()
    place.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, example, place, classifier.class_names)
    size = " x ".join(map(str, example.shape[1:]))
    return f"written to {place}: from {inputs} [rows, {size}] to probabilities [rows, {len(classifier.class_names):,}]"


# --- folders ----------------------------------------------------------------------------------------------------------


def _export_label_studio(found: _Finished, folder: Path) -> str:
    classifier, contents = _read_rows(found)
    n = write_label_studio(found.frame, contents, found.class_names, classifier.config.method.name, folder)
    root = local_files_root(contents)
    served = f"; start Label Studio with LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}" if root is not None else ""
    return f"{n:,} open rows as tasks.json, the most doubtful first, and config.xml for the labelling interface{served}"


def _export_cleanlab(found: _Finished, folder: Path) -> str:
    classifier, inputs = _read_inputs(found)
    n = write_cleanlab(found.frame, classifier.probabilities(inputs), found.class_names, folder)
    return f"{n:,} rows with a given label as pred_probs.npy and labels.csv"


def _export_huggingface(found: _Finished, folder: Path) -> str:
    n = write_huggingface(found.frame, _read_rows(found)[1], found.class_names, folder)
    return f"{n:,} rows for datasets.load_from_disk"


def _export_image_folders(found: _Finished, folder: Path) -> str:
    n = write_image_folders(found.frame, _read_rows(found)[1], folder, link=found.link)
    return f"{n:,} images {'linked' if found.link else 'copied'} into {found.frame['final_label'].nunique():,} classes"


FOLDERS: dict[str, Callable[[_Finished, Path], str]] = {
    "label-studio": _export_label_studio,
    "cleanlab": _export_cleanlab,
    "huggingface": _export_huggingface,
    "imagefolder": _export_image_folders,
}
FORMATS = (*FILES, *FOLDERS)


def _read_rows(found: _Finished) -> tuple[Classifier, Contents]:
    """The classifier, and the rows of the label table with the files of their images.

    Raises
    ------
    InputError
        Where the sources are gone or changed, or an image lies in a folder that nobody allowed.
    """
    classifier, inputs = _read_inputs(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        originals = find_originals(classifier.config.data, found.labels.id, found.images)
    return classifier, Contents(inputs, tuple(originals.get(row) for row in found.labels.id))


def _read_inputs(found: _Finished) -> tuple[Classifier, Inputs]:
    """The classifier, and the rows of the label table as they were read for the run."""
    from ebomlc.prediction import load_classifier  # torch takes seconds, and tables of labels need none

    classifier = load_classifier(found.run, device="cpu")
    data = classifier.config.data
    if classifier.like.kind == "images":
        data = replace(data, image_size=classifier.like.values.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # they were given when the run was made
        pool = load_pool(data, classifier.config.seed, objects=load_reviewed(data.add_reviewed))
    position = {row: k for k, row in enumerate(pool.ids)}
    gone = [row for row in found.labels.id if row not in position]
    if gone:
        raise InputError(
            f"{len(gone)} of {len(found.labels)} rows of {found.run} are not in {data.noisy} any more "
            f"({listed(gone)}): put them back, or take --to csv, which needs no rows"
        )
    return classifier, pool.inputs.take(np.array([position[row] for row in found.labels.id], dtype=np.int64))
