"""The files of data sets: idx, gzipped or not, pictures and labels in JSON, each checked."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from pathlib import Path

import numpy as np

from morph.errors import need
from regularizers import json_files
from regularizers.errors import MorphError

_missing: ModuleNotFoundError | None = None
try:
    from PIL import Image

    # Pillow's words for a picture that is broken, or small and would unpack to a huge one.
    _BROKEN_PICTURE = (
        *(OSError, SyntaxError, ValueError, zlib.error),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    )
except ModuleNotFoundError as error:
    _missing = error


class DatasetError(MorphError, ValueError):
    """An unknown data set, or files that are not what they should be."""


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads one idx file of unsigned bytes, gzipped or not, that must have this shape."""
    expected = math.prod(shape)
    start = 4 + 4 * len(shape)
    content = _unpacked(path, start + expected + 1)  # the one more shows that there is more
    # Header: two zero bytes, the element type (8 = uint8), the rank; then each size, big-endian.
    magic = bytes((0, 0, 8, len(shape)))
    if content[:4] != magic:
        raise DatasetError(
            f"{path}: expected idx magic number {magic.hex()} (uint8, {len(shape)} axes), "
            f"found {content[:4].hex() or 'an empty file'}."
        )
    if len(content) < start:
        raise DatasetError(f"{path}: expected {start} bytes of header, found {len(content)} bytes.")
    found = tuple(int(size) for size in np.frombuffer(content, ">u4", len(shape), 4))
    if found != shape:
        raise DatasetError(f"{path}: expected shape {shape}, found {found}.")
    if len(content) - start != expected:
        more = "more" if len(content) - start > expected else len(content) - start
        raise DatasetError(f"{path}: expected {expected} bytes after the header, found {more}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unpacked(path: Path, most_bytes: int) -> bytes:
    """The first bytes of a file, gzipped or not; no more is ever unpacked."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            file.seek(0)
            return file.read(most_bytes)
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                return unpacked.read(most_bytes)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(
                f"{path}: expected a whole gzip file, found {path.stat().st_size} bytes that do "
                f"not decompress ({error}). Install it again."
            ) from error


def read_rgb(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Reads an RGB picture of this (height, width) as uint8 [height, width, 3]."""
    need("reading pictures", _missing, "data")
    height, width = shape
    try:
        with warnings.catch_warnings(action="error"), Image.open(path) as picture:
            if picture.mode != "RGB" or picture.size != (width, height):
                raise DatasetError(
                    f"{path}: expected an RGB picture, {width} wide and {height} high, found "
                    f"{picture.mode}, {picture.width} wide and {picture.height} high."
                )
            return np.asarray(picture)
    except DatasetError:
        raise
    except _BROKEN_PICTURE as error:
        raise DatasetError(
            f"{path}: expected a whole PNG file, found {path.stat().st_size} bytes that do not "
            f"decode ({error}). Install it again."
        ) from error


def read_json_labels(path: Path, count: int, num_classes: int) -> np.ndarray:
    """Reads a JSON list of this many labels in [0, num_classes), as uint8."""
    try:
        labels = np.asarray(json_files.read(path))
    except ValueError as error:  # not JSON, or a ragged list
        raise DatasetError(f"{path}: expected a JSON list of labels, found {error}.") from error
    return checked_labels(path, labels, count, num_classes)


def checked_labels(path: Path, labels: np.ndarray, count: int, num_classes: int) -> np.ndarray:
    """The labels as uint8, if there are this many, all in [0, num_classes)."""
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DatasetError(
            f"{path}: expected {count} integer labels, "
            f"found shape {labels.shape} of {labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DatasetError(
            f"{path}: expected labels in 0..{num_classes - 1}, "
            f"found {labels.min()}..{labels.max()}."
        )
    return labels.astype(np.uint8)
