"""Users' own images: decoded once to square uint8 arrays, and kept for the next run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ebomlc.data.cache import cache_folder, content_key, new_cached, open_cached
from ebomlc.errors import InputError
from ebomlc.records import IntArray

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
"""What Pillow may decode; it knows more, and starts another program for some of them."""


SKIP = "leave such images out with --on-bad-input skip"

HEADERS_READ = 200
"""So many headers decide the size that images are brought to."""

SMALL, EXACT, LARGEST_SIZE = 32, 64, 64
SMALL_SIDE = 40
DRAFT = 2
"""JPEG files are decoded at no less than so many times the size asked for."""

DECODING = 1
"""Counts the ways in which files became pixels, so that the cache of an older version is not taken for this one's."""

GOOD, BAD = 1, 2
"""How a row of the cache stands; 0 is a row that was never written."""

CHUNK = 1024
FIRST_BYTES = 512

OTHER_KINDS: Mapping[bytes, str] = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"%!PS": "a PostScript document",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"<svg": "an SVG drawing",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
    b"<?xml": "an XML document",
    b"version https://git-lfs": "a pointer of Git LFS (`git lfs pull` gets the image)",
}
OWN_KINDS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
"""How files of `FORMATS` begin."""


@dataclass(frozen=True)
class LoadedImages:
    """Images as arrays.

    Attributes
    ----------
    values : uint8 array, shape [M, C, S, S]
        One grey channel, or red, green and blue. Memory-mapped wherever the cache can be written, and contiguous;
        what is written to it does not reach the cache.
    kept : int64 array, shape [M]
        Positions of those images among the paths, ascending.
    bad : tuple of (str, str)
        Name of each image that was left out, and what is wrong with it.
    """

    values: Pixels
    kept: IntArray
    bad: tuple[tuple[str, str], ...]

    @property
    def channels(self) -> int:
        """1 or 3."""
        return self.values.shape[1]

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return self.values.shape[2]


@dataclass(frozen=True)
class _Bad:
    """In the place of an image that cannot be used: what is wrong with it, to follow its name in a sentence."""

    reason: str


@dataclass(frozen=True)
class _Decoded:
    """All images of a set: the good ones in front, in their order; `problems` by position among the paths."""

    values: Pixels
    problems: Mapping[int, str]


# --- from files to arrays ---------------------------------------------------------------------------------------------


def image_bytes(n: int, size: int, channels: int = 3) -> int:
    """Bytes that `n` images take once they are loaded, on disk and, when all of them are used, in memory."""
    return n * channels * size * size


def choose_image_size(paths: Sequence[Path], largest: int = LARGEST_SIZE) -> int:
    """A size for images whose user names none, from up to 200 headers, evenly spaced.

    Where all are square, of one size, and no larger than 64 pixels, that size: no pixel is changed. Else 32 where the
    median of the shorter sides is at most 40, and `largest` where it is more. Files that cannot be read don't count.
    """
    rows = np.unique(np.linspace(0, len(paths) - 1, HEADERS_READ).astype(np.int64)) if paths else ()
    with _without_pillow_warnings():
        headers = [_attempt(_read_header, paths[row]) for row in rows]
    sizes = [header.size for header in headers if not isinstance(header, _Bad)]
    if not sizes:
        return largest
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1] <= EXACT:
        return sizes[0][0]
    return SMALL if np.median([min(size) for size in sizes]) <= SMALL_SIDE else largest


def load_image(source: Path, size: int, channels: int) -> Pixels:
    """One image, as `load_images` makes it.

    Returns
    -------
    uint8 array, shape [C, S, S]

    Raises
    ------
    InputError
        If it cannot be used.
    """
    _check_size(size)
    with _without_pillow_warnings():
        image = _attempt(lambda path: _decode(path, size, channels), source)
    if isinstance(image, _Bad):
        raise InputError(f"{source} {image.reason}; repair or replace it")
    return image


def load_picture(source: Path, side: int) -> Image.Image:
    """One image to look at: whole, in its own proportions, made smaller where it is longer than `side` pixels.

    Transparency, 16 bits and EXIF orientation are treated as by `load_images`.

    Raises
    ------
    InputError
        If it cannot be used.
    """
    _check_size(side)
    with _without_pillow_warnings():
        image = _attempt(lambda path: _shrink(path, side), source)
    if isinstance(image, _Bad):
        raise InputError(f"{source} {image.reason}")
    return image


def load_images(
    paths: Sequence[Path],
    names: Sequence[str],
    size: int | None = None,
    *,
    channels: int | None = None,
    on_bad: Literal["error", "skip"] = "error",
    cache_dir: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> LoadedImages:
    """Images of any size and mode as square arrays; decoded once, and read from the cache from then on.

    The orientation in the EXIF data is applied. What is transparent becomes white. Of an animation the first image is
    taken. 16-bit images are scaled to 8 bit; 32-bit ones (integers or fractions) by the first of the ranges 0..1
    (fractions only), 0..255 and 0..65535 that holds all their values, else from least to largest. Colour profiles are
    not applied. The shorter side is brought to `size` by an antialiased bicubic filter and the rest is cut off evenly
    on both sides.

    The cache holds one array for each set of files, by their absolute paths, sizes and times of change. Files are not
    opened when it is there, except bad ones and those that decide the size.

    Parameters
    ----------
    paths, names : sequences of Path and of str, length N
        Files, and what to call them in `LoadedImages.bad`.
    size : int, optional
        Pixels along a side; by default `choose_image_size`.
    channels : {1, 3}, optional
        By default 1 where every image with a header that can be read is stored as grey, else 3.
    on_bad : {"error", "skip"}
        What to do about images that cannot be used: damaged or unreadable files, other documents under the name of an
        image, and images of more than `PIL.Image.MAX_IMAGE_PIXELS` (89 million) pixels, which could fill the memory.
    cache_dir : Path, optional
        See `ebomlc.data.cache.cache_folder`.
    say : callable, optional
        Takes a line that says where the cache is and how large; also switches the progress bar on.

    Raises
    ------
    InputError
        If an image cannot be used and `on_bad` is "error", or none can.

    Warns
    -----
    DataWarning
        If the cache cannot be written; the images then lie in memory.
    """
    if len(paths) != len(names):
        raise ValueError(f"{len(paths)} paths, but {len(names)} names")
    if not paths:
        raise InputError("no images to load; give at least one")
    size = choose_image_size(paths) if size is None else size
    _check_size(size)
    folder = cache_folder(cache_dir)
    key = _key(paths, size, channels)
    with _without_pillow_warnings():
        decoded = _reopen(key, folder, paths, size)
        if decoded is None:
            decoded = _decode_all(key, folder, paths, size, channels, on_bad, quiet=say is None)
    _check_problems(paths, decoded.problems, on_bad)
    if say is not None and isinstance(decoded.values, np.memmap):
        megabytes = decoded.values.nbytes / 1e6
        say(f"{len(decoded.values):,} images of {size} x {size} pixels, kept in {folder} ({megabytes:,.1f} MB)")
    kept = np.setdiff1d(np.arange(len(paths)), np.array([*decoded.problems], np.int64))
    return LoadedImages(
        decoded.values, kept, tuple((names[row], reason) for row, reason in sorted(decoded.problems.items()))
    )


def _check_size(size: int) -> None:
    if size < 1:
        raise InputError(f"--image-size is {size}: must be at least 1 pixel")


def _check_problems(paths: Sequence[Path], problems: Mapping[int, str], on_bad: str) -> None:
    if not problems or (on_bad == "skip" and len(problems) < len(paths)):
        return
    first, n = min(problems), len(problems)
    if on_bad == "skip":
        raise InputError(f"none of the {n} images can be used; the first: {paths[first]} {problems[first]}")
    rest = f" ({n - 1} more of the {len(paths)} images cannot be used either)" if n > 1 else ""
    raise InputError(f"{paths[first]} {problems[first]}{rest}; repair or replace it, or {SKIP}")


def _key(paths: Sequence[Path], size: int, channels: int | None) -> str:
    """What the cache of some files is found by.

    Absolute paths, for names and times below a folder may be the same in two sets that were unpacked from archives.
    """
    stamps = np.array([_stamp(path) for path in paths], np.int64)
    return content_key(
        f"images {DECODING} {size} {channels}", "\0".join(str(path.absolute()) for path in paths), stamps
    )


def _stamp(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was changed; -1 where that cannot be told."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


# --- the cache of a set: pixels of the good images, unused room for as many as are bad, and how each row stands -------


def _reopen(key: str, folder: Path, paths: Sequence[Path], size: int) -> _Decoded | None:
    """What an earlier run decoded; None where it is not there, not whole, or a bad image can be read by now."""
    stored, n = open_cached(key, folder), len(paths)
    if stored is None or stored.dtype != np.uint8:
        return None
    channels = next((c for c in (1, 3) if stored.shape == (n + image_bytes(n, size, c),)), 0)
    standing = stored[-n:]
    if channels == 0 or not np.isin(standing, (GOOD, BAD)).all():
        return None
    rows = np.flatnonzero(standing == BAD).tolist()
    again = {row: _attempt(lambda path: _decode(path, size, channels), paths[row]) for row in rows}
    problems = {row: image.reason for row, image in again.items() if isinstance(image, _Bad)}
    if len(problems) < len(rows):
        return None
    return _Decoded(_images_of(stored, n, size, channels)[: n - len(rows)], problems)


def _images_of(stored: Pixels, n: int, size: int, channels: int) -> Pixels:
    """View [N, C, S, S] of the pixels in the cache."""
    return stored[: image_bytes(n, size, channels)].reshape(n, channels, size, size)


def _decode_all(
    key: str,
    folder: Path,
    paths: Sequence[Path],
    size: int,
    channels: int | None,
    on_bad: str,
    *,
    quiet: bool,
) -> _Decoded:
    """Decode every image into the cache; files whose header is bad are refused before anything is decoded."""
    n = len(paths)
    with tqdm(total=2 * n, desc="images", unit="files", disable=True if quiet else None) as bar:
        headers = _in_parallel(lambda row: _attempt(_read_header, paths[row]), n, bar)
        problems = {row: header.reason for row, header in enumerate(headers) if isinstance(header, _Bad)}
        _check_problems(paths, problems, on_bad)
        if channels is None:
            channels = 1 if all(header.is_grey for header in headers if not isinstance(header, _Bad)) else 3
        with new_cached(key, folder, (n + image_bytes(n, size, channels),), np.uint8) as stored:
            values = _images_of(stored, n, size, channels)
            problems |= _decode_into(values, paths, problems, bar)
            stored[-n:] = GOOD
            stored[-n:][[*problems]] = BAD
            _close_gaps(values, np.flatnonzero(stored[-n:] == GOOD))
    return _Decoded(values[: n - len(problems)], problems)


def _decode_into(values: Pixels, paths: Sequence[Path], known: Mapping[int, str], bar: tqdm) -> dict[int, str]:
    """Write the pixels of every image that is not known to be bad; further problems by row."""
    channels, size = values.shape[1:3]

    def decode(row: int) -> _Bad | None:
        image = _attempt(lambda path: _decode(path, size, channels), paths[row])
        if isinstance(image, _Bad):
            return image
        values[row] = image
        return None

    found = _in_parallel(lambda row: None if row in known else decode(row), len(paths), bar)
    return {row: image.reason for row, image in enumerate(found) if image is not None}


def _close_gaps(values: Pixels, good: IntArray) -> None:
    """Move the good rows to the front, in their order."""
    if len(good) == len(values):
        return
    for start in range(0, len(good), CHUNK):
        rows = good[start : start + CHUNK]
        values[start : start + len(rows)] = values[rows]


def _in_parallel(work: Callable[[int], T], n: int, bar: tqdm) -> list[T]:
    """What `work` makes of 0 to n - 1; threads do, because Pillow decodes without holding the interpreter."""
    results: list[T] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, n, CHUNK):  # the pool would queue all of them at once, and hold on to a million futures
            rows = range(start, min(start + CHUNK, n))
            for result in pool.map(work, rows):
                results.append(result)
                bar.update()
    return results


# --- one image --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    is_grey: bool


def _read_header(path: Path) -> _Header:
    with _open(path) as image:
        return _Header(image.size, image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"))


def _open(path: Path) -> Image.Image:
    """The image with its header read and its pixels not."""
    image = Image.open(path, formats=FORMATS)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        image.close()
        raise Image.DecompressionBombError
    return image


def _decode(path: Path, size: int, channels: int) -> Pixels:
    """Pixels [C, S, S] of an image; any exception at all for one that is damaged."""
    plain = _read_plain(path, size).convert("L" if channels == 1 else "RGB")
    fitted = np.asarray(ImageOps.fit(plain, (size, size), Image.Resampling.BICUBIC), np.uint8)
    return fitted[None] if channels == 1 else fitted.transpose(2, 0, 1)


def _read_plain(path: Path, size: int) -> Image.Image:
    """The pixels of a file, upright and without transparency, for a picture of about `size` pixels a side."""
    with _open(path) as image:
        image.draft(None, (DRAFT * size, DRAFT * size))
        image.load()
        with suppress(Exception):  # damage in the EXIF data says nothing of the pixels, and takes as many forms
            ImageOps.exif_transpose(image, in_place=True)
        return _without_transparency(_in_eight_bits(image))


def _shrink(path: Path, side: int) -> Image.Image:
    plain = _read_plain(path, side)
    picture = plain if plain.mode == "L" else plain.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return picture


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Grey images of 16 or 32 bits a pixel scaled to 8; all others as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    values[~np.isfinite(values)] = 0
    low, high = _range_of(values, image)
    return Image.fromarray(np.rint((values - low) * (255 / (high - low))).astype(np.uint8))


def _range_of(values: npt.NDArray[np.float64], image: Image.Image) -> tuple[float, float]:
    """What is black and what is white in such an image."""
    # Pillow before 12 gives 16-bit PNG and PPM as 32-bit integers; in a TIFF these may have any range
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format != "TIFF"):
        return 0, 65535
    low, high = float(values.min()), float(values.max())
    ranges = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    within = (top for top in ranges if low >= 0 and high <= top)
    return next(((0.0, float(top)) for top in within), (low, high if high > low else low + 1))


def _without_transparency(image: Image.Image) -> Image.Image:
    """The image on white ground where it has any transparency, else as it is."""
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        return image
    colour = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)


@contextmanager
def _without_pillow_warnings() -> Iterator[None]:
    """Keep Pillow's remarks on odd files from the user: what cannot be used is reported by name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def _attempt(read: Callable[[Path], T], path: Path) -> T | _Bad:
    try:
        return read(path)
    except Exception as error:  # decoders meet a damaged file with nearly every exception there is
        return _Bad(_reason(error, path))


def _reason(error: Exception, path: Path) -> str:
    """What is wrong with a file, to follow its name in a sentence."""
    if isinstance(error, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        return f"has more than {limit:.0f} million pixels, which could fill the memory: save it smaller"
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(path)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"is damaged: {' '.join(str(error).split()) or type(error).__name__}"


def _what_it_is(path: Path) -> str:
    """What a file without the header of an image is, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(FIRST_BYTES)
    if not start.strip(b"\0"):
        return "is empty (0 bytes)" if not start else "is damaged: it begins with zeros"
    if start.startswith(OWN_KINDS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP"):
        return "is damaged: its header cannot be read"
    if start[4:8] == b"ftyp":
        return "is a HEIC or AVIF image or a video, none of which is read here: save it as PNG or JPEG"
    lower = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = next((kind for magic, kind in OTHER_KINDS.items() if lower.startswith(magic.lower())), None)
    return f"is {kind}, not an image" if kind else f"is not an image: it begins with {start[:12]!r}"
