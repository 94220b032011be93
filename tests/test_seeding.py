import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ebomlc.errors import InputError
from ebomlc.seeding import CUBLAS, child_seed, numpy_generator, only_repeatable, seed_global, torch_generator


def test_a_child_seed_is_the_same_on_every_machine():
    assert child_seed(0, "noise") == 5127903134280592399


def test_a_child_seed_does_not_depend_on_the_hash_seed_of_python():
    code = "from ebomlc.seeding import child_seed; print(child_seed(3, 'split'))"
    command = [sys.executable, "-c", code]
    seeds = {
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert seeds == {f"{child_seed(3, 'split')}\n".encode()}


def test_seeds_and_names_give_different_generators():
    seeds = [child_seed(seed, name) for seed in range(50) for name in ("noise", "split", "1/noise")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("make", [numpy_generator, torch_generator])
def test_a_generator_repeats_itself_by_seed_and_name_alone(make):
    def draw(seed, name):
        generator = make(seed, name)
        if isinstance(generator, np.random.Generator):
            return tuple(generator.integers(2**40, size=4))
        return tuple(torch.randint(2**40, (4,), generator=generator).tolist())

    first = draw(0, "noise")
    draw(0, "split")
    assert draw(0, "noise") == first
    assert draw(1, "noise") != first
    assert draw(0, "split") != first


def test_the_global_generator_follows_the_seed():
    with torch.random.fork_rng():
        seed_global(5)
        first = torch.rand(3)
        seed_global(5)
        assert torch.equal(torch.rand(3), first)
        seed_global(6)
        assert not torch.equal(torch.rand(3), first)


def test_named_generators_leave_the_global_one_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=torch_generator(0, "noise"))
    assert torch.equal(torch.get_rng_state(), before)


def switches():
    return torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark, os.environ.get(CUBLAS)


@pytest.mark.parametrize(("before", "inside"), [(None, ":4096:8"), (":16:8", ":16:8"), (":0:0", ":4096:8")])
def test_only_repeatable_is_put_back(before, inside, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv(CUBLAS, raising=False)
    if before is not None:
        monkeypatch.setenv(CUBLAS, before)
    outside = switches()
    for unwanted in (None, False):
        with only_repeatable(unwanted):
            assert switches() == outside
    with only_repeatable(True):
        assert switches() == (2, False, inside)
    assert switches() == outside
    with pytest.raises(KeyboardInterrupt), only_repeatable(True):
        raise KeyboardInterrupt
    assert switches() == outside


def test_an_operation_that_does_not_repeat_itself_is_named():
    said = r"--deterministic: torch has no form of put_ that repeats .*--device cpu"
    with pytest.raises(InputError, match=said), only_repeatable(True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    assert torch.get_deterministic_debug_mode() == 0


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="must match the size"), only_repeatable(True):
        torch.ones(2) + torch.ones(3)
