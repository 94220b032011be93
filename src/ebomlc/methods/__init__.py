"""Methods by name; importing this package fills the registry."""

from ebomlc.methods import ebomlc, emlc, head, mlc, mslc, plus, reweight, supervised, transition
from ebomlc.methods.base import METHODS, Entry, EpochContext, Method, Setup, StepContext, find_method

__all__ = [
    "METHODS",
    "Entry",
    "EpochContext",
    "Method",
    "Setup",
    "StepContext",
    "ebomlc",
    "emlc",
    "find_method",
    "head",
    "mlc",
    "mslc",
    "plus",
    "reweight",
    "supervised",
    "transition",
]
