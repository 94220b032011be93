"""Real processes that talk to each other by gloo, each with its own part of a job."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ebomlc.training import distributed

SECONDS = 300
"""That all processes of a test may take; on a busy machine each is slow, but none hangs."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    figures = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {**{name: str(value) for name, value in figures.items()}, "MASTER_ADDR": "127.0.0.1"}


def start(size: int, work: Callable[..., Any], folder: Path) -> list[multiprocessing.process.BaseProcess]:
    """Begin `work(ranks)` in so many processes; what each gives is kept in the folder, or what it failed with."""
    context, port = multiprocessing.get_context("fork"), free_port()
    processes = [context.Process(target=_run, args=(rank, size, port, work, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    return processes


def on_ranks(size: int, work: Callable[..., Any], folder: Path) -> list[Any]:
    """What `work(ranks)` gives in each of so many processes: tensors, numbers, strings, and dicts and lists of them."""
    processes = start(size, work, folder)
    for process in processes:
        process.join(SECONDS)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, "a process hangs"
    return [outcome(folder, rank) for rank in range(size)]


def outcome(folder: Path, rank: int) -> Any:
    failed = folder / f"failed-{rank}"
    assert not failed.exists(), failed.read_text()
    return torch.load(folder / f"outcome-{rank}", weights_only=True)


def _run(rank: int, size: int, port: int, work: Callable[..., Any], folder: Path) -> None:
    try:
        torch.set_num_threads(1)
        os.environ.update(environment(rank, size, port))
        with distributed.join() as ranks:
            torch.save(work(ranks), folder / f"outcome-{rank}")
    except BaseException:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)
