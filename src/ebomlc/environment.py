"""On what a result was computed: commit, versions, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from ebomlc.version import __version__


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that decide the figures."""
    libraries = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
    return {"ebomlc": __version__, "python": platform.python_version(), **libraries}


def commit() -> str | None:
    """Commit of the source that runs, with ``+changes`` where the tree differs; None outside a checkout of it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory_mb() -> float | None:
    """Most memory that this process has held so far, in MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def available_memory_mb(device: str = "cpu") -> float | None:
    """Memory that could be taken now, in MiB, of the processor or of the current GPU; None where it is not told."""
    if device != "cpu":
        import torch

        return torch.cuda.mem_get_info()[0] / 2**20
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("MemAvailable:")), None)
