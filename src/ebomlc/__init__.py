"""Train a classifier that wrong labels do not hurt, and learn which labels are wrong, from a small trusted set."""

from typing import TYPE_CHECKING, Any

from ebomlc.version import __version__

if TYPE_CHECKING:
    from ebomlc.data.memory import Arrays
    from ebomlc.errors import DataWarning, InputError
    from ebomlc.estimator import LabelCorrector
    from ebomlc.prediction import Classifier, Predictions, load_classifier, predict
    from ebomlc.run import Run, fit

__all__ = [
    "Arrays",
    "Classifier",
    "DataWarning",
    "InputError",
    "LabelCorrector",
    "Predictions",
    "Run",
    "__version__",
    "fit",
    "load_classifier",
    "predict",
]

_ROOMS = {
    "Arrays": "ebomlc.data.memory",
    "Classifier": "ebomlc.prediction",
    "DataWarning": "ebomlc.errors",
    "InputError": "ebomlc.errors",
    "LabelCorrector": "ebomlc.estimator",
    "Predictions": "ebomlc.prediction",
    "Run": "ebomlc.run",
    "fit": "ebomlc.run",
    "load_classifier": "ebomlc.prediction",
    "predict": "ebomlc.prediction",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute
    """Import on first use, so that ``import ebomlc`` costs nothing."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ROOMS[name]), name)
