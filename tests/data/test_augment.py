import pytest
import torch

from ebomlc.data.augment import crop_flip, cutout, random_crop_flip
from ebomlc.errors import InputError

FORMATS = [torch.contiguous_format, torch.channels_last]


def images_of(n=17, channels=3, height=8, width=6, dtype=torch.uint8, memory_format=torch.contiguous_format):
    values = torch.randint(1, 256, (n, channels, height, width), generator=torch.Generator().manual_seed(0))
    return values.to(dtype).contiguous(memory_format=memory_format)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def crop_one(image, padding, top, left, mirrored):
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    out = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            row = top + i - padding
            column = left + (width - 1 - j if mirrored else j) - padding
            if 0 <= row < height and 0 <= column < width:
                for c in range(channels):
                    out[c, i, j] = image[c, row, column]
    return out


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_equals_a_loop_over_the_images_with_the_same_draws(padding, flip):
    images = images_of()
    twin = generator(3)
    top, left = torch.randint(2 * padding + 1, (2, 17), generator=twin).tolist()
    mirrored = torch.randint(2, (17,), generator=twin).tolist() if flip else [0] * 17
    expected = torch.stack(
        [crop_one(*drawn) for drawn in zip(images, [padding] * 17, top, left, mirrored, strict=True)]
    )
    assert torch.equal(random_crop_flip(images, padding, generator(3), flip=flip), expected)


def test_known_windows():
    image = torch.tensor([[[[1, 2], [3, 4]]]])
    at = torch.tensor
    assert crop_flip(image, 1, at([1]), at([1])).tolist() == [[[[1, 2], [3, 4]]]]
    assert crop_flip(image, 1, at([0]), at([2])).tolist() == [[[[0, 0], [2, 0]]]]
    assert crop_flip(image, 1, at([1]), at([1]), at([True])).tolist() == [[[[2, 1], [4, 3]]]]
    assert crop_flip(image, 1, at([2]), at([0]), at([True])).tolist() == [[[[3, 0], [0, 0]]]]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [random_crop_flip, cutout])
def test_keeps_dtype_shape_and_memory_format(change, dtype, memory_format):
    images = images_of(dtype=dtype, memory_format=memory_format)
    before = images.clone()
    changed = change(images, 2, generator())
    assert (changed.dtype, changed.shape, changed.stride()) == (images.dtype, images.shape, images.stride())
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)
    assert torch.equal(changed, change(images_of(dtype=dtype), 2, generator()))


@pytest.mark.parametrize("change", [random_crop_flip, cutout])
def test_the_generator_decides(change):
    images = images_of(50)
    first, again, other = (change(images, 3, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    stream = generator(1)
    assert not torch.equal(change(images, 3, stream), change(images, 3, stream))


def test_each_image_draws_for_itself_and_all_draws_occur():
    images = torch.zeros(4000, 1, 5, 5)
    images[:, :, 2, 1] = 1
    found = random_crop_flip(images, 1, generator()).flatten(1).argmax(1)
    counts = torch.bincount(found, minlength=25).view(5, 5) / 4000
    expected = torch.zeros(5, 5)
    expected[1:4, 0:3] += 1 / 18  # column 1, moved by -1 .. 1
    expected[1:4, 2:5] += 1 / 18  # mirrored: column 3
    torch.testing.assert_close(counts, expected, atol=0.025, rtol=0)


def test_without_padding_and_flip_nothing_changes():
    images = images_of()
    assert torch.equal(random_crop_flip(images, 0, generator(), flip=False), images)


def test_no_images():
    assert random_crop_flip(images_of()[:0], 4, generator()).shape == (0, 3, 8, 6)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 20])
def test_cutout_is_one_clipped_square(size):
    images = images_of(200)
    twin = generator(5)
    rows = torch.randint(8, (200, 1), generator=twin).flatten().tolist()
    columns = torch.randint(6, (200, 1), generator=twin).flatten().tolist()
    expected = images.clone()
    for image, row, column in zip(expected, rows, columns, strict=True):
        top, left = row - size // 2, column - size // 2
        image[:, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
    assert torch.equal(cutout(images, size, generator(5)), expected)


@pytest.mark.parametrize("change", [random_crop_flip, cutout])
def test_what_cannot_be_augmented(change):
    with pytest.raises(InputError, match="not images"):
        change(torch.zeros(5, 64), 2, generator())
    with pytest.raises(InputError, match="-1"):
        change(images_of(), -1, generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_works_where_the_images_are(device):
    images = images_of().cuda()
    for change in (random_crop_flip, cutout):
        changed = change(images, 2, torch.Generator(device).manual_seed(0))
        assert changed.is_cuda
        if device == "cpu":
            assert torch.equal(changed.cpu(), change(images_of(), 2, generator()))
