"""Inputs that once broke a reader, by target, and what happened."""

from __future__ import annotations

from tests.torture.fuzz.targets import TARGETS

_HUMAN, _NPY = TARGETS["human"].seeds[0], TARGETS["npy"].seeds[0]

REGRESSIONS: dict[str, tuple[bytes, ...]] = {
    "idx": (
        b"\0\0\x08\x03\0\x28\0\0\x02\0\0\0\x03\0\0\0",  # sizes whose product is 0 in 64 bits
        b"\0\0\x08\x03\xc0\xff\xff\xfb\xff\xff\xff\xfc\0\0\0\0",  # no values, in a shape beyond 64 bits
        b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"\0",  # more dimensions than an array can have
    ),
    "human": (_HUMAN.replace(b"PK\x01\x02-\x03-", b"PK\x01\x02-\x03\xa8"),),  # a ZIP of version 16.8
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
