"""Fuzz one reader, guided by coverage: ``python -m tests.torture.fuzz.run TARGET MINUTES``.

Ends with a status other than 0 at the first crash, which atheris prints and leaves in a file ``crash-...`` of the
working folder: mend it, and add its bytes to ``regressions.py``.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ebomlc", "csv", "json", "tomllib", "pickle", "gzip", "zipfile", "numpy.lib"]):
    from tests.torture.fuzz.targets import TARGETS, survives


def main() -> None:
    """Run until the time is up."""
    name, minutes = sys.argv[1], float(sys.argv[2])
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as corpus:
        for k, seed in enumerate(TARGETS[name].seeds):
            Path(corpus, str(k)).write_bytes(seed)
        options = [f"-max_total_time={round(60 * minutes)}", "-rss_limit_mb=2048", "-timeout=20", "-max_len=4096"]
        atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", corpus], lambda data: survives(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
