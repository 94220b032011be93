"""Train a classifier that wrong labels do not hurt, and learn which labels are wrong, from a small trusted set."""

from typing import TYPE_CHECKING, Any

from ebomlc.version import __version__

if TYPE_CHECKING:
    from ebomlc.run import Run, fit

__all__ = ["Run", "__version__", "fit"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute
    """Import on first use, so that ``import ebomlc`` costs nothing."""
    if name not in ("Run", "fit"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ebomlc import run

    return getattr(run, name)
