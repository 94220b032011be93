"""Several processes with a part of each batch do what one does with all of it."""

from __future__ import annotations

import copy
import os
import signal
import time

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call

from ebomlc.bilevel import SGD, frozen_statistics
from ebomlc.bilevel.hypergradient import directional_derivative
from ebomlc.config import TrainingConfig
from ebomlc.data.loader import PairedLoader
from ebomlc.errors import InputError
from ebomlc.methods import METHODS, Setup
from ebomlc.models import MainModel
from ebomlc.models.backbones import GlobalAverage
from ebomlc.records import NO_LABEL, Batch
from ebomlc.seeding import child_seed
from ebomlc.training import distributed, engine
from ebomlc.training.checkpoint import FileCheckpoints
from ebomlc.training.distributed import ALONE, Ranks, check_alike, check_equal
from ebomlc.training.shared_norm import SharedBatchNorm, share_batch_norm
from ebomlc.training.trackers import NullTracker
from tests.training.processes import SECONDS, on_ranks, start

N_CLASSES, EPOCHS = 10, 4
BATCH, TRUSTED_BATCH = 24, 24
"""Two, three and four processes can share it."""

DRAWS = {"plus": {"mixup": 0.0}, "emlc": {"corrupted": 0.0}}
"""Settings of methods that draw something for each row, with which they do not."""


def digits() -> tuple[Batch, Batch]:
    """126 noisy and 50 trusted rows; the trusted ones carry their given label too."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, right = torch.tensor(pixels[:176]) / 16, torch.tensor(labels[:176])
    wrong = torch.rand(176, generator=torch.Generator().manual_seed(0)) < 0.3
    given = torch.where(wrong, (right + 1) % N_CLASSES, right)
    rows = Batch(inputs.double(), given, right, torch.arange(176))
    return rows[:126], rows[126:]


def mlp() -> MainModel:
    return MainModel(nn.Sequential(nn.Linear(64, 12), nn.Tanh()), 12, N_CLASSES)


def norm_cnn() -> MainModel:
    body = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), GlobalAverage()]
    return MainModel(nn.Sequential(*body), 6, N_CLASSES)


def dropout_mlp() -> MainModel:
    return MainModel(nn.Sequential(nn.Linear(64, 30), nn.Dropout(0.5)), 30, N_CLASSES)


MODELS = {"mlp": mlp, "norm_cnn": norm_cnn, "dropout": dropout_mlp}


def make(name: str, model: str, ranks: Ranks, *, shares_norm: bool = True):
    torch.manual_seed(1)
    first = MODELS[model]().double()

    def make_model():
        made = copy.deepcopy(first)
        adapt(made)
        return made

    def adapt(module):
        if ranks.size > 1 and shares_norm:
            share_batch_norm(module, ranks)

    entry = METHODS[name]
    least = 2 if ranks.size == 1 else 0
    setup = Setup(make_model, N_CLASSES, SGD(momentum=0.9, weight_decay=1e-3), adapt=adapt, least_rows=least)
    torch.manual_seed(2)
    return entry.create(entry.parse_settings(DRAWS.get(name, {})), setup)


def train(name, ranks, *, model="mlp", checkpoints=None, shares_norm=True, epochs=EPOCHS, batch=BATCH):
    """Weights and method's state after a training on digits, and the figures of its epochs that are means over rows."""
    method = make(name, model, ranks, shares_norm=shares_norm)
    noisy, trusted = digits()
    if not METHODS[name].needs_truth:
        noisy = Batch(noisy.inputs, noisy.given, torch.full_like(noisy.right, NO_LABEL), noisy.index)
    loader = PairedLoader(noisy, trusted, batch_size=batch, trusted_batch_size=TRUSTED_BATCH, seed=0, share=ranks)
    config = TrainingConfig(lr=0.1, epochs=epochs, sync_batch_norm=shares_norm)
    done = engine.fit(method, loader, trusted[:10], config, NullTracker(), checkpoints, ranks=ranks, quiet=True)
    figures = [{k: v for k, v in row.items() if k not in ("seconds", "gap_negative")} for row in done.rows]
    return {"main": dict(method.model.state_dict()), "method": method.state_dict(), "rows": figures}


def assert_equal(ours, theirs, tolerance=1e-10):
    for part in ("main", "method"):
        assert ours[part].keys() == theirs[part].keys()
        for name, value in ours[part].items():
            torch.testing.assert_close(value, theirs[part][name], rtol=tolerance, atol=tolerance, msg=name)


def check_method(name, size, tmp_path, model="mlp"):
    alone = train(name, ALONE, model=model)
    found = on_ranks(size, lambda ranks: train(name, ranks, model=model), tmp_path)
    for other in found[1:]:
        assert_equal(found[0], other, 0.0)
    assert_equal(alone, found[0])
    for ours, theirs in zip(alone["rows"], found[0]["rows"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("name", ["ce", "mlc", "ebomlc"])
def test_two_processes_do_what_one_does(name, tmp_path):
    check_method(name, 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_three_processes_do_what_one_does(name, tmp_path):
    check_method(name, 3, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_batch_norm_of_two_processes_is_that_of_one(name, tmp_path):
    check_method(name, 2, tmp_path, model="norm_cnn")


@pytest.mark.parametrize("name", ["ebomlc", "mlc", "plus"])
def test_batch_norm_of_three_processes_is_that_of_one(name, tmp_path):
    check_method(name, 3, tmp_path, model="norm_cnn")


def both_norms(ranks: Ranks) -> list[torch.Tensor]:
    """Output, gradients, tangent and statistics of a batch norm on 0, 5 and 2 of 7 rows of three ranks."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=None)).double()
    rows, weights = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    tangent = {name: torch.randn_like(value) for name, value in net.named_parameters()}
    share = slice(0, 7)
    if ranks.size > 1:
        share_batch_norm(net, ranks)
        share = [slice(0, 0), slice(0, 5), slice(5, 7)][ranks.rank]
    for _ in range(2):
        output = net(rows[share])
    loss = (output * weights[share]).sum()
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    with frozen_statistics(net):
        change = directional_derivative(
            lambda named: functional_call(net, named, (rows[share],)), dict(net.named_parameters()), tangent
        )
    buffers = [value.double() for value in net.buffers()]
    return [ranks.gather(output.detach()), ranks.gather(change), *(ranks.add(g) for g in gradients), *buffers]


def test_shared_batch_norm_is_torchs_own_on_the_rows_of_all(tmp_path):
    expected = both_norms(ALONE)
    for found in on_ranks(3, both_norms, tmp_path):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_shared_batch_norm_evaluates_as_torchs_own():
    norm = nn.BatchNorm2d(3).double().train()
    rows = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    norm(rows)
    shared = SharedBatchNorm(norm, ALONE).eval()
    assert torch.equal(shared(rows), norm.eval()(rows))
    shared.track_running_stats, shared.running_mean, shared.running_var = False, None, None
    torch.testing.assert_close(shared(rows), norm.train()(rows))


def test_batch_norm_of_another_make_is_refused():
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="Own '1' cannot share"):
        share_batch_norm(nn.Sequential(nn.Identity(), Own(3)), Ranks(0, 2))


# --- what they tell each other ----------------------------------------------------------------------------------------


def raised(work) -> str:
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def conversation(ranks: Ranks):
    def fail_on_last():
        if ranks.rank == ranks.size - 1:
            raise InputError("no such file")
        return ranks.rank

    def read_on_second():
        if ranks.rank == 1:
            raise PermissionError(13, "Permission denied", "rows.csv")

    def break_on_first():
        if ranks.rank == 0:
            raise ZeroDivisionError("by zero")

    method = make("ebomlc", "mlp", ranks)
    alike = raised(lambda: check_alike(method, ranks, 3))
    with torch.no_grad():
        method.model.head.bias[0] += ranks.rank * 1e-12
    return {
        "gathered": ranks.gather(torch.arange(ranks.rank * 2)[:, None] + 10 * ranks.rank),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "said": ranks.tell("é" * ranks.rank),
        "agreed": ranks.agree(lambda: ranks.rank * 5),
        "refused": raised(lambda: ranks.agree(fail_on_last)),
        "unread": raised(lambda: ranks.agree(read_on_second)),
        "broken": raised(lambda: ranks.agree(break_on_first)),
        "unequal": raised(lambda: check_equal(ranks, {"seed": 4, "training.lr": 0.1 * (1 + ranks.rank // 2)})),
        "equal": raised(lambda: check_equal(ranks, {"seed": 4, "versions.torch": torch.__version__})),
        "alike": alike,
        "drifted": raised(lambda: check_alike(method, ranks, 3)),
    }


def test_what_ranks_tell_each_other(tmp_path):
    found = on_ranks(3, conversation, tmp_path)
    for rank, said in enumerate(found):
        assert said["gathered"][:, 0].tolist() == [10, 11, 20, 21, 22, 23]
        assert said["any"] == [True, False]
        assert said["said"] == ["", "é", "éé"]
        assert said["agreed"] == rank * 5
        assert said["refused"].endswith("no such file")
        assert said["refused"].startswith("InputError")
        denied = "[Errno 13] Permission denied: 'rows.csv'"
        assert said["unread"] == (f"PermissionError: {denied}" if rank == 1 else f"InputError: rank 1: {denied}")
        assert said["broken"] == ("ZeroDivisionError: by zero" if rank == 0 else "RankLostError: rank 0: by zero")
        assert "training.lr is 0.2 on rank 2 and 0.1 on rank 0" in said["unequal"]
        assert said["equal"] == said["alike"] == "nothing"
        assert "ranks 0 and 1 hold different weights after epoch 3" in said["drifted"]


def test_one_process_talks_to_nobody():
    assert not torch.distributed.is_initialized()
    rows = torch.arange(3)
    assert ALONE.average(rows) is rows
    assert ALONE.gather(rows) is rows
    assert ALONE.tell("a") == ["a"]
    with distributed.join() as ranks:
        assert ranks == ALONE


def test_each_process_needs_a_gpu_of_its_own_where_there_are_gpus(monkeypatch):
    """Refused on all processes of a machine, before any of them waits for another."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": 3, "LOCAL_WORLD_SIZE": 3, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(InputError, match="more processes than GPUs: there are 2"), distributed.join():
        pass


# --- what is drawn, kept and lost -------------------------------------------------------------------------------------


def test_ranks_drop_out_other_units_and_resume_to_the_same(tmp_path):
    """With dropout, a run that goes on from a checkpoint in the middle of an epoch is the one that never stopped."""

    def work(ranks):
        folder = tmp_path / "states"
        settings = {"model": "dropout", "epochs": 3, "batch": 10}  # twelve steps an epoch
        keeps = FileCheckpoints(folder, steps=10) if ranks.rank == 0 else None
        whole = train("ebomlc", ranks, checkpoints=keeps, **settings)
        if ranks.rank == 0:
            first, last = sorted(folder.iterdir())
            assert first.name.startswith("step-000000020")
            last.unlink()
        begun = FileCheckpoints(folder) if ranks.rank == 0 else None
        resumed = train("ebomlc", ranks, checkpoints=begun, **settings)
        masks = [ranks.gather(dropped_units(ranks, name)) for name in ("epoch 1", f"step 1 of rank {ranks.rank}")]
        return {"whole": whole, "resumed": resumed, "masks": masks}

    for found in on_ranks(2, work, tmp_path):
        assert_equal(found["whole"], found["resumed"], 0.0)
        for ours, theirs in zip(found["whole"]["rows"], found["resumed"]["rows"], strict=True):
            assert ours == pytest.approx(theirs)
        same, other = (masks.view(2, -1) for masks in found["masks"])
        assert torch.equal(same[0], same[1])
        assert not torch.equal(other[0], other[1])


def dropped_units(ranks: Ranks, name: str) -> torch.Tensor:
    torch.manual_seed(child_seed(0, name))
    return nn.functional.dropout(torch.ones(50))


@pytest.mark.parametrize("name", ["ebomlc", "plus"])
def test_own_statistics_of_batch_norm_are_averaged_in_the_end(name, tmp_path):
    """Without shared statistics weights are still equal, and another result comes out than from one process."""
    found = on_ranks(2, lambda ranks: train(name, ranks, model="norm_cnn", shares_norm=False), tmp_path)
    assert_equal(found[0], found[1], 0.0)
    shared = train(name, ALONE, model="norm_cnn")
    assert any(not torch.allclose(value, shared["main"][key]) for key, value in found[0]["main"].items())


def test_a_killed_rank_ends_the_others_and_the_last_checkpoint_is_good(tmp_path):
    """The first rank keeps a state at the end of each epoch; the second is killed in the midst of the fifth."""

    class Killed:
        def __init__(self, loader, is_victim):
            self.__dict__.update(loader.__dict__)
            self.loader, self.is_victim = loader, is_victim

        def __len__(self):
            return len(self.loader)

        def epoch(self, epoch, done=0):
            for step, pair in enumerate(self.loader.epoch(epoch, done), done):
                if self.is_victim and (epoch, step) == (4, 3):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield pair

    def work(ranks):
        noisy, trusted = digits()
        loader = PairedLoader(noisy, trusted, batch_size=BATCH, trusted_batch_size=TRUSTED_BATCH, seed=0, share=ranks)
        keeps = FileCheckpoints(tmp_path / "states", steps=1) if ranks.rank == 0 else None
        method = make("ce", "mlp", ranks)
        engine.fit(method, Killed(loader, ranks.rank == 1), trusted[:0], TrainingConfig(epochs=9), NullTracker(), keeps,
                   ranks=ranks, quiet=True)  # fmt: skip

    processes = start(3, work, tmp_path)
    processes[1].join(SECONDS)
    killed = time.monotonic()
    for process in processes:
        process.join(SECONDS)
    assert time.monotonic() - killed < 30
    assert [process.exitcode for process in processes] == [1, -signal.SIGKILL, 1]
    for rank in (0, 2):
        assert "RankLostError: another process of this run is gone" in (tmp_path / f"failed-{rank}").read_text()
    stored = FileCheckpoints(tmp_path / "states").latest()
    assert stored is not None
    assert stored.step == 20
