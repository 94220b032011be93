"""Inputs that once broke a reader, by target, and what happened."""

from __future__ import annotations

from tests.torture.fuzz.targets import TARGETS

_NPY = TARGETS["npy"].seeds[0]

REGRESSIONS: dict[str, tuple[bytes, ...]] = {
    "npy": (
        b"",  # EOFError, which the command line took for a Ctrl-C
        b"PK\x03\x04",  # taken for an archive of arrays, which has no shape
        _NPY[:53] + _NPY[61:],  # numpy's tokenizer: EOF in multi-line statement
    ),
    "config": (
        b"a = " + b"[" * 10_000,  # RecursionError
        b"[model]\nhidden = [1000000000000]\n[data]\nnoisy = 'digits'\n",  # an allocation of terabytes
        b"seed = 99999999999999999999\n[data]\nnoisy = 'digits'\n",
    ),
}
