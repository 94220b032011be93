"""Methods by name; importing this package fills the registry."""

from ebomlc.methods import ebomlc, mlc, supervised
from ebomlc.methods.base import METHODS, Entry, EpochContext, Method, Setup, StepContext, find_method

__all__ = [
    "METHODS",
    "Entry",
    "EpochContext",
    "Method",
    "Setup",
    "StepContext",
    "ebomlc",
    "find_method",
    "mlc",
    "supervised",
]
