import errno
import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from ebomlc.data import images
from ebomlc.data.image_files import list_image_folder
from ebomlc.data.images import (
    choose_image_size,
    load_image,
    load_images,
)
from ebomlc.errors import DataWarning, InputError

DIGITS = load_digits()
CHINA, FLOWER = (Image.fromarray(photo) for photo in load_sample_images().images)


def digit(row: int) -> Image.Image:
    return Image.fromarray((DIGITS.images[row] * 255 / 16).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def place(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def load(paths, size=None, **options):
    return load_images(paths, [path.name for path in paths], size, **options)


def refusal(action, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of its own for every test."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "ebomlc"


@pytest.fixture
def digits(tmp_path):
    """The first forty digits, each in the folder of its class."""
    files = {f"{DIGITS.target[row]}/{row:03d}.png": encoded(digit(row), "PNG") for row in range(40)}
    return place(tmp_path / "digits", files)


# --- modes and formats ------------------------------------------------------------------------------------------------

PHOTO = CHINA.crop((200, 100, 264, 164))
GREY = PHOTO.convert("L")
ALPHA = Image.linear_gradient("L").resize((64, 64))


def on_white(image: Image.Image) -> np.ndarray:
    """The definition of compositing, in floating point."""
    colour, alpha = np.asarray(image, float)[..., :-1], np.asarray(image, float)[..., -1:] / 255
    return (colour * alpha + 255 * (1 - alpha)).squeeze()


def translucent(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.putalpha(ALPHA)
    return copy


COLOUR = {
    "png": encoded(PHOTO, "PNG"),
    "bmp": encoded(PHOTO, "BMP"),
    "ppm": encoded(PHOTO, "PPM"),
    "tiff": encoded(PHOTO, "TIFF"),
    "webp": encoded(PHOTO, "WEBP", lossless=True),
    "jp2": encoded(PHOTO, "JPEG2000"),
    "cmyk": encoded(PHOTO.convert("CMYK"), "TIFF"),
}
PALETTE = PHOTO.quantize(16)


@pytest.mark.parametrize("kind", COLOUR)
def test_every_format_gives_the_pixels_that_were_saved(write, kind):
    image = load_image(write("a.png", COLOUR[kind]), 64, 3)
    np.testing.assert_array_equal(image, np.asarray(PHOTO).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_palettes_become_colours(write, kind):
    image = load_image(write("a.png", encoded(PALETTE, kind)), 64, 3)
    np.testing.assert_array_equal(image, np.asarray(PALETTE.convert("RGB")).transpose(2, 0, 1))


def test_the_first_image_of_an_animation_is_taken(write):
    first, second = digit(0), digit(1)
    for kind in ("GIF", "PNG", "TIFF"):
        content = encoded(first, kind, save_all=True, append_images=[second])
        np.testing.assert_array_equal(load_image(write("a.gif", content), 8, 1)[0], np.asarray(first))


@pytest.mark.parametrize(("source", "channels"), [(PHOTO, 3), (GREY, 1)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_what_is_transparent_becomes_white(write, source, channels, kind):
    image = translucent(source)
    loaded = load_image(write("a.png", encoded(image, kind)), 64, channels)
    expected = on_white(image)
    np.testing.assert_allclose(loaded.transpose(1, 2, 0).squeeze(), expected, atol=1.01)
    assert np.abs(expected - np.asarray(source)).max() > 50


def test_a_transparent_colour_of_a_palette_becomes_white(write):
    loaded = load_image(write("a.png", encoded(PALETTE, "PNG", transparency=3)), 64, 3)
    expected = np.where(np.asarray(PALETTE)[..., None] == 3, 255, np.asarray(PALETTE.convert("RGB")))
    np.testing.assert_array_equal(loaded, expected.transpose(2, 0, 1))
    assert (np.asarray(PALETTE) == 3).any()


DEEP = (np.asarray(GREY, np.float64) / 255) ** 2


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.rint(DEEP * 65535).astype(np.uint16), "PNG", DEEP * 255),
        (np.rint(DEEP * 65535).astype(np.uint16), "TIFF", DEEP * 255),
        (np.rint(DEEP * 900).astype(np.uint16), "PNG", DEEP * 900 / 257),
        (np.rint(DEEP * 255).astype(np.int32), "TIFF", DEEP * 255),
        (np.rint(DEEP * 65535).astype(np.int32), "TIFF", DEEP * 65535 / 257),
        (np.rint(DEEP * 900_000 - 1000).astype(np.int32), "TIFF", (DEEP - DEEP.min()) / np.ptp(DEEP) * 255),
        (DEEP.astype(np.float32), "TIFF", DEEP * 255),
        ((DEEP * 255).astype(np.float32), "TIFF", DEEP * 255),
        ((DEEP * 9 - 3).astype(np.float32), "TIFF", (DEEP - DEEP.min()) / np.ptp(DEEP) * 255),
    ],
)
def test_deep_grey_images_are_scaled_to_eight_bits(write, values, kind, expected):
    path = write("a.png", encoded(Image.fromarray(values), kind))
    loaded = load([path], 64)
    assert loaded.channels == 1
    np.testing.assert_allclose(loaded.values[0, 0], expected, atol=1.01)
    np.testing.assert_array_equal(load_image(path, 64, 3), np.repeat(loaded.values[0], 3, axis=0))


def test_fractions_that_are_no_numbers_are_black(write):
    values = np.asarray(GREY, np.float32) / 255
    values[0] = [np.nan, np.inf] * 32
    image = load_image(write("a.tif", encoded(Image.fromarray(values), "TIFF")), 64, 1)
    assert not image[0, 0].any()
    np.testing.assert_array_equal(image[0, 1:], np.asarray(GREY)[1:])


def test_one_value_everywhere_is_no_division_by_zero(write):
    flat = Image.fromarray(np.full((8, 8), -5, np.int32))
    assert not load_image(write("a.tif", encoded(flat, "TIFF")), 8, 1).any()


def test_black_and_white_stays_black_and_white(write):
    sketch = PHOTO.convert("1")
    image = load([write("a.png", encoded(sketch, "PNG"))], 64).values[0]
    np.testing.assert_array_equal(image, np.asarray(sketch)[None] * np.uint8(255))


def test_one_channel_only_where_every_image_is_grey(tmp_path):
    greys = [GREY, GREY.convert("1"), translucent(GREY), Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)]
    files = {f"{row}.png": encoded(image, "PNG") for row, image in enumerate(greys)}
    place(tmp_path, files | {"4.tif": encoded(GREY.convert("F"), "TIFF"), "5.png": encoded(PHOTO, "PNG")})
    paths = sorted(tmp_path.iterdir())
    assert load(paths[:5], 64).channels == 1
    mixed = load(paths, 64)
    assert mixed.channels == 3
    np.testing.assert_array_equal(mixed.values[0], np.stack([np.asarray(GREY)] * 3))
    asked = load(paths, 64, channels=1)
    np.testing.assert_array_equal(asked.values[5, 0], np.asarray(GREY))


# --- geometry ---------------------------------------------------------------------------------------------------------

SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
"""Where the first row and the first column of the stored image belong, by its orientation (EXIF 2.3, tag 274)."""


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores of an upright image: pixel by pixel after the definition."""
    height, width = upright.shape[:2]
    first_row, first_column = SIDES[orientation]
    lies = first_row in ("left", "right")
    stored = np.zeros((width, height, 3) if lies else upright.shape, np.uint8)
    for row, column in np.ndindex(stored.shape[:2]):
        from_side = {first_row: row, first_column: column}
        y = from_side["top"] if "top" in from_side else height - 1 - from_side["bottom"]
        x = from_side["left"] if "left" in from_side else width - 1 - from_side["right"]
        stored[row, column] = upright[y, x]
    return stored


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_is_put_upright(write, orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(as_stored(np.asarray(PHOTO), orientation))
    options = {"lossless": True} if kind == "WEBP" else {}
    path = write("a.png", encoded(stored, kind, exif=exif, **options))
    np.testing.assert_array_equal(load_image(path, 64, 3), np.asarray(PHOTO).transpose(2, 0, 1))


def test_a_photo_on_its_side_is_cropped_upright(write):
    exif = Image.Exif()
    exif[274] = 6
    upright = CHINA.crop((0, 0, 426, 640 - 213))
    stored = Image.fromarray(as_stored(np.asarray(upright), 6))
    turned = load_image(write("a.jpg", encoded(stored, "JPEG", exif=exif, quality=95)), 32, 3).astype(int)
    plain = load_image(write("b.png", encoded(upright, "PNG")), 32, 3)
    assert np.abs(turned - plain).mean() < 2


@pytest.mark.parametrize("exif", [b"nonsense", b"MM", b"MM\0*\0\0\0\x08\xff\xff\0\0\0"])
def test_damaged_exif_data_leave_the_image_as_it_is(write, exif):
    path = write("a.png", encoded(PHOTO, "PNG", exif=b"Exif\0\0" + exif))
    np.testing.assert_array_equal(load_image(path, 64, 3), np.asarray(PHOTO).transpose(2, 0, 1))


@pytest.mark.parametrize("turn", [False, True])
def test_the_shorter_side_is_resized_and_the_middle_kept(write, turn):
    photo = CHINA.crop((0, 0, 624, 416))
    expected = photo.resize((78, 52), Image.Resampling.BICUBIC).crop((13, 0, 65, 52))
    if turn:
        photo, expected = (image.transpose(Image.Transpose.TRANSPOSE) for image in (photo, expected))
    image = load_image(write("a.png", encoded(photo, "PNG")), 52, 3)
    np.testing.assert_allclose(image, np.asarray(expected, int).transpose(2, 0, 1), atol=1)


def test_fine_stripes_become_grey_and_not_stripes(write):
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (500, 250)))
    image = load_image(write("a.png", encoded(stripes, "PNG")), 33, 1)
    assert np.abs(image.astype(int) - 127).max() < 12


@pytest.mark.parametrize("photo", [CHINA, FLOWER])
def test_a_jpeg_decoded_at_a_fraction_looks_like_the_whole(write, photo):
    fast = load_image(write("a.jpg", encoded(photo, "JPEG", quality=95)), 32, 3).astype(int)
    whole = load_image(write("a.png", encoded(photo, "PNG")), 32, 3)
    assert np.abs(fast - whole).mean() < 2


def test_a_phones_file_of_several_pictures_is_its_first(write):
    content = encoded(PHOTO, "MPO", save_all=True, append_images=[FLOWER], quality=95)
    image = load_image(write("a.jpg", content), 64, 3)
    np.testing.assert_array_equal(image, load_image(write("b.jpg", encoded(PHOTO, "JPEG", quality=95)), 64, 3))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 7)])
def test_tiny_and_thin_images_are_enlarged(write, size):
    image = load_image(write("a.png", encoded(Image.new("RGB", size, (10, 20, 30)), "PNG")), 16, 3)
    assert image.shape == (3, 16, 16)
    assert (image == np.array([10, 20, 30])[:, None, None]).all()


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(8, 8)] * 5, 8),
        ([(28, 28)] * 5, 28),
        ([(64, 64)] * 3, 64),
        ([(65, 65)] * 3, 64),
        ([(28, 30)] * 3, 32),
        ([(28, 28), (32, 32)], 32),
        ([(90, 40)] * 3, 32),
        ([(41, 90)] * 3, 64),
        ([(16, 16)] + [(500, 300)] * 2, 64),
        ([(16, 16)] * 2 + [(500, 300)], 32),
    ],
)
def test_the_size_is_chosen_from_the_headers(tmp_path, sizes, chosen):
    place(tmp_path, {f"{row}.png": encoded(Image.new("L", size), "PNG") for row, size in enumerate(sizes)})
    paths = [tmp_path / f"{row}.png" for row in range(len(sizes))]
    assert choose_image_size(paths) == chosen
    assert load(paths).size == chosen


@pytest.mark.parametrize(("side", "chosen"), [(28, 28), (64, 64), (65, 160)])
def test_large_images_may_be_asked_to_stay_larger(write, side, chosen):
    assert choose_image_size([write("a.png", encoded(Image.new("L", (side, side)), "PNG"))], 160) == chosen


def test_files_without_a_header_do_not_choose_the_size(write):
    broken, image = write("a.png", b"nothing"), write("b.png", encoded(digit(0), "PNG"))
    assert choose_image_size([broken, image]) == 8
    assert choose_image_size([broken]) == choose_image_size([]) == 64


def test_at_most_200_headers_are_read_from_all_over_the_set(digits, monkeypatch):
    files, seen = list_image_folder(digits).paths, []
    paths = [path for path in files for _ in range(20)]
    monkeypatch.setattr(images, "_read_header", lambda path: seen.append(path) or images._Header((9, 9), True))
    assert choose_image_size(paths) == 9
    assert len(seen) == 200
    assert set(seen) == set(files)


# --- what cannot be used ----------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG file that states a size and holds nothing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IEND"
    checked = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(checked)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", "b")
    return buffer.getvalue()


JPEG, PNG = encoded(CHINA, "JPEG"), encoded(CHINA, "PNG")
BROKEN = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "zeros": (bytes(1000), "is damaged: it begins with zeros"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "is a PDF document, not an image"),
    "zip": (zipped(), "is a ZIP archive, not an image"),
    "html": (b"\xef\xbb\xbf\n <!DOCTYPE HTML><title>404</title>", "is an HTML page, not an image"),
    "svg": (b"<svg xmlns='x'/>", "is an SVG drawing, not an image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript document, not an image"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC or AVIF image or a video"),
    "text": (b"Not Found", "is not an image: it begins with b'Not Found'"),
    "header": (PNG[:20], "is damaged: Truncated File Read"),
    "magic": (JPEG[:20], "is damaged: its header cannot be read"),
    "webp": (encoded(PHOTO, "WEBP")[:14], "is damaged: its header cannot be read"),
    "jpeg": (JPEG[: len(JPEG) // 2], "is damaged: image file is truncated"),
    "png": (PNG[: len(PNG) // 2], "is damaged: image file is truncated"),
    "bmp": (encoded(PHOTO, "BMP")[:500], "is damaged: image file is truncated"),
    "bomb": (png_header(10_000, 10_000), "has more than 89 million pixels, which could fill the memory"),
    "large bomb": (png_header(60_000, 60_000), "has more than 89 million pixels, which could fill the memory"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_image_is_refused_by_name(tmp_path, kind):
    content, message = BROKEN[kind]
    place(tmp_path, {"good.png": encoded(digit(0), "PNG"), "x.png": content})
    paths = [tmp_path / "good.png", tmp_path / "x.png"]
    repair = "; repair or replace it, or leave such images out with --on-bad-input skip"
    with pytest.raises(InputError, match=f"x.png {message}.*{repair}$"):
        load(paths)
    with pytest.raises(InputError, match=f"x.png {message}.*; repair or replace it$"):
        load_image(paths[1], 8, 1)


def test_bad_images_are_left_out_and_listed(tmp_path):
    good = {f"{row:02d}.png": encoded(digit(row), "PNG") for row in range(0, 30, 2)}
    bad = {f"{2 * row + 1:02d}.png": content for row, (content, _) in enumerate(BROKEN.values()) if row < 15}
    place(tmp_path, good | bad)
    paths = sorted(tmp_path.iterdir())
    for _ in range(2):  # the second time from the cache
        loaded = load(paths, 8, channels=1, on_bad="skip")
        assert loaded.kept.tolist() == list(range(0, 30, 2))
        assert loaded.kept.dtype == np.int64
        assert [name for name, _ in loaded.bad] == sorted(bad)
        assert all(reason.startswith(("is ", "has ")) for _, reason in loaded.bad)
        np.testing.assert_array_equal(loaded.values, [np.asarray(digit(row))[None] for row in loaded.kept])
        assert loaded.values.flags.c_contiguous


def test_all_that_are_bad_are_counted(tmp_path):
    place(tmp_path, {"0.png": encoded(digit(0), "PNG"), "1.png": b"", "2.png": b"%PDF", "3.png": b""})
    paths = sorted(tmp_path.iterdir())
    assert "1.png is empty (0 bytes) (2 more of the 4 images cannot be used either); repair" in refusal(load, paths)
    assert "none of the 3 images can be used" in refusal(load, paths[1:], on_bad="skip")
    place(tmp_path, {"1.png": JPEG[:9000], "2.png": JPEG[:9000], "3.png": JPEG[:9000]})
    assert "(2 more of the 4 images cannot be used either)" in refusal(load, paths)
    assert "none of the 3 images can be used" in refusal(load, paths[1:], on_bad="skip")


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "cannot be read: No such file" in refusal(load_image, tmp_path / "no.png", 8, 1)
    assert "cannot be read: Is a directory" in refusal(load_image, tmp_path, 8, 1)


def test_arguments_that_cannot_be_meant_are_refused(digits):
    paths = list_image_folder(digits).paths
    assert "--image-size is 0" in refusal(load, paths, 0)
    assert "--image-size is -1" in refusal(load_image, paths[0], -1, 1)
    assert "no images" in refusal(load, [])
    with pytest.raises(ValueError, match="40 paths, but 1 names"):
        load_images(paths, ["a"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_any_damage_ends_in_an_image_or_a_line(write, kind):
    whole, generator = encoded(PHOTO, kind), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = bytearray(whole[: generator.integers(1, len(whole))] if generator.random() < 0.3 else whole)
        for position in generator.integers(0, min(len(content), 400), 8):
            content[position] = generator.integers(256)
        try:
            assert load_image(write("a.img", bytes(content)), 16, 3).shape == (3, 16, 16)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused <= 60


# --- the cache --------------------------------------------------------------------------------------------------------


def forbid_decoding(monkeypatch):
    def forbidden(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(images, "_decode_all", forbidden)
    monkeypatch.setattr(images, "_decode", forbidden)


def stored(cache: Path) -> list[Path]:
    return sorted(cache.glob("*"))


def test_images_are_decoded_once(digits, cache, monkeypatch):
    paths = list_image_folder(digits).paths
    lines: list[str] = []
    first = load(paths, say=lines.append)
    forbid_decoding(monkeypatch)
    second = load(paths, say=lines.append)
    np.testing.assert_array_equal(first.values, second.values)
    assert isinstance(first.values, np.memmap)
    assert isinstance(second.values, np.memmap)
    assert lines == [f"40 images of 8 x 8 pixels, kept in {cache} (0.0 MB)"] * 2
    assert [file.suffix for file in stored(cache)] == [".npy"]


def test_a_file_that_changed_is_decoded_again(digits, cache):
    paths = list_image_folder(digits).paths
    before = load(paths).values
    stamp = paths[3].stat()
    os.utime(paths[3], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    load(paths)
    assert len(stored(cache)) == 2
    paths[3].write_bytes(encoded(Image.new("L", (8, 8), 7), "PNG"))
    after = load(paths).values
    assert (after[3] == 7).all()
    np.testing.assert_array_equal(np.delete(before, 3, 0), np.delete(after, 3, 0))


def test_another_size_channel_order_or_place_is_another_cache(digits, tmp_path, cache):
    paths = list_image_folder(digits).paths
    load(paths, 8)
    load(paths, 9)
    load(paths, 8, channels=3)
    np.testing.assert_array_equal(load(paths[::-1], 8).values, load(paths, 8).values[::-1])
    assert len(stored(cache)) == 4
    # two sets out of archives: the same names, times and sizes in bytes, and other pixels
    twins = [place(tmp_path / name, {"a/1.bmp": encoded(digit(row), "BMP")}) for row, name in enumerate("pq")]
    for twin in twins:
        os.utime(twin / "a/1.bmp", ns=(0, 0))
    one, other = (load([twin / "a/1.bmp"]).values for twin in twins)
    assert (one != other).any()
    both = [twin / "a/1.bmp" for twin in twins]
    np.testing.assert_array_equal(load(both).values, load(both[::-1]).values[::-1])


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "other", "empty"])
def test_a_damaged_cache_is_written_anew(digits, cache, damage, monkeypatch):
    paths = list_image_folder(digits).paths
    right = load(paths).values.copy()
    (file,) = stored(cache)
    content = file.read_bytes()
    damaged = {
        "truncated": content[:-100],
        "zeroed": content[:-500] + bytes(500),
        "other": encoded(CHINA, "PNG"),
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    np.testing.assert_array_equal(load(paths).values, right)
    assert stored(cache) == [file]
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(load(paths).values, right)


def test_an_image_that_could_not_be_read_is_tried_again(digits, monkeypatch):
    paths = list_image_folder(digits).paths
    decode = images._decode

    def fail(path, *arguments):
        if path == paths[5]:
            raise OSError(errno.EIO, "Input/output error")
        return decode(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(images, "_decode", fail)
        assert load(paths, on_bad="skip").bad == ((paths[5].name, "cannot be read: Input/output error"),)
    assert len(load(paths).values) == 40


def test_a_failed_run_is_not_decoded_again(tmp_path, monkeypatch):
    place(tmp_path, {"0.png": encoded(digit(0), "PNG"), "1.png": JPEG[:9000]})
    paths = sorted(tmp_path.iterdir())
    assert "1.png is damaged" in refusal(load, paths, 8)
    monkeypatch.setattr(images, "_decode_all", None)
    assert load(paths, 8, on_bad="skip").kept.tolist() == [0]


def test_a_cache_that_cannot_be_written_only_warns(digits, tmp_path):
    paths = list_image_folder(digits).paths
    (tmp_path / "file").write_bytes(b"")
    lines: list[str] = []
    with pytest.warns(DataWarning, match="nothing is kept in the cache"):
        loaded = load(paths, cache_dir=tmp_path / "file" / "cache", say=lines.append)
    np.testing.assert_array_equal(loaded.values, load(paths).values)
    assert lines == []


def test_what_is_written_to_the_array_does_not_reach_the_cache(digits):
    paths = list_image_folder(digits).paths
    load(paths)
    right = load(paths).values.copy()
    load(paths).values[:] = 0
    np.testing.assert_array_equal(load(paths).values, right)


def test_many_images_are_taken_in_several_chunks(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "CHUNK", 7)
    place(tmp_path, {"x.png": JPEG[:9000]})
    paths = list(list_image_folder(digits).paths)
    whole = load(paths, 8).values
    paths.insert(20, tmp_path / "x.png")
    assert load(paths, 8, channels=1, on_bad="skip").kept.tolist() == [*range(20), *range(21, 41)]
    np.testing.assert_array_equal(load(paths, 8, channels=1, on_bad="skip").values, whole)


def test_pillows_remarks_are_not_the_users(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    path = write("a.png", encoded(digit(0), "PNG"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "has more than" in refusal(load_image, path, 8, 1)
    assert caught == []


def test_two_processes_at_once_do_not_disturb_each_other(digits, cache):
    script = (
        "import sys, zlib; from pathlib import Path; from ebomlc.data.image_files import list_image_folder; "
        "from ebomlc.data.images import load_images\n"
        "files = list_image_folder(Path(sys.argv[1]))\n"
        "print(zlib.crc32(load_images(files.paths, files.ids).values.tobytes()))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(digits)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    sums = {int(process.communicate(timeout=60)[0]) for process in started}
    assert sums == {zlib.crc32(load(list_image_folder(digits).paths).values.tobytes())}
    assert len(stored(cache)) == 1
