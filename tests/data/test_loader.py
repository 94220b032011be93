import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ebomlc.data.loader import PairedLoader, StoredRows, in_order
from ebomlc.methods.learner import halve
from ebomlc.records import NO_LABEL, Batch, Share

CPU = torch.device("cpu")
N_TRUSTED = 97


def digits(rows: slice, *, trusted: bool) -> Batch:
    """Real digits whose first pixel is the row number, so that a row can be recognised by its input."""
    pixels, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(pixels[rows], dtype=torch.float32)
    inputs[:, 0] = torch.arange(len(inputs))
    given = torch.tensor(labels[rows])
    right = given if trusted else torch.full_like(given, NO_LABEL)
    return Batch(inputs, given, right, torch.arange(len(inputs)) + (10_000 if trusted else 0))


NOISY, TRUSTED = digits(slice(0, 500), trusted=False), digits(slice(500, 500 + N_TRUSTED), trusted=True)


def make_loader(**changes) -> PairedLoader:
    sizes = {"batch_size": 64, "trusted_batch_size": 30, "seed": 0, **changes}
    return PairedLoader(changes.pop("noisy", NOISY), TRUSTED, **{k: v for k, v in sizes.items() if k != "noisy"})


@settings(max_examples=20)
@given(st.integers(2, 600), st.integers(2, 120), st.integers(0, 5))
def test_an_epoch_is_one_pass_in_whole_batches(size, trusted_size, epoch):
    loader = make_loader(batch_size=size, trusted_batch_size=trusted_size)
    pairs = list(loader.epoch(epoch))
    size, trusted_size = min(size, len(NOISY)), min(trusted_size, N_TRUSTED)
    assert len(pairs) == len(loader) == len(NOISY) // size
    assert all((len(noisy), len(trusted)) == (size, trusted_size) for noisy, trusted in pairs)
    rows = torch.cat([noisy.index for noisy, _ in pairs])
    assert len(rows.unique()) == len(rows)


def test_no_row_is_twice_in_a_trusted_batch_and_each_comes_as_often():
    batches = [trusted.index for epoch in range(20) for _, trusted in make_loader().epoch(epoch)]
    assert all(len(batch.unique()) == len(batch) for batch in batches)
    counts = torch.bincount(torch.cat(batches) - 10_000, minlength=N_TRUSTED)
    assert counts.min() > 0
    assert counts.sum() == 20 * 7 * 30


def test_rows_left_out_of_an_epoch_come_in_others():
    loader = make_loader(batch_size=300)
    seen = torch.cat([noisy.index for epoch in range(20) for noisy, _ in loader.epoch(epoch)])
    assert len(seen.unique()) == len(NOISY)


def test_labels_and_numbers_stay_with_their_inputs():
    for pair in make_loader().epoch(3):
        for batch, all_rows, first in zip(pair, (NOISY, TRUSTED), (0, 10_000), strict=True):
            rows = batch.inputs[:, 0].long()
            assert torch.equal(batch.index, rows + first)
            assert torch.equal(batch.given, all_rows.given[rows])
            assert torch.equal(batch.right, all_rows.right[rows])
            assert torch.equal(batch.inputs, all_rows.inputs[rows])


def order(loader: PairedLoader, epoch: int) -> list[int]:
    return [row for pair in loader.epoch(epoch) for batch in pair for row in batch.index.tolist()]


def test_seed_and_epoch_decide_the_order_whatever_was_drawn_before():
    used = make_loader()
    order(used, 0), order(used, 1), torch.rand(5)
    assert order(used, 2) == order(make_loader(), 2)
    assert order(used, 2) != order(used, 3)
    assert order(used, 2) != order(make_loader(seed=1), 2)


def test_the_order_is_random():
    first = torch.tensor([order(make_loader(), epoch)[0] for epoch in range(200)]).float()
    assert abs(float(first.mean()) - 250) < 4 * 500 / np.sqrt(12 * 200)


def add_noise(inputs, generator):
    return inputs + torch.rand(inputs.shape, generator=generator)


def test_augmentation_changes_inputs_alone_and_each_batch_once():
    calls = []
    plain = list(make_loader().epoch(0))
    loader = make_loader(augment=lambda inputs, generator: calls.append(len(inputs)) or add_noise(inputs, generator))
    augmented = list(loader.epoch(0))
    assert calls == [64, 30] * len(loader)
    for before, after in zip(plain, augmented, strict=True):
        for one, other in zip(before, after, strict=True):
            assert not torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.index, other.index)
            assert torch.equal(one.given, other.given)
            assert torch.equal(one.right, other.right)


def test_augmentation_is_the_same_for_the_same_epoch_only():
    loader = make_loader(augment=add_noise, batch_size=len(NOISY))
    (first, _), (again, _), (later, _) = (next(loader.epoch(epoch)) for epoch in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    noise = [batch.inputs - NOISY.inputs[batch.index] for batch in (first, later)]
    assert not torch.allclose(*noise)


def test_stored_rows_are_never_changed():
    before = NOISY.inputs.clone()
    list(make_loader(augment=add_noise).epoch(0))
    assert torch.equal(NOISY.inputs, before)


@pytest.mark.parametrize("size", [1, 7, 500, 9999])
def test_in_order_passes_over_rows_as_they_lie(size):
    batches = list(in_order(NOISY, size))
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), NOISY.inputs)
    assert torch.equal(torch.cat([batch.index for batch in batches]), NOISY.index)
    assert max(len(batch) for batch in batches) == min(size, len(NOISY))


def test_in_order_is_without_augmentation():
    loader = make_loader(augment=add_noise)
    assert torch.equal(torch.cat([batch.inputs for batch in in_order(loader.noisy, 64)]), NOISY.inputs)


# --- balanced trusted batches -----------------------------------------------------------------------------------------


def balanced_loader(counts, size=40):
    classes = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    n = len(classes)
    rows = Batch(torch.arange(float(n))[:, None], torch.zeros(n, dtype=torch.int64), classes, torch.arange(n))
    noisy = Batch(*(torch.cat([part] * 20) for part in (rows.inputs, rows.given, rows.right, rows.index)))
    return PairedLoader(noisy, rows, batch_size=20, trusted_batch_size=size, seed=3, trusted_classes=classes)


@pytest.mark.parametrize("size", [40, 41])
def test_balanced_batches_hold_every_class_alike_and_their_halves_share_no_row(size):
    counts = torch.zeros(3)
    for _, trusted in balanced_loader((60, 30, 4), size).epoch(0):
        assert len(trusted) == size
        middle = (size + 1) // 2
        assert not set(trusted.index[:middle].tolist()) & set(trusted.index[middle:].tolist())
        counts += trusted.right.bincount(minlength=3)
    shares = counts / counts.sum()
    assert (shares - 1 / 3).abs().max() < 0.03


def test_a_class_with_one_row_is_in_one_half():
    seen = set()
    for _, trusted in balanced_loader((60, 1)).epoch(0):
        halves = [(trusted.right[part] == 1).any().item() for part in (slice(20), slice(20, None))]
        assert sum(halves) == 1
        seen.add(halves[0])
    assert seen == {True, False}, "now the one, now the other"


def test_balanced_batches_repeat_with_the_epoch_and_differ_between_epochs():
    loader = balanced_loader((60, 30, 4))
    first, again, other = (torch.cat([t.index for _, t in loader.epoch(epoch)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_stored_rows_give_what_rows_in_memory_give():
    stored = StoredRows(
        NOISY.inputs.numpy(), NOISY.given.numpy(), NOISY.right.numpy(), np.arange(0, len(NOISY), 2), CPU
    )
    chosen = torch.tensor([5, 0, 3])
    batch, expected = stored[chosen], NOISY[2 * chosen]
    for name in ("inputs", "given", "right"):
        assert torch.equal(getattr(batch, name), getattr(expected, name))
    assert batch.index.tolist() == [5, 0, 3], "positions among the rows of the set"
    assert stored[slice(2, 9, 3)].index.tolist() == [2, 5, 8]
    assert len(stored[slice(None)]) == len(stored) == (len(NOISY) + 1) // 2


@pytest.mark.parametrize("changes", [{}, {"trusted_classes": TRUSTED.right}, {"augment": True}], ids=str)
@pytest.mark.parametrize("done", [1, 4, 7])
def test_an_epoch_goes_on_after_the_batches_that_were_had(changes, done):
    """Whatever is drawn on the way: rows, balanced rows, pixels."""

    def noise(inputs, generator):
        return inputs + torch.rand(inputs.shape, generator=generator)

    options = {**changes, "augment": noise} if "augment" in changes else changes
    whole, rest = (list(make_loader(**options).epoch(2, skipped)) for skipped in (0, done))
    assert len(rest) == len(whole) - done
    for pair, expected in zip(rest, whole[done:], strict=True):
        for batch, other in zip(pair, expected, strict=True):
            assert torch.equal(batch.index, other.index)
            assert torch.equal(batch.inputs, other.inputs)


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(7, 130), st.integers(14, 97), st.integers(0, 2))
def test_processes_share_each_batch_and_both_trusted_halves(n_processes, size, trusted_size, epoch):
    """Joined, their parts are the batches of one process with such batches, without a row lost or taken twice."""
    loaders = [
        make_loader(batch_size=size, trusted_batch_size=trusted_size, share=Share(rank, n_processes))
        for rank in range(n_processes)
    ]
    whole = make_loader(batch_size=loaders[0].batch_size, trusted_batch_size=loaders[0].trusted_batch_size)
    assert size - n_processes < loaders[0].batch_size <= size
    for (noisy, trusted), *parts in zip(whole.epoch(epoch), *(one.epoch(epoch) for one in loaders), strict=True):
        assert torch.equal(torch.cat([part.index for part, _ in parts]), noisy.index)
        assert len({len(part) for part, _ in parts}) == len({len(part) for _, part in parts}) == 1
        halves = [halve(part) for _, part in parts]
        for joined, half in zip(halve(trusted), zip(*halves, strict=True), strict=True):
            assert torch.equal(torch.cat([part.index for part in half]), joined.index)


def test_more_processes_than_rows_of_a_batch_are_refused():
    make_loader(batch_size=4, trusted_batch_size=8, share=Share(0, 4))
    for sizes in ({"batch_size": 3, "trusted_batch_size": 8}, {"batch_size": 4, "trusted_batch_size": 7}):
        with pytest.raises(ValueError, match="4 processes cannot share"):
            make_loader(**sizes, share=Share(0, 4))


def test_passes_of_processes_are_a_pass_in_order():
    parts = [in_order(NOISY, 64, Share(rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat([batch.index for part in parts for batch in part]), NOISY.index)
