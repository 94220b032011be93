"""One cell in a process of its own: ``python -m ebomlc.bench.worker RECORD OUT``; what `ebomlc.bench.grid` starts.

Its peak memory is then the run's, a crash takes nothing else along, and standard input tells it when to give up: the
pipe is closed when whoever started it stops or dies.
"""

from __future__ import annotations

import _thread
import json
import os
import sys
import threading
from pathlib import Path

from ebomlc.config import RunConfig, build
from ebomlc.errors import InputError, TrainingDivergedError
from ebomlc.run import run

FAILED = 1


def main(record: Path, out: Path) -> int:
    """Run what a record asks for; returns the exit code, and says on standard error what went wrong."""
    threading.Thread(target=_interrupt_when_left, daemon=True).start()
    try:
        config = json.loads(record.read_text(encoding="utf-8"))["config"]
        run(build(RunConfig, config, str(record)), out, resume=True)
    except (InputError, TrainingDivergedError) as error:
        print(error, file=sys.stderr)
        return FAILED
    return 0


def _interrupt_when_left() -> None:
    """Interrupt the run once standard input ends, so that it writes a checkpoint to go on from."""
    # not sys.stdin: a thread that waits in its lock would keep the interpreter from ending
    while os.read(0, 1):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
