"""Frozen records that travel between rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # keeps `import ebomlc` and the label tools free of torch and pandas until they are used
    import pandas as pd
    from torch import Tensor

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
StringArray = npt.NDArray[np.str_]

NO_LABEL = -1
"""Stands for a label that is not there, wherever labels are class indices."""


GIVEN_COLUMN, CHECKED_COLUMN = "given_label", "checked_label"
PROVENANCE_COLUMN, WEIGHT_COLUMN = "provenance", "sampling_weight"
"""What columns of users' tables are called that say something about labels: see `ebomlc.data.readers.Source`."""


@dataclass(frozen=True)
class Batch:
    """Rows on their way into a training step.

    Attributes
    ----------
    inputs : Tensor, shape [n, ...]
        Encoded inputs: float features or uint8 images in NCHW order.
    given : Tensor of int64, shape [n]
        Given labels as class indices; `NO_LABEL` where a trusted row carries none.
    right : Tensor of int64, shape [n]
        Right labels; `NO_LABEL` on noisy rows, except for the method `oracle`.
    index : Tensor of int64, shape [n]
        Positions in the set the rows were drawn from.
    """

    inputs: Tensor
    given: Tensor
    right: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return Batch(self.inputs[rows], self.given[rows], self.right[rows], self.index[rows])


@dataclass(frozen=True)
class Share:
    """Which part of the rows is this process's own.

    Attributes
    ----------
    rank : int in [0, size)
        Number of this process.
    size : int >= 1
        How many processes share the rows.
    """

    rank: int = 0
    size: int = 1

    def part(self, n: int) -> slice:
        """Its own of n rows in order: the parts of all ranks are disjoint, complete and in the order of the ranks."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)


WHOLE = Share()


@dataclass(frozen=True)
class StepReport:
    """What a training step says of itself: tensors, so that reporting forces no synchronisation.

    Attributes
    ----------
    loss : Tensor, shape []
        The lower loss, before the step.
    measures : mapping of str to Tensor, shape []
        Further figures of the method, averaged over an epoch into ``metrics.csv``.
    lr : float, optional
        Learning rate of the step, where it is another than the method was told.
    """

    loss: Tensor
    measures: Mapping[str, Tensor] = field(default_factory=dict)
    lr: float | None = None


@dataclass(frozen=True)
class NoisyLabels:
    """Labels after a noise model went over them.

    Attributes
    ----------
    labels : int64 array, shape [N]
        The labels with noise, as class indices.
    transition : float array, shape [K, K], or None
        T[true, given] of the noise model; None where no fixed matrix exists (instance noise, human labels).
    measured_rate : float in [0, 1]
        Share of rows whose label differs from the true one.
    spec : str
        The noise specification, such as ``"flip:0.4"``.
    """

    labels: IntArray
    transition: FloatArray | None
    measured_rate: float
    spec: str


@dataclass(frozen=True)
class Split:
    """Disjoint positions in the pool of training rows.

    Attributes
    ----------
    noisy, trusted, heldout : int64 arrays
        Rows with given labels only; trusted rows that train; trusted rows that are only watched.
    """

    noisy: IntArray
    trusted: IntArray
    heldout: IntArray

    def arrays(self) -> dict[str, IntArray]:
        """Each part by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class LabelTable:
    """One row per sample: what the label is, what it should be, and how sure that is.

    Column names follow cleanlab where it has them. Labels are class names; a missing given label is None.

    Attributes
    ----------
    id : str array, shape [N]
        The user's own ids.
    given_label, suggested_label, predicted_label : object arrays of str, shape [N]
        The label that came with the row; the corrected one; what the main model says from the input alone.
    suggestion_confidence, predicted_confidence : float arrays in [0, 1], shape [N]
        Probability of the suggested and of the predicted label.
    label_quality : float array in [0, 1], shape [N]
        Probability that the given label is right: 0 bad, 1 good; NaN without a given label.
    is_label_issue : bool array, shape [N]
        True where the given label is called wrong: the suggested one differs and, where confidences are calibrated, the
        quality is below a cut that keeps the precision that was asked for.
    is_trusted : bool array, shape [N]
        True where somebody had checked the row; its suggestion is the checked label.
    """

    id: npt.NDArray[np.object_]
    given_label: npt.NDArray[np.object_]
    suggested_label: npt.NDArray[np.object_]
    suggestion_confidence: FloatArray
    label_quality: FloatArray
    is_label_issue: npt.NDArray[np.bool_]
    predicted_label: npt.NDArray[np.object_]
    predicted_confidence: FloatArray
    is_trusted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)

    @property
    def needs_review(self) -> npt.NDArray[np.bool_]:
        """True where another label is suggested, but not surely enough to call the given one wrong [N]."""
        is_given = np.array([label is not None for label in self.given_label], dtype=np.bool_)
        differs = is_given & (self.suggested_label != self.given_label)
        return differs & ~self.is_label_issue & ~self.is_trusted

    def to_frame(self) -> pd.DataFrame:
        """The table as a pandas DataFrame, columns in the order above."""
        import pandas as pd

        return pd.DataFrame({f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Sample:
    """A row as a person looks at it; nothing in it is escaped.

    Attributes
    ----------
    kind : {"image", "text", "row", "missing"}
        What there is to look at.
    png : bytes
        The image, as a PNG file.
    size : tuple of int
        Its width and height in pixels.
    text : str
        The text, cut.
    fields : tuple of (str, str)
        Columns and their cells: the row, or what a table says beside an image or a text.
    reason : str
        Why there is nothing to look at, in a sentence.
    """

    kind: Literal["image", "text", "row", "missing"]
    png: bytes = b""
    size: tuple[int, int] = (0, 0)
    text: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    reason: str = ""
